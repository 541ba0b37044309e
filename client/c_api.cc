// caisson/c.h: errors, stores and saves. Each call checks its handles, turns structs into the
// engine's words and does what store.h does.
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "client/c_future.h"
#include "client/c_handles.h"

struct caisson_error {
  int32_t code = CAISSON_OK;
  std::string message;
  std::string object;
  int64_t offset = -1;
};

struct caisson_bytes {
  std::string content;
};

struct caisson_report {
  caisson::SaveReport report;
  std::vector<caisson_codec_use> codecs;  // points into the report
};

namespace caisson::c {

namespace {

// For when there is no memory to say that there is none. Never freed; its text is short enough to
// lie in the string itself.
caisson_error& last_resort() {
  static caisson_error error{.code = CAISSON_OUT_OF_MEMORY, .message = "out of memory"};
  return error;
}

// Where an object's key begins in a message: data/ and a save's uuid, or log/ and a number.
size_t find_key(std::string_view message) {
  constexpr size_t kDigitsMin = 16;
  for (const std::string_view prefix : {"data/", "log/"}) {
    for (size_t at = message.find(prefix); at != std::string_view::npos;
         at = message.find(prefix, at + 1)) {
      const std::string_view rest = message.substr(at + prefix.size());
      if (std::min(rest.find_first_not_of("0123456789abcdef"), rest.size()) >= kDigitsMin)
        return at;
    }
  }
  return std::string_view::npos;
}

// The error with its object and offset as fields: the engine's messages name an object by its key,
// and a place in it by " at offset N".
caisson_error place_of(int32_t code, std::string_view message) {
  caisson_error error{.code = code, .message = std::string(message)};
  const size_t begin = find_key(message);
  if (begin == std::string_view::npos) return error;
  const std::string_view rest = message.substr(begin);
  error.object = rest.substr(0, rest.find_first_of(" ,:;)\""));
  constexpr std::string_view kAt = " at offset ";
  const std::string_view behind = rest.substr(error.object.size());
  if (behind.starts_with(kAt)) {
    const std::string_view digits = behind.substr(kAt.size());
    std::from_chars(digits.data(), digits.data() + digits.size(), error.offset);
  }
  return error;
}

Answer check_transaction(const caisson_transaction* transaction) {
  if (Answer bad = check_handle(transaction, HandleKind::kTransaction, "transaction");
      bad.code != CAISSON_OK) {
    return bad;
  }
  if (!transaction->state->busy.load()) return {};
  return invalid_argument("a put of this transaction is going on: wait for its future first");
}

// A save of shards that become ready later: begun now, so that what can be refused is.
Answer start_deferred(const std::shared_ptr<Store>& store, const std::string& name, OwnedSave given,
                      SaveOptions options, std::shared_ptr<ProgressCell> progress,
                      caisson_future** future) {
  if (options.stage) {
    return invalid_argument("a deferred input cannot be staged: it is not there yet");
  }
  CAISSON_ASSIGN_OR_RETURN(const std::string ticket, store->begin_save(name, options));
  const auto owned = std::make_shared<const OwnedSave>(std::move(given));
  TaskOptions task{.store = store,
                   .progress = std::move(progress),
                   .stop = {},
                   .gate = std::make_shared<ReadyGate>(owned->shards.size())};
  options.stop = task.stop.get_token();
  const auto save = [opened = store.get(), ticket, owned, options,
                     gate = task.gate]() -> Result<TaskResult> {
    CAISSON_ASSIGN_OR_RETURN(SaveReport report,
                             save_when_ready(*opened, ticket, *owned, *gate, options));
    return TaskResult{.report = std::move(report), .text = {}};
  };
  *future = run_task(std::move(task), save).release();
  return {};
}

}  // namespace

Handle::Handle(HandleKind kind_of) : kind(kind_of), pid(::getpid()) {}
bool Handle::is_forked() const { return pid != ::getpid(); }

int32_t give(int32_t code, std::string_view message, caisson_error** error) noexcept {
  if (code == CAISSON_OK || code == CAISSON_TIMEOUT || error == nullptr) return code;
  try {
    *error = new caisson_error(place_of(code, message));
  } catch (const std::bad_alloc&) {
    *error = &last_resort();
  }
  return code;
}

Answer check_handle(const Handle* handle, HandleKind kind, const char* what) {
  if (handle == nullptr) return invalid_argument(std::string("the ") + what + " is null");
  if (handle->kind != kind) {
    return invalid_argument(std::string("this is no ") + what + ": another kind of handle");
  }
  if (!handle->is_forked()) return {};
  return {CAISSON_FORKED, std::string("this ") + what + " belongs to process " +
                              std::to_string(handle->pid) +
                              ", which forked this one; rings and threads do not cross a fork: "
                              "open a store here"};
}

Answer check_store(const caisson_store* store) {
  return check_handle(store, HandleKind::kStore, "store");
}

Result<std::string> text_argument(const char* text, const char* what) {
  if (text != nullptr) return std::string(text);
  return invalid_argument(std::string("the ") + what + " is null");
}

caisson_bytes* make_bytes(std::string_view text) {
  return new caisson_bytes{.content = std::string(text)};
}

caisson_report* make_report(SaveReport report) {
  auto made = std::make_unique<caisson_report>();
  made->report = std::move(report);
  made->codecs.reserve(made->report.codecs.size());
  for (const CodecUse& use : made->report.codecs) {
    made->codecs.push_back({.struct_size = sizeof(caisson_codec_use),
                            .reserved = 0,
                            .codec = use.codec.c_str(),
                            .reason = use.reason.c_str(),
                            .chunks = use.chunks,
                            .raw_bytes = use.raw_bytes,
                            .stored_bytes = use.stored_bytes});
  }
  return made.release();
}

ProgressFn callback_into(std::shared_ptr<ProgressCell> cell) {
  return [cell = std::move(cell)](const Progress& progress) {
    cell->total.store(progress.bytes_total, std::memory_order_relaxed);
    cell->done.store(progress.bytes_done, std::memory_order_relaxed);
  };
}

}  // namespace caisson::c

using caisson::c::Answer;
using caisson::c::call;
using caisson::c::check_out;
using caisson::c::check_store;
using caisson::c::check_transaction;
using caisson::c::read_options;
using caisson::c::TaskResult;
using caisson::c::text_argument;

extern "C" {

uint32_t caisson_abi_version(void) { return CAISSON_ABI_VERSION; }
const char* caisson_version(void) { return CAISSON_VERSION; }

int32_t caisson_error_code(const caisson_error* error) {
  return error != nullptr ? error->code : CAISSON_OK;
}
const char* caisson_error_message(const caisson_error* error) {
  return error != nullptr ? error->message.c_str() : "";
}
const char* caisson_error_object(const caisson_error* error) {
  return error != nullptr ? error->object.c_str() : "";
}
int64_t caisson_error_offset(const caisson_error* error) {
  return error != nullptr ? error->offset : -1;
}
void caisson_error_free(caisson_error* error) {
  if (error != &caisson::c::last_resort()) delete error;
}
const char* caisson_code_name(int32_t code) {
  switch (code) {
    case CAISSON_FORKED:
      return "forked";
    case CAISSON_TIMEOUT:
      return "timeout";
    case CAISSON_INTERNAL:
      return "internal error";
    default:
      if (code < 0 || code > CAISSON_UNSUPPORTED) return "unknown";
      return caisson::status_code_name(static_cast<caisson::StatusCode>(code)).data();  // literals
  }
}

const void* caisson_bytes_data(const caisson_bytes* bytes) {
  return bytes != nullptr ? bytes->content.c_str() : nullptr;
}
uint64_t caisson_bytes_size(const caisson_bytes* bytes) {
  return bytes != nullptr ? bytes->content.size() : 0;
}
void caisson_bytes_free(caisson_bytes* bytes) { delete bytes; }

int32_t caisson_report_get(const caisson_report* report, caisson_save_report* fields,
                           caisson_error** error) {
  return call(error, [&]() -> Answer {
    if (report == nullptr) return caisson::invalid_argument("the report is null");
    return caisson::c::write_report(report->report, fields);
  });
}
const caisson_codec_use* caisson_report_codecs(const caisson_report* report, uint64_t* count) {
  if (count != nullptr) *count = report != nullptr ? report->codecs.size() : 0;
  return report != nullptr ? report->codecs.data() : nullptr;
}
void caisson_report_free(caisson_report* report) { delete report; }

// ---- store

int32_t caisson_store_open(const char* url, const caisson_store_options* options,
                           caisson_store** store, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(store, "store"));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(url, "url"));
    CAISSON_ASSIGN_OR_RETURN(const caisson::StoreOptions wanted, read_options(options));
    CAISSON_ASSIGN_OR_RETURN(auto opened, caisson::Store::open(text, wanted));
    auto made = std::make_unique<caisson_store>();
    made->trace = wanted.trace;
    made->metrics = wanted.metrics;
    made->store = std::move(opened);
    *store = made.release();
    return {};
  });
}

void caisson_store_close(caisson_store* store) {
  if (store != nullptr && !store->is_forked()) delete store;
}

int32_t caisson_store_trace(caisson_store* store, caisson_bytes** json, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(json, "json"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    if (store->trace == nullptr) {
      return caisson::invalid_argument("the store was opened without CAISSON_STORE_TRACE");
    }
    *json = caisson::c::make_bytes(store->trace->to_json());
    return {};
  });
}

// ---- saving

int32_t caisson_save_start(caisson_store* store, const char* name, const caisson_save_input* input,
                           const caisson_save_options* options, caisson_future** future,
                           caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(future, "future"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(name, "name"));
    CAISSON_ASSIGN_OR_RETURN(caisson::c::OwnedSave owned, caisson::c::read_input(input));
    CAISSON_ASSIGN_OR_RETURN(caisson::SaveOptions wanted, read_options(options));
    auto progress = std::make_shared<caisson::c::ProgressCell>();
    wanted.progress = caisson::c::callback_into(progress);
    if (owned.deferred) {
      return caisson::c::start_deferred(store->store, text, std::move(owned), wanted,
                                        std::move(progress), future);
    }
    CAISSON_ASSIGN_OR_RETURN(caisson::PendingSave save,
                             store->store->save(text, owned.input(), wanted));
    *future =
        caisson::c::make_save_future(store->store, std::move(progress), std::move(save)).release();
    return {};
  });
}

int32_t caisson_save_begin(caisson_store* store, const char* name,
                           const caisson_save_options* options, caisson_bytes** ticket,
                           caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(ticket, "ticket"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(name, "name"));
    CAISSON_ASSIGN_OR_RETURN(const caisson::SaveOptions wanted, read_options(options));
    CAISSON_ASSIGN_OR_RETURN(const std::string begun, store->store->begin_save(text, wanted));
    *ticket = caisson::c::make_bytes(begun);
    return {};
  });
}

int32_t caisson_save_join(caisson_store* store, const char* ticket, uint32_t rank,
                          const caisson_save_options* options, caisson_transaction** transaction,
                          caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(transaction, "transaction"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(ticket, "ticket"));
    CAISSON_ASSIGN_OR_RETURN(caisson::SaveOptions wanted, read_options(options));
    auto made = std::make_unique<caisson_transaction>();
    made->state = std::make_shared<caisson_transaction::State>();
    made->state->store = store->store;
    wanted.progress = caisson::c::callback_into(made->state->progress);
    wanted.stop = made->state->stop.get_token();
    CAISSON_ASSIGN_OR_RETURN(made->state->transaction, store->store->join_save(text, rank, wanted));
    *transaction = made.release();
    return {};
  });
}

int32_t caisson_transaction_put_start(caisson_transaction* transaction,
                                      const caisson_save_input* input, caisson_future** future,
                                      caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(future, "future"));
    CAISSON_RETURN_IF_BAD(check_transaction(transaction));
    CAISSON_ASSIGN_OR_RETURN(caisson::c::OwnedSave read, caisson::c::read_input(input));
    const auto owned = std::make_shared<const caisson::c::OwnedSave>(std::move(read));
    const auto state = transaction->state;
    caisson::c::TaskOptions task{
        .store = state->store, .progress = state->progress, .stop = state->stop, .gate = nullptr};
    if (owned->deferred) task.gate = std::make_shared<caisson::c::ReadyGate>(owned->shards.size());
    const auto put = [state, owned, gate = task.gate]() -> caisson::Result<TaskResult> {
      const caisson::Status status =
          gate == nullptr ? state->transaction->put(owned->input())
                          : caisson::c::put_when_ready(*state->transaction, *owned, *gate,
                                                       state->stop.get_token());
      state->busy = false;
      CAISSON_RETURN_IF_ERROR(status);
      return TaskResult{};
    };
    state->busy = true;
    *future = caisson::c::run_task(std::move(task), put).release();
    return {};
  });
}

int32_t caisson_transaction_seal(caisson_transaction* transaction, caisson_bytes** token,
                                 caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(token, "token"));
    CAISSON_RETURN_IF_BAD(check_transaction(transaction));
    CAISSON_ASSIGN_OR_RETURN(const caisson::SealedPart part,
                             transaction->state->transaction->seal());
    *token = caisson::c::make_bytes(part.token);
    return {};
  });
}

int32_t caisson_transaction_report(caisson_transaction* transaction, caisson_report** report,
                                   caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(report, "report"));
    CAISSON_RETURN_IF_BAD(check_transaction(transaction));
    *report = caisson::c::make_report(transaction->state->transaction->report());
    return {};
  });
}

void caisson_transaction_free(caisson_transaction* transaction) {
  if (transaction != nullptr && !transaction->is_forked()) delete transaction;
}

int32_t caisson_save_commit(caisson_store* store, const char* ticket, uint32_t ranks,
                            const char* const* tokens, uint64_t tokens_count,
                            const caisson_save_options* options, caisson_report** report,
                            caisson_error** error) {
  return call(error, [&]() -> Answer {
    if (report != nullptr) *report = nullptr;
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(ticket, "ticket"));
    CAISSON_ASSIGN_OR_RETURN(const caisson::SaveOptions wanted, read_options(options));
    CAISSON_ASSIGN_OR_RETURN(const std::vector<std::string> read,
                             caisson::c::read_texts(tokens, tokens_count, "token"));
    std::vector<caisson::SealedPart> parts;
    parts.reserve(read.size());
    for (const std::string& token : read) parts.push_back({.token = token});
    CAISSON_ASSIGN_OR_RETURN(caisson::SaveReport made,
                             store->store->commit_save(text, ranks, parts, wanted));
    if (report != nullptr) *report = caisson::c::make_report(std::move(made));
    return {};
  });
}

int32_t caisson_save_abort(caisson_store* store, const char* ticket, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(ticket, "ticket"));
    return store->store->abort_save(text);
  });
}

int32_t caisson_claim(caisson_store* store, const char* run, const char* base,
                      caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(run, "run"));
    return store->store->claim(text, base != nullptr ? base : "");
  });
}

int32_t caisson_remove(caisson_store* store, const char* name, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(name, "name"));
    return store->store->remove(text);
  });
}

}  // extern "C"

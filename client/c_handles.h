// What stands behind the opaque handles of caisson/c.h, and what every call of it goes through.
// Used by c_api.cc, c_input.cc, c_future.cc and c_catalog.cc. A handle starts with Handle: its
// kind, so that one passed for another is refused, and its process, so that a forked child is told.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <exception>
#include <memory>
#include <new>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/c.h"
#include "caisson/store.h"
#include "caisson/trace.h"

namespace caisson::c {

enum class HandleKind : uint32_t { kStore = 0xCA15'0001, kFuture, kTransaction };

struct Handle {
  explicit Handle(HandleKind kind_of);
  const HandleKind kind;
  const pid_t pid;
  bool is_forked() const;
};

// An answer of a call: a Status, or one of the codes that only the C ABI has.
struct Answer {
  Answer() = default;
  // Implicit on purpose: `return status;` reads well.
  // NOLINTNEXTLINE(google-explicit-constructor)
  Answer(const Status& status)
      : code(static_cast<int32_t>(status.code())), message(status.message()) {}
  Answer(int32_t c, std::string m) : code(c), message(std::move(m)) {}

  int32_t code = CAISSON_OK;
  std::string message;
};
// Like CAISSON_RETURN_IF_ERROR, for an Answer.
#define CAISSON_RETURN_IF_BAD(expr) \
  if (Answer bad = (expr); bad.code != CAISSON_OK) return bad

// Makes the error object and gives the code; without memory for one, the one that is always there.
int32_t give(int32_t code, std::string_view message, caisson_error** error) noexcept;

// The body of a call: its Answer becomes code and error object; nothing leaves by an exception.
template <typename Body>
int32_t call(caisson_error** error, const Body& body) noexcept {
  if (error != nullptr) *error = nullptr;
  try {
    const Answer answer = body();
    return give(answer.code, answer.message, error);
  } catch (const std::bad_alloc&) {
    return give(CAISSON_OUT_OF_MEMORY, "out of memory", error);
  } catch (const std::exception& exception) {
    return give(CAISSON_INTERNAL, exception.what(), error);
  } catch (...) {
    return give(CAISSON_INTERNAL, "an exception that is none of the standard's", error);
  }
}

// Null, another kind of handle, or one of the parent process.
Answer check_handle(const Handle* handle, HandleKind kind, const char* what);
Answer check_store(const caisson_store* store);
// A result parameter that must not be null; it becomes null until there is a result.
template <typename T>
Status check_out(T** out, const char* what) {
  if (out == nullptr) return invalid_argument(std::string(what) + " is null: where to put it?");
  *out = nullptr;
  return ok_status();
}
Result<std::string> text_argument(const char* text, const char* what);

caisson_bytes* make_bytes(std::string_view text);
caisson_report* make_report(SaveReport report);

// No save of ours is anywhere near it, and no pointer plus so many structs overflows.
inline constexpr uint64_t kCountMax = 1u << 27;

// What a call was given, in the engine's words; names and places are copies. (c_input.cc)
struct OwnedSave {
  bool deferred = false;
  std::vector<TensorShard> shards;
  std::vector<BlobView> blobs;
  std::vector<Alias> aliases;
  SaveInput input() const { return {.tensors = shards, .blobs = blobs, .aliases = aliases}; }
};
Result<OwnedSave> read_input(const caisson_save_input* input);
Result<std::vector<TensorTarget>> read_targets(const caisson_target* targets, uint64_t count);
Result<std::vector<std::string>> read_texts(const char* const* texts, uint64_t count,
                                            const char* what);
Result<StoreOptions> read_options(const caisson_store_options* options);
Result<SaveOptions> read_options(const caisson_save_options* options);
Result<RestoreOptions> read_options(const caisson_restore_options* options);
// Copies the fields that the caller's struct has room for. kInvalidArgument for a size that no
// version has. `fields` is filled by the library, so it may be older or newer.
Status write_report(const SaveReport& report, caisson_save_report* fields);

// How far a pipeline is, as its callback last said.
struct ProgressCell {
  std::atomic<uint64_t> done{0};
  std::atomic<uint64_t> total{0};
};
ProgressFn callback_into(std::shared_ptr<ProgressCell> cell);

}  // namespace caisson::c

struct caisson_store : caisson::c::Handle {
  caisson_store() : Handle(caisson::c::HandleKind::kStore) {}
  std::shared_ptr<caisson::Trace> trace;  // null: not recorded
  std::shared_ptr<caisson::Metrics> metrics;
  std::shared_ptr<caisson::Store> store;
};

struct caisson_transaction : caisson::c::Handle {
  caisson_transaction() : Handle(caisson::c::HandleKind::kTransaction) {}
  // Shared with the future of a put that is going on; the transaction goes before its store.
  struct State {
    std::shared_ptr<caisson::Store> store;
    std::stop_source stop;
    std::shared_ptr<caisson::c::ProgressCell> progress =
        std::make_shared<caisson::c::ProgressCell>();
    std::unique_ptr<caisson::SaveTransaction> transaction;
    std::atomic<bool> busy{false};  // a put is going on
  };
  std::shared_ptr<State> state;
};

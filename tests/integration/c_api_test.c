// The C ABI as a C11 program sees it: a save by one process and by two ranks, a restore, what a
// store says of itself, and calls that are wrong in every way that can be told.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "caisson/c.h"

static int failures = 0;

#define EXPECT(condition)                                                     \
  do {                                                                        \
    if (!(condition)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      ++failures;                                                             \
    }                                                                         \
  } while (0)

// Takes the code of a call that should have succeeded.
static void ok(int32_t code, caisson_error* error, int line) {
  if (code == CAISSON_OK) return;
  fprintf(stderr, "line %d: %s: %s\n", line, caisson_code_name(code), caisson_error_message(error));
  caisson_error_free(error);
  ++failures;
}
// Takes the code of a call that should have failed with `wanted`.
static void bad(int32_t code, int32_t wanted, caisson_error* error, int line) {
  if (code != wanted || caisson_error_code(error) != wanted ||
      caisson_error_message(error)[0] == '\0') {
    fprintf(stderr, "line %d: %s, not %s: %s\n", line, caisson_code_name(code),
            caisson_code_name(wanted), caisson_error_message(error));
    ++failures;
  }
  caisson_error_free(error);
}
#define OK(call)                  \
  do {                            \
    error = NULL;                 \
    const int32_t code_ = (call); \
    ok(code_, error, __LINE__);   \
  } while (0)
#define BAD(wanted, call)                \
  do {                                   \
    error = NULL;                        \
    const int32_t code_ = (call);        \
    bad(code_, wanted, error, __LINE__); \
  } while (0)

enum { kRows = 256, kColumns = 512 };
static float weights[kRows][kColumns];

static caisson_shard rows(uint64_t begin, uint64_t end) {
  caisson_shard shard = CAISSON_INIT(caisson_shard);
  shard.dtype_code = 2;
  shard.dtype_bits = 32;
  shard.rank = 2;
  shard.name = "weights";
  shard.data = weights[begin];
  shard.shape[0] = kRows;
  shard.shape[1] = shard.extent[1] = kColumns;
  shard.offset[0] = begin;
  shard.extent[0] = end - begin;
  return shard;
}

static void save_and_restore(caisson_store* store) {
  caisson_error* error = NULL;
  caisson_shard shard = rows(0, kRows);
  caisson_blob blob = CAISSON_INIT(caisson_blob);
  blob.name = "tokenizer";
  blob.data = "abc";
  blob.bytes = 3;
  caisson_alias alias = CAISSON_INIT(caisson_alias);
  alias.name = "tied";
  alias.target = "weights";
  caisson_save_input input = CAISSON_INIT(caisson_save_input);
  input.shards = &shard;
  input.blobs = &blob;
  input.aliases = &alias;
  input.shards_count = input.blobs_count = input.aliases_count = 1;
  caisson_save_options options = CAISSON_INIT(caisson_save_options);
  options.metadata_json = "{\"loss\": 2.5}";

  caisson_future* future = NULL;
  OK(caisson_save_start(store, "run/1", &input, &options, &future, &error));
  int32_t code = CAISSON_TIMEOUT;
  while ((code = caisson_future_wait(future, 1000000, &error)) == CAISSON_TIMEOUT) continue;
  OK(code);
  OK(caisson_future_wait(future, -1, &error));
  EXPECT(caisson_future_poll(future) == 1);
  uint64_t done = 0;
  uint64_t total = 0;
  caisson_future_progress(future, &done, &total);
  EXPECT(done == total);
  caisson_report* report = NULL;
  caisson_save_report fields = CAISSON_INIT(caisson_save_report);
  OK(caisson_future_report(future, &report, &error));
  OK(caisson_report_get(report, &fields, &error));
  EXPECT(strcmp(fields.name, "run/1") == 0 && fields.warning[0] == '\0');
  EXPECT(fields.raw_bytes == sizeof weights + 3);
  caisson_report_free(report);
  caisson_future_free(future);

  static float half[kRows / 2][kColumns];
  caisson_target target = CAISSON_INIT(caisson_target);
  target.rank = 2;
  target.name = "tied";
  target.data = half;
  target.offset[0] = target.extent[0] = kRows / 2;
  target.extent[1] = kColumns;
  OK(caisson_restore_start(store, "run/latest", &target, 1, NULL, &future, &error));
  OK(caisson_future_wait(future, -1, &error));
  BAD(CAISSON_INVALID_ARGUMENT, caisson_future_report(future, &report, &error));
  caisson_future_free(future);
  EXPECT(memcmp(half, weights[kRows / 2], sizeof half) == 0);

  caisson_bytes* bytes = NULL;
  OK(caisson_read_blob(store, "run/1", "tokenizer", &bytes, &error));
  EXPECT(caisson_bytes_size(bytes) == 3 && memcmp(caisson_bytes_data(bytes), "abc", 4) == 0);
  caisson_bytes_free(bytes);
}

static void many_ranks(caisson_store* store) {
  caisson_error* error = NULL;
  caisson_bytes* ticket = NULL;
  caisson_bytes* tokens[2] = {NULL, NULL};
  const char* texts[2] = {NULL, NULL};
  OK(caisson_save_begin(store, "run/2", NULL, &ticket, &error));
  const char* ticket_text = caisson_bytes_data(ticket);
  for (uint32_t rank = 0; rank < 2; ++rank) {
    caisson_transaction* transaction = NULL;
    OK(caisson_save_join(store, ticket_text, rank, NULL, &transaction, &error));
    const caisson_shard shard = rows(rank * kRows / 2, (rank + 1) * kRows / 2);
    caisson_save_input input = CAISSON_INIT(caisson_save_input);
    input.shards = &shard;
    input.shards_count = 1;
    caisson_future* future = NULL;
    OK(caisson_transaction_put_start(transaction, &input, &future, &error));
    OK(caisson_future_wait(future, -1, &error));
    caisson_future_free(future);
    OK(caisson_transaction_seal(transaction, &tokens[rank], &error));
    texts[rank] = caisson_bytes_data(tokens[rank]);
    caisson_report* report = NULL;
    OK(caisson_transaction_report(transaction, &report, &error));
    caisson_report_free(report);
    caisson_transaction_free(transaction);
  }
  OK(caisson_save_commit(store, ticket_text, 2, texts, 2, NULL, NULL, &error));
  caisson_bytes_free(tokens[0]);
  caisson_bytes_free(tokens[1]);
  caisson_bytes_free(ticket);

  OK(caisson_save_begin(store, "run/3", NULL, &ticket, &error));
  BAD(CAISSON_INVALID_ARGUMENT,
      caisson_save_commit(store, caisson_bytes_data(ticket), 1, texts, 0, NULL, NULL, &error));
  BAD(CAISSON_FENCED, caisson_save_abort(store, caisson_bytes_data(ticket), &error));
  caisson_bytes_free(ticket);
  OK(caisson_save_begin(store, "run/3", NULL, &ticket, &error));
  OK(caisson_save_abort(store, caisson_bytes_data(ticket), &error));
  caisson_bytes_free(ticket);
}

static void catalog(caisson_store* store) {
  caisson_error* error = NULL;
  caisson_checkpoint_list* list = NULL;
  OK(caisson_checkpoints(store, NULL, &list, &error));
  uint64_t count = 0;
  const caisson_checkpoint* items = caisson_checkpoint_list_items(list, &count);
  EXPECT(count == 2 && strcmp(items[0].name, "run/1") == 0 && items[1].latest == 1);
  EXPECT(strstr(items[0].metadata_json, "loss") != NULL && items[1].ranks == 2);
  caisson_checkpoint_list_free(list);

  caisson_tensor_list* tensors = NULL;
  OK(caisson_tensors(store, "run/2", NULL, &tensors, &error));
  const caisson_tensor* found = caisson_tensor_list_items(tensors, &count);
  EXPECT(count == 1 && found->shards_count == 2 && found->shard_ranks[1] == 1);
  EXPECT(found->shards[1].offset[0] == kRows / 2 && found->shape[1] == kColumns);
  caisson_tensor_list_free(tensors);
  OK(caisson_claim(store, "run", NULL, &error));
  OK(caisson_remove(store, "run/2", &error));
  BAD(CAISSON_NOT_FOUND, caisson_checkpoints(store, "run/2", &list, &error));
  uint8_t code = 0;
  uint8_t bits = 0;
  OK(caisson_dtype_from_name("BF16", &code, &bits, &error));
  EXPECT(code == 4 && bits == 16);
}

static void deferred(caisson_store* store) {
  caisson_error* error = NULL;
  caisson_shard halves[2] = {rows(0, kRows / 2), rows(kRows / 2, kRows)};
  caisson_save_input input = CAISSON_INIT(caisson_save_input);
  input.flags = CAISSON_INPUT_DEFERRED;
  input.shards = halves;
  input.shards_count = 2;
  caisson_future* future = NULL;
  OK(caisson_save_start(store, "run/20", &input, NULL, &future, &error));
  const uint64_t places[] = {1, 0, 7};
  BAD(CAISSON_INVALID_ARGUMENT, caisson_future_mark_ready(future, places, 3, &error));
  BAD(CAISSON_INVALID_ARGUMENT, caisson_future_mark_ready(future, NULL, 1, &error));
  OK(caisson_future_mark_ready(future, places, 1, &error));
  EXPECT(caisson_future_wait(future, 1000000, &error) == CAISSON_TIMEOUT && error == NULL);
  OK(caisson_future_mark_ready(future, places, 2, &error));
  OK(caisson_future_wait(future, -1, &error));
  caisson_report* report = NULL;
  OK(caisson_future_report(future, &report, &error));
  caisson_report_free(report);
  caisson_future_free(future);
}

static void maintenance(caisson_store* store) {
  caisson_error* error = NULL;
  caisson_future* future = NULL;
  caisson_bytes* text = NULL;
  const char* names[] = {"run/1"};
  OK(caisson_verify_start(store, names, 1, "full", &future, &error));
  OK(caisson_future_wait(future, -1, &error));
  OK(caisson_future_text(future, &text, &error));
  EXPECT(strstr(caisson_bytes_data(text), "\"damaged\":0") != NULL);
  caisson_bytes_free(text);
  caisson_future_free(future);
  BAD(CAISSON_INVALID_ARGUMENT, caisson_verify_start(store, NULL, 1, NULL, &future, &error));
  BAD(CAISSON_INVALID_ARGUMENT, caisson_verify_start(store, names, 1, "deep", &future, &error));
  OK(caisson_gc_start(store, 1, &future, &error));
  OK(caisson_future_wait(future, -1, &error));
  OK(caisson_future_text(future, &text, &error));
  EXPECT(strstr(caisson_bytes_data(text), "caisson.gc/1") != NULL);
  caisson_bytes_free(text);
  caisson_future_free(future);
  OK(caisson_store_metrics(store, &text, &error));
  EXPECT(strstr(caisson_bytes_data(text), "caisson_save") != NULL);
  caisson_bytes_free(text);
}

// Every way to be wrong that does not need the caller's memory to be gone.
static void wrong_calls(caisson_store* store) {
  caisson_error* error = NULL;
  caisson_future* future = NULL;
  caisson_shard shard = rows(0, kRows);
  caisson_save_input input = CAISSON_INIT(caisson_save_input);
  input.shards = &shard;
  input.shards_count = 1;
  const int32_t invalid = CAISSON_INVALID_ARGUMENT;
#define SAVE() caisson_save_start(store, "run/9", &input, NULL, &future, &error)
  BAD(invalid, caisson_save_start(NULL, "run/9", &input, NULL, &future, &error));
  BAD(invalid, caisson_save_start(store, NULL, &input, NULL, &future, &error));
  BAD(invalid, caisson_save_start(store, "run/9", NULL, NULL, &future, &error));
  BAD(invalid, caisson_save_start(store, "run/9", &input, NULL, NULL, &error));
  EXPECT(caisson_save_start(NULL, NULL, NULL, NULL, NULL, NULL) == invalid);
  BAD(invalid, caisson_transaction_seal((caisson_transaction*)store, NULL, &error));
  caisson_bytes* bytes = NULL;
  BAD(invalid, caisson_transaction_seal((caisson_transaction*)store, &bytes, &error));
  for (uint32_t size = 0; size < sizeof shard; size += 13) {
    shard.struct_size = size;
    BAD(invalid, SAVE());
  }
  shard.struct_size = UINT32_MAX;
  BAD(invalid, SAVE());
  shard.struct_size = sizeof shard;
  input.shards_count = UINT64_MAX;
  BAD(invalid, SAVE());
  input.shards_count = 1;
  input.shards = NULL;
  BAD(invalid, SAVE());
  input.shards = &shard;
  shard.rank = 9;
  BAD(invalid, SAVE());
  shard.rank = 2;
  shard.dtype_code = 200;
  BAD(invalid, SAVE());
  shard.dtype_code = 2;
  shard.name = NULL;
  BAD(invalid, SAVE());
  shard.name = "weights";
  input.struct_size = 3;
  BAD(invalid, SAVE());

  // A struct of a newer header: what we do not know must be zero.
  struct {
    caisson_save_options known;
    uint64_t newer;
  } options = {.known = {.struct_size = sizeof options}, .newer = 0};
  input.struct_size = sizeof input;
  OK(caisson_save_start(store, "run/10", &input, &options.known, &future, &error));
  OK(caisson_future_wait(future, -1, &error));
  caisson_future_free(future);
  options.newer = 1;
  BAD(CAISSON_UNSUPPORTED,
      caisson_save_start(store, "run/11", &input, &options.known, &future, &error));
  options.newer = 0;
  options.known.flags = 1u << 31;
  BAD(CAISSON_UNSUPPORTED,
      caisson_save_start(store, "run/11", &input, &options.known, &future, &error));
  options.known.flags = 0;
  options.known.memory_check = 77;
  BAD(CAISSON_UNSUPPORTED,
      caisson_save_start(store, "run/11", &input, &options.known, &future, &error));
}

static void after_fork(caisson_store* store) {
  caisson_error* error = NULL;
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a hang would be the failure
    caisson_checkpoint_list* list = NULL;
    BAD(CAISSON_FORKED, caisson_checkpoints(store, NULL, &list, &error));
    caisson_store_close(store);
    _exit(failures);
  }
  int status = 0;
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

static void nothing_is_freed_quietly(void) {
  caisson_store_close(NULL);
  caisson_future_free(NULL);
  caisson_transaction_free(NULL);
  caisson_report_free(NULL);
  caisson_bytes_free(NULL);
  caisson_error_free(NULL);
  caisson_checkpoint_list_free(NULL);
  caisson_tensor_list_free(NULL);
  EXPECT(caisson_future_poll(NULL) == -1 && caisson_error_code(NULL) == CAISSON_OK);
  EXPECT(strcmp(caisson_code_name(999), "unknown") == 0);
  EXPECT(strcmp(caisson_code_name(CAISSON_FENCED), "fenced") == 0);
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;  // a directory for the store
  for (int i = 0; i < kRows * kColumns; ++i) weights[i / kColumns][i % kColumns] = (float)i;
  EXPECT(caisson_abi_version() == CAISSON_ABI_VERSION && caisson_version()[0] != '\0');
  caisson_error* error = NULL;
  caisson_store* store = NULL;
  caisson_store_options options = CAISSON_INIT(caisson_store_options);
  options.flags = CAISSON_STORE_NO_CREATE;
  BAD(CAISSON_NOT_FOUND, caisson_store_open(argv[1], &options, &store, &error));
  BAD(CAISSON_UNSUPPORTED, caisson_store_open("gopher://x", NULL, &store, &error));
  options.flags = CAISSON_STORE_TRACE;
  OK(caisson_store_open(argv[1], &options, &store, &error));
  if (store == NULL) return 1;
  save_and_restore(store);
  many_ranks(store);
  catalog(store);
  deferred(store);
  maintenance(store);
  wrong_calls(store);
  after_fork(store);
  nothing_is_freed_quietly();
  caisson_bytes* trace = NULL;
  OK(caisson_store_trace(store, &trace, &error));
  EXPECT(strstr(caisson_bytes_data(trace), "traceEvents") != NULL);
  caisson_bytes_free(trace);
  caisson_store_close(store);
  return failures == 0 ? 0 : 1;
}

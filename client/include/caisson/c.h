// Caisson's C ABI: what store.h offers, for every language that can call C. The Python package is
// built on it; docs/python.md is the same in Python.
//
// Rules, all of them without exception:
//   - A call answers a code: CAISSON_OK, or why not. With a code other than CAISSON_OK (and
//     CAISSON_TIMEOUT) it also makes an error object, if `error` is not null: free it.
//   - Handles are opaque; each has its own _free (a store: _close). Freeing null does nothing. A
//     handle keeps alive what it needs, so the order of freeing is free.
//   - Every struct starts with struct_size, sizeof of the caller's: CAISSON_INIT(type) is a zeroed
//     one with it. Zero is the default of every field. A caller compiled against a newer header is
//     refused with CAISSON_UNSUPPORTED only if it uses what this library does not have. The
//     elements of an array all have the same struct_size.
//   - Texts are UTF-8 and end with NUL. What a call is given is copied before it returns, but for
//     the memory of tensors and blobs: see caisson_save_start and caisson_transaction_put_start.
//   - After fork() the child opens a store of its own; the handles of the parent answer
//     CAISSON_FORKED there, at once, and are freed without effect.
//   - Nothing is thrown, nothing is printed, no signal handler is installed.
// Store and future are thread-safe; a transaction is used by one thread at a time.
#pragma once

#include <stddef.h>
#include <stdint.h>

// Names and types as C has them: NOLINTBEGIN(readability-identifier-naming,modernize-use-using)
#if defined(__cplusplus)
extern "C" {
#endif

#define CAISSON_API __attribute__((visibility("default")))
#define CAISSON_ABI_VERSION 1u
#define CAISSON_RANK_MAX 8
#if defined(__cplusplus)
#define CAISSON_INIT(type) (type{sizeof(type)})
#else
#define CAISSON_INIT(type) ((type){.struct_size = sizeof(type)})
#endif

// CAISSON_ABI_VERSION of the library that was loaded; it grows only by additions.
CAISSON_API uint32_t caisson_abi_version(void);
CAISSON_API const char* caisson_version(void);  // "0.1.0"

// ---- errors

enum {
  CAISSON_OK = 0,
  CAISSON_INVALID_ARGUMENT = 1,  // the caller asked for what cannot be; do not retry as it is
  CAISSON_NOT_FOUND = 2,
  CAISSON_ALREADY_EXISTS = 3,
  CAISSON_CORRUPTION = 4,  // bytes from storage are not what was written
  CAISSON_IO_ERROR = 5,
  CAISSON_NO_SPACE = 6,  // disk, quota or descriptors; nothing was acknowledged
  CAISSON_OUT_OF_MEMORY = 7,
  CAISSON_FENCED = 8,  // a newer claim or prune came first
  CAISSON_CANCELLED = 9,
  CAISSON_UNSUPPORTED = 10,  // a newer format, or what this build lacks
  CAISSON_FORKED = 11,       // the handle belongs to the process that forked this one
  CAISSON_TIMEOUT = 12,      // caisson_future_wait: not yet; no error object
  CAISSON_INTERNAL = 13,     // a bug of Caisson's
};

typedef struct caisson_error caisson_error;
CAISSON_API int32_t caisson_error_code(const caisson_error* error);
// What, where and what to do next. Valid as long as the error; never null.
CAISSON_API const char* caisson_error_message(const caisson_error* error);
// The stored object concerned, its path within the store; "" where none is, or it is not known.
CAISSON_API const char* caisson_error_object(const caisson_error* error);
// Where in that object; -1 where it is not known.
CAISSON_API int64_t caisson_error_offset(const caisson_error* error);
CAISSON_API void caisson_error_free(caisson_error* error);
// "not found", "corruption", ...; "unknown" for what is no code.
CAISSON_API const char* caisson_code_name(int32_t code);

// Bytes, or a text (then with a NUL behind it that does not count), that a call gave out.
typedef struct caisson_bytes caisson_bytes;
CAISSON_API const void* caisson_bytes_data(const caisson_bytes* bytes);
CAISSON_API uint64_t caisson_bytes_size(const caisson_bytes* bytes);
CAISSON_API void caisson_bytes_free(caisson_bytes* bytes);

// ---- store

typedef struct caisson_store caisson_store;

enum {
  CAISSON_STORE_NO_CREATE = 1,  // CAISSON_NOT_FOUND where there is none
  CAISSON_STORE_TRACE = 2,      // record what saves and restores do: caisson_store_trace
  // Create it also in a directory that holds other files, as long as none lies where a store keeps
  // its own: for a directory that belongs to a framework.
  CAISSON_STORE_BESIDE_FILES = 4,
};

typedef struct caisson_store_options {
  uint32_t struct_size;
  uint32_t flags;             // CAISSON_STORE_...
  uint64_t memory_bytes_max;  // of staging memory of all saves and restores; 0: 192 MiB
  const char* io_engine;      // null: "auto"; "io_uring", "threads", "buffered"
} caisson_store_options;

// `url`: a directory, or file:// and a directory. `options` may be null.
CAISSON_API int32_t caisson_store_open(const char* url, const caisson_store_options* options,
                                       caisson_store** store, caisson_error** error);
// Waits for saves that are going on.
CAISSON_API void caisson_store_close(caisson_store* store);
// What was recorded so far, in the Trace Event Format (Perfetto opens it).
CAISSON_API int32_t caisson_store_trace(caisson_store* store, caisson_bytes** json,
                                        caisson_error** error);

// ---- what is saved

typedef struct caisson_shard {  // one box of one tensor, and where its bytes are
  uint32_t struct_size;
  uint8_t dtype_code;  // DLPack's: 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool, 7 to 14
                       // 8-bit floats, 15 and 16 6-bit, 17 4-bit
  uint8_t dtype_bits;  // of one element: 4, 6, 8, 16, 32, 64, 128
  uint8_t rank;        // dimensions, at most CAISSON_RANK_MAX
  uint8_t strided;     // not 0: strides_bytes counts; 0: the memory is contiguous, row-major
  const char* name;
  const void* data;
  uint32_t replica_index;  // this is replica replica_index of replica_count of the same box:
  uint32_t replica_count;  // each writes its share. 0 counts as 1
  uint64_t shape[CAISSON_RANK_MAX];   // of the whole tensor, in elements
  uint64_t offset[CAISSON_RANK_MAX];  // of the box
  uint64_t extent[CAISSON_RANK_MAX];
  int64_t strides_bytes[CAISSON_RANK_MAX];
} caisson_shard;

typedef struct caisson_blob {  // bytes with a name
  uint32_t struct_size;
  uint32_t reserved;
  const char* name;
  const void* data;
  uint64_t bytes;
} caisson_blob;

typedef struct caisson_alias {  // another name for a tensor of the same save: tied weights
  uint32_t struct_size;
  uint32_t reserved;
  const char* name;
  const char* target;
} caisson_alias;

enum {
  // The shards' memory is not filled yet: each is read once caisson_future_mark_ready names it. A
  // future that is freed before all are is cancelled.
  CAISSON_INPUT_DEFERRED = 1,
};

typedef struct caisson_save_input {
  uint32_t struct_size;
  uint32_t flags;  // CAISSON_INPUT_...
  const caisson_shard* shards;
  uint64_t shards_count;
  const caisson_blob* blobs;
  uint64_t blobs_count;
  const caisson_alias* aliases;
  uint64_t aliases_count;
} caisson_save_input;

enum {
  CAISSON_SAVE_NO_DEDUP = 1,       // do not compare with the run's latest checkpoint
  CAISSON_SAVE_STAGE = 2,          // copy every tensor before caisson_save_start returns
  CAISSON_SAVE_OVERWRITE = 4,      // replace a live checkpoint of the same name
  CAISSON_SAVE_DETERMINISTIC = 8,  // "auto" goes by the bytes alone: equal input, equal packs
};
enum {  // how lent memory that changes during a save is noticed; see options.h
  CAISSON_MEMORY_CHECK_SAMPLED = 0,
  CAISSON_MEMORY_CHECK_OFF = 1,
  CAISSON_MEMORY_CHECK_FULL = 2,
};

typedef struct caisson_save_options {
  uint32_t struct_size;
  uint32_t flags;             // CAISSON_SAVE_...
  const char* codec;          // null: "auto"
  const char* base;           // null: the run's latest; else "run/step" to compare with
  const char* metadata_json;  // null: "{}"; a JSON object kept with the checkpoint
  uint32_t workers;           // 0: 1
  uint32_t memory_check;      // CAISSON_MEMORY_CHECK_...
  const char* delta;          // null: none; tensors that match this glob are stored as differences
                              // from the checkpoint compared with, where that is clearly smaller
  double codec_cpu_max;       // cores that "auto" spends on coding at most; 0: no bound
} caisson_save_options;

// ---- futures: what takes time runs in a thread of the library

typedef struct caisson_future caisson_future;
// CAISSON_TIMEOUT when it has not finished within timeout_ns (negative: wait without end), else its
// outcome: the same at every call.
CAISSON_API int32_t caisson_future_wait(caisson_future* future, int64_t timeout_ns,
                                        caisson_error** error);
// 1 when it has finished, 0 when not, -1 in a forked child or for null.
CAISSON_API int32_t caisson_future_poll(caisson_future* future);
// Asks it to stop: its outcome is then CAISSON_CANCELLED, unless it was too late.
CAISSON_API void caisson_future_cancel(caisson_future* future);
// Raw bytes through the last stage so far, and in all; 0 of 0 before it knows.
CAISSON_API void caisson_future_progress(caisson_future* future, uint64_t* bytes_done,
                                         uint64_t* bytes_total);
// Of a save or put with CAISSON_INPUT_DEFERRED: the memory of these shards, by their places in the
// input, is filled, and must not change any more. A place may be named again. Shards that are ready
// are written together, so name many at a time where that is possible.
CAISSON_API int32_t caisson_future_mark_ready(caisson_future* future, const uint64_t* places,
                                              uint64_t places_count, caisson_error** error);
// Waits: the memory of the caller is in use until then.
CAISSON_API void caisson_future_free(caisson_future* future);

// What a save did.
typedef struct caisson_report caisson_report;
typedef struct caisson_save_report {
  uint32_t struct_size;
  uint32_t reserved;
  const char* name;     // "run/step"; texts are valid as long as the caisson_report
  const char* warning;  // not "": it succeeded, but somebody should look at this
  uint64_t tensors;
  uint64_t tiles;
  uint64_t raw_bytes;  // handed over
  uint64_t deduplicated_bytes;
  uint64_t stored_bytes;  // payload newly written
  double stall_seconds;   // how long the start of the save took
  double seconds;         // until it was durable
} caisson_save_report;
CAISSON_API int32_t caisson_report_get(const caisson_report* report, caisson_save_report* fields,
                                       caisson_error** error);
typedef struct caisson_codec_use {
  uint32_t struct_size;
  uint32_t reserved;
  const char* codec;   // "raw", "planes", ...
  const char* reason;  // why with that one: docs/operations.md, "Codecs"
  uint64_t chunks;
  uint64_t raw_bytes;
  uint64_t stored_bytes;
} caisson_codec_use;
// How what was newly stored is encoded: an array of *count, valid as long as the report.
CAISSON_API const caisson_codec_use* caisson_report_codecs(const caisson_report* report,
                                                           uint64_t* count);
CAISSON_API void caisson_report_free(caisson_report* report);
// Of a save that finished well.
CAISSON_API int32_t caisson_future_report(caisson_future* future, caisson_report** report,
                                          caisson_error** error);

// ---- saving: one process

// The memory of shards and blobs is lent until the future has finished and must not change, unless
// CAISSON_SAVE_STAGE is set (which does not go together with CAISSON_INPUT_DEFERRED). `options` may
// be null.
CAISSON_API int32_t caisson_save_start(caisson_store* store, const char* name,
                                       const caisson_save_input* input,
                                       const caisson_save_options* options, caisson_future** future,
                                       caisson_error** error);

// ---- saving: many ranks. Begin once, hand the ticket to every rank, gather the tokens, commit.

typedef struct caisson_transaction caisson_transaction;

CAISSON_API int32_t caisson_save_begin(caisson_store* store, const char* name,
                                       const caisson_save_options* options, caisson_bytes** ticket,
                                       caisson_error** error);
CAISSON_API int32_t caisson_save_join(caisson_store* store, const char* ticket, uint32_t rank,
                                      const caisson_save_options* options,
                                      caisson_transaction** transaction, caisson_error** error);
// Writes the shards; may be called several times, one after the other. The memory is lent until the
// future has finished.
CAISSON_API int32_t caisson_transaction_put_start(caisson_transaction* transaction,
                                                  const caisson_save_input* input,
                                                  caisson_future** future, caisson_error** error);
// Makes the rank's part durable. `token` goes to whoever commits.
CAISSON_API int32_t caisson_transaction_seal(caisson_transaction* transaction,
                                             caisson_bytes** token, caisson_error** error);
CAISSON_API int32_t caisson_transaction_report(caisson_transaction* transaction,
                                               caisson_report** report, caisson_error** error);
// Without seal: the part is abandoned.
CAISSON_API void caisson_transaction_free(caisson_transaction* transaction);
// CAISSON_OK means durable and committed. `report` may be null.
CAISSON_API int32_t caisson_save_commit(caisson_store* store, const char* ticket, uint32_t ranks,
                                        const char* const* tokens, uint64_t tokens_count,
                                        const caisson_save_options* options,
                                        caisson_report** report, caisson_error** error);
CAISSON_API int32_t caisson_save_abort(caisson_store* store, const char* ticket,
                                       caisson_error** error);
// Takes the run over from whoever saved to it. `base` may be null: the run's latest.
CAISSON_API int32_t caisson_claim(caisson_store* store, const char* run, const char* base,
                                  caisson_error** error);

// ---- reading. A name is "run/step", "run/latest" or "run/step@commit".

typedef struct caisson_target {  // where a restore puts one box of one tensor
  uint32_t struct_size;
  uint8_t rank;
  uint8_t strided;
  uint8_t reserved[2];
  const char* name;
  void* data;
  uint64_t offset[CAISSON_RANK_MAX];
  uint64_t extent[CAISSON_RANK_MAX];
  int64_t strides_bytes[CAISSON_RANK_MAX];
} caisson_target;

typedef struct caisson_restore_options {
  uint32_t struct_size;
  uint32_t workers;  // 0: 1
} caisson_restore_options;

// Fills every target, verified. The element width is the stored tensor's: caisson_tensors tells it.
// The future fails before anything is read when a tensor is missing or a box does not fit, and
// lists all such targets.
CAISSON_API int32_t caisson_restore_start(caisson_store* store, const char* name,
                                          const caisson_target* targets, uint64_t targets_count,
                                          const caisson_restore_options* options,
                                          caisson_future** future, caisson_error** error);
CAISSON_API int32_t caisson_read_blob(caisson_store* store, const char* name, const char* blob,
                                      caisson_bytes** bytes, caisson_error** error);

typedef struct caisson_checkpoint {
  uint32_t struct_size;
  uint8_t latest;  // what "run/latest" means now
  uint8_t rolled_back;
  uint8_t reserved[2];
  const char* name;
  const char* run;
  const char* metadata_json;
  const char* problem;  // not "": its root could not be read, and the fields from created_unix_ns
                        // on are unknown; names the next command
  uint64_t step;
  uint64_t epoch;
  uint64_t commit_seq;  // N of "run/step@N"
  int64_t created_unix_ns;
  uint64_t tensors;
  uint64_t ranks;
  uint64_t raw_bytes;
  uint64_t stored_bytes;  // newly written by its save
} caisson_checkpoint;
typedef struct caisson_checkpoint_list caisson_checkpoint_list;
// `name` null: all of them, in the order of their commits; else that one.
CAISSON_API int32_t caisson_checkpoints(caisson_store* store, const char* name,
                                        caisson_checkpoint_list** list, caisson_error** error);
// An array of *count, valid as long as the list; read it in steps of its elements' struct_size.
CAISSON_API const caisson_checkpoint* caisson_checkpoint_list_items(
    const caisson_checkpoint_list* list, uint64_t* count);
CAISSON_API void caisson_checkpoint_list_free(caisson_checkpoint_list* list);

typedef struct caisson_box {
  uint64_t offset[CAISSON_RANK_MAX];
  uint64_t extent[CAISSON_RANK_MAX];
} caisson_box;
typedef struct caisson_tensor {
  uint32_t struct_size;
  uint8_t dtype_code;
  uint8_t dtype_bits;
  uint8_t rank;
  uint8_t blob;  // not 0: bytes with a name
  const char* name;
  const char* alias_of;  // not "": another name for that tensor
  uint64_t raw_bytes;
  uint64_t shape[CAISSON_RANK_MAX];
  uint64_t tile[CAISSON_RANK_MAX];
  uint64_t shards_count;
  const caisson_box* shards;    // the boxes that were saved
  const uint32_t* shard_ranks;  // and by which rank
} caisson_tensor;
typedef struct caisson_tensor_list caisson_tensor_list;
// Those that match `glob` ('*', '?', '[a-z]'; null: all), sorted by name.
CAISSON_API int32_t caisson_tensors(caisson_store* store, const char* name, const char* glob,
                                    caisson_tensor_list** list, caisson_error** error);
CAISSON_API const caisson_tensor* caisson_tensor_list_items(const caisson_tensor_list* list,
                                                            uint64_t* count);
CAISSON_API void caisson_tensor_list_free(caisson_tensor_list* list);

// Gives a checkpoint up; gc frees its space later.
CAISSON_API int32_t caisson_remove(caisson_store* store, const char* name, caisson_error** error);

// ---- maintenance. Their futures have a text: the document that `caisson VERB --json` prints.

// The named checkpoints, or everything when names_count is 0. `depth`: "structure", "checksums"
// (null) or "full". Damage is in the document, not in the outcome.
CAISSON_API int32_t caisson_verify_start(caisson_store* store, const char* const* names,
                                         uint64_t names_count, const char* depth,
                                         caisson_future** future, caisson_error** error);
// Frees what no checkpoint needs, and what dead saves left. dry_run not 0: only says what.
CAISSON_API int32_t caisson_gc_start(caisson_store* store, int32_t dry_run, caisson_future** future,
                                     caisson_error** error);
// Of a future that has one and finished well.
CAISSON_API int32_t caisson_future_text(caisson_future* future, caisson_bytes** text,
                                        caisson_error** error);
// What saves and restores of this handle have done so far, in Prometheus' text format.
CAISSON_API int32_t caisson_store_metrics(caisson_store* store, caisson_bytes** text,
                                          caisson_error** error);

// ---- element types by their safetensors names: "F32", "BF16", "F8_E4M3", ...
CAISSON_API int32_t caisson_dtype_from_name(const char* name, uint8_t* code, uint8_t* bits,
                                            caisson_error** error);

#if defined(__cplusplus)
}
#endif
// NOLINTEND(readability-identifier-naming,modernize-use-using)

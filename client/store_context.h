// What everything that belongs to one opened Store shares: its objects, log and memory budget, the
// epochs under which it saves, its open manifests. Thread-safe.
#pragma once

#include <sys/types.h>

#include <list>
#include <map>
#include <memory>
#include <string>

#include "caisson/options.h"
#include "engine/log.h"
#include "engine/manifest.h"
#include "engine/metrics.h"
#include "engine/store_dedup.h"
#include "io/base/buffer.h"
#include "io/base/clock.h"

namespace caisson {

class StoreContext {
 public:
  // Reads or creates the store file and opens the log.
  static Result<std::unique_ptr<StoreContext>> open(std::unique_ptr<ObjectStore> objects,
                                                    UuidSource& uuids, Clock& clock,
                                                    const StoreOptions& options, ChunkHints* hints);

  // kInvalidArgument in a process that inherited this store over fork(): rings and threads do not
  // cross it.
  Status check_process() const;
  bool is_forked() const;
  // kUnsupported for a store that this version may only read.
  Status check_writable() const;

  ObjectStore& objects() { return *objects_; }
  Log& log() { return *log_; }
  MemoryBudget& budget() { return budget_; }
  UuidSource& uuids() { return uuids_; }
  Clock& clock() { return clock_; }
  const Uuid& uuid() const { return uuid_; }
  const std::shared_ptr<Trace>& trace() const { return trace_; }        // may be null
  const std::shared_ptr<Metrics>& metrics() const { return metrics_; }  // may be null
  // Counts how an operation ended, and the most memory that any has taken. Nothing without metrics.
  void count_end(Operation operation, const Status& status) const;
  ChunkHints* hints() { return hints_; }  // null: saves dedup by position alone

  // Memory of at least `bytes` for a staged save: what an earlier one left, if that is enough. To
  // find the pages of new memory takes several times as long as to copy the state there.
  Result<AlignedBuffer> take_staging(uint64_t bytes) CAISSON_EXCLUDES(staging_mutex_);
  // Keeps it for the next staged save: one, the largest.
  void keep_staging(AlignedBuffer arena) CAISSON_EXCLUDES(staging_mutex_);

  // The epoch under which this Store saves to `run`: claimed at the first call, the same ever
  // after, so that a claim by somebody else fences this Store until it claims again.
  Result<uint64_t> epoch_of(const std::string& run) CAISSON_EXCLUDES(mutex_);
  Status claim(const std::string& run, const std::string& base) CAISSON_EXCLUDES(mutex_);

  // "run/step" or "run/latest", as the log says now. kNotFound says what there is.
  Result<Checkpoint> find(const std::string& name);
  // Opened once and kept while it is one of the last few used.
  Result<std::shared_ptr<Manifest>> manifest(const format::SealedRef& root)
      CAISSON_EXCLUDES(mutex_);

 private:
  StoreContext(std::unique_ptr<ObjectStore> objects, UuidSource& uuids, Clock& clock,
               const StoreOptions& options, ChunkHints* hints);
  Status open_store_file(const StoreOptions& options);
  Status check_unused(std::string_view prefix);
  Status check_create_once() CAISSON_REQUIRES(mutex_);
  Result<uint64_t> append_claim(const std::string& run, const std::string& base)
      CAISSON_REQUIRES(mutex_);

  struct OpenManifest {
    format::SealedRef root;
    std::shared_ptr<Manifest> manifest;
  };

  const std::unique_ptr<ObjectStore> objects_;
  UuidSource& uuids_;
  Clock& clock_;
  ChunkHints* const hints_;
  const std::shared_ptr<Trace> trace_;
  const std::shared_ptr<Metrics> metrics_;
  const pid_t pid_;
  MemoryBudget budget_;
  Uuid uuid_;
  ByteVector store_file_;  // as it was read
  bool writable_ = true;
  std::unique_ptr<Log> log_;
  Mutex staging_mutex_;
  AlignedBuffer staging_ CAISSON_GUARDED_BY(staging_mutex_);
  Mutex mutex_;
  bool creates_once_ CAISSON_GUARDED_BY(mutex_) = false;  // the target was seen to
  std::map<std::string, uint64_t, std::less<>> epochs_ CAISSON_GUARDED_BY(mutex_);
  std::list<OpenManifest> manifests_ CAISSON_GUARDED_BY(mutex_);  // most recently used first
};

// "run/step@commit": means this checkpoint or none.
std::string pinned_name(const Checkpoint& checkpoint);
// The checkpoint that `name` means in `state`; kNotFound says what there is instead, kFenced that
// the one meant by "run/step@commit" is gone.
Result<Checkpoint> find_checkpoint(const LogState& state, const std::string& name);

}  // namespace caisson

// The store's log: appending is create-once at last + 1, and that single primitive orders every
// writer of the store. docs/commit.md has the protocol as numbered steps. Thread-safe.
#pragma once

#include <functional>
#include <memory>

#include "engine/log_state.h"
#include "io/base/sync.h"
#include "io/object_store.h"

namespace caisson {

class Log {
 public:
  // Reads the newest usable snapshot and every record after it. `objects` and `uuids` outlive it.
  static Result<std::unique_ptr<Log>> open(ObjectStore& objects, UuidSource& uuids,
                                           format::WriterInfo self);

  // Reads records that others appended since. Returns a snapshot of the state afterwards.
  Result<std::shared_ptr<const LogState>> refresh() CAISSON_EXCLUDES(mutex_);
  // The state as last read, without I/O.
  std::shared_ptr<const LogState> state() const CAISSON_EXCLUDES(mutex_);

  // Appends what `make` gives for the newest state: make is called again after every record that
  // another writer got in first, and may refuse (its Status is returned and nothing is appended).
  // On an unknown outcome the record at that place is read back and its nonce compared. Returns the
  // sequence number; ok means durable.
  using MakeBody = std::function<Result<format::LogBody>(const LogState&)>;
  Result<uint64_t> append(const MakeBody& make) CAISSON_EXCLUDES(mutex_);

  // Writes a snapshot when more than `every` records have come since the last; called after appends
  // by whoever has time. Failure costs only reading time, so it is returned for logging alone.
  Status snapshot_if_due(uint64_t every = 256) CAISSON_EXCLUDES(mutex_);

 private:
  Log(ObjectStore& objects, UuidSource& uuids, format::WriterInfo self);
  Status catch_up_locked() CAISSON_REQUIRES(mutex_);

  ObjectStore& objects_;
  UuidSource& uuids_;
  const format::WriterInfo self_;
  mutable Mutex mutex_;
  std::shared_ptr<const LogState> state_ CAISSON_GUARDED_BY(mutex_);
  uint64_t snapshot_seq_ CAISSON_GUARDED_BY(mutex_) = 0;
};

// This process, as records and `doctor` show it.
format::WriterInfo this_process();
// True only when `writer` certainly ran on this host and boot and its process is gone.
bool is_provably_dead(const format::WriterInfo& writer);

}  // namespace caisson

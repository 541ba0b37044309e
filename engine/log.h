// The store's log: appending is create-once at last + 1, and that single primitive orders every
// writer of the store. docs/commit.md has the protocol as numbered steps, log.cc the same numbers.
// Thread-safe; one call at a time does I/O, the others wait for it.
#pragma once

#include <functional>
#include <memory>

#include "engine/log_state.h"
#include "io/base/clock.h"
#include "io/base/sync.h"
#include "io/object_store.h"

namespace caisson {

class Log {
 public:
  // Reads the newest usable snapshot and every record after it. `objects`, `uuids` and `clock`
  // outlive it. Any record that cannot be read or is newer than this build is an error that names
  // it: nothing may be decided on a part of the log.
  static Result<std::unique_ptr<Log>> open(ObjectStore& objects, UuidSource& uuids,
                                           format::WriterInfo self, Clock& clock = system_clock());

  // Reads records that others appended since. Returns a snapshot of the state afterwards.
  // What is read may not be durable yet: whoever deletes because of it calls
  // ObjectStore::sync_names("log/") first. (An append of one's own makes all before it durable.)
  Result<std::shared_ptr<const LogState>> refresh() CAISSON_EXCLUDES(mutex_);
  // The state as last read, without I/O of its own.
  std::shared_ptr<const LogState> state() const CAISSON_EXCLUDES(mutex_);

  // Appends what `make` gives for the newest state: make is called again after every record that
  // another writer got in first, and may refuse (its Status is returned and nothing is appended).
  // It may read objects, but not call this Log. On an unknown outcome the record at that place is
  // read back and its nonce compared. Returns the sequence number; ok means durable. An error that
  // is not make's own, nor check's, leaves the outcome unknown: the record may appear later.
  using MakeBody = std::function<Result<format::LogBody>(const LogState&)>;
  Result<uint64_t> append(const MakeBody& make) CAISSON_EXCLUDES(mutex_);

  // Writes a snapshot when more than `every` records have come since the last; called after appends
  // by whoever has time. Failure costs only reading time, so it is returned for logging alone.
  Status snapshot_if_due(uint64_t every = 256) CAISSON_EXCLUDES(mutex_);

 private:
  Log(ObjectStore& objects, UuidSource& uuids, format::WriterInfo self, Clock& clock);
  Status load_snapshot_locked() CAISSON_REQUIRES(mutex_);
  enum class Look : uint8_t { kNext, kAll };  // how far beyond the first empty place
  Result<std::string> proof_of_gap_locked(Look look) CAISSON_REQUIRES(mutex_);
  Status check_last_record_locked() CAISSON_REQUIRES(mutex_);
  Status check_no_gap_locked(Look look) CAISSON_REQUIRES(mutex_);
  Status make_names_durable_locked() CAISSON_REQUIRES(mutex_);
  Status catch_up_locked() CAISSON_REQUIRES(mutex_);
  Result<format::LogRecord> read_record(uint64_t seq);
  Result<bool> put_record_locked(const format::LogRecord& record) CAISSON_REQUIRES(mutex_);
  std::shared_ptr<const LogState> publish_locked() const CAISSON_REQUIRES(mutex_);

  ObjectStore& objects_;
  UuidSource& uuids_;
  const format::WriterInfo self_;
  Clock& clock_;
  mutable Mutex mutex_;
  LogState state_ CAISSON_GUARDED_BY(mutex_);
  // What callers hold; copied from state_ when somebody asks and it has moved on.
  mutable std::shared_ptr<const LogState> published_ CAISSON_GUARDED_BY(mutex_);
  uint64_t snapshot_seq_ CAISSON_GUARDED_BY(mutex_) = 0;
  // The last record that forbids this build to write; 0: none.
  uint64_t newer_seq_ CAISSON_GUARDED_BY(mutex_) = 0;
  uint64_t durable_seq_ CAISSON_GUARDED_BY(mutex_) = 0;  // names up to here survive a crash
};

// This process, as records and `doctor` show it.
format::WriterInfo this_process();
// True only when `writer` certainly ran on this host, boot and pid namespace and its process is
// gone. False is no proof of life.
bool is_provably_dead(const format::WriterInfo& writer);

}  // namespace caisson

// A file system in memory that records every operation, for crash tests; that fails or stops where
// a test says so; and that counts what is open. It behaves as POSIX promises and no better: nothing
// is durable until it is synced, names are durable only once their directory is (crash_states.h
// makes that of the record). Queues finish requests in a seeded random order, and touch the bytes
// only when they finish, so a buffer that is reused early shows. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "io/base/sync.h"
#include "io/file_system.h"
#include "tests/support/sim_disk.h"

namespace caisson::sim {

enum class OpKind : uint8_t {
  kEffects,        // may become durable whole, in part, or not at all until synced
  kSyncFile,       // `node`: contents and size
  kSyncDirectory,  // `node`: names in it
  kSyncFailed,     // `node`, a file: what was unsynced may be on the disk or not, for ever: the
                   // kernel forgot that it was dirty, so a later sync does not write it
  kMark,           // the test says: this had been acknowledged by now
};

// One entry of the record.
struct Op {
  OpKind kind = OpKind::kEffects;
  NodeId node = kNoNode;
  bool directory = false;  // kEffects that make a node: what it is
  NodeId made = kNoNode;
  std::vector<Effect> effects;
  std::string path;  // for messages and for mutants
  uint64_t mark = 0;
};
using History = std::vector<Op>;

enum class CallKind : uint8_t {
  kOpen,
  kCreate,
  kRead,
  kWrite,
  kAllocate,
  kTruncate,
  kSync,
  kLink,
  kRename,
  kRemoveFile,
  kRemoveDirectory,
  kCreateDirectory,
  kSyncDirectory,
  kStat,
  kList,
  kMakeQueue,
};
std::string_view call_name(CallKind kind);

// One call that reached the file system: what a fault hook decides by.
struct Call {
  uint64_t index = 0;  // 0, 1, ... over the life of this file system
  CallKind kind = CallKind::kOpen;
  std::string_view path;
};
// What a fault hook makes of a call. ok: let it be. Otherwise the call returns `status`; with
// `applied` it has happened all the same (a lost reply), without it a write has got half-way and
// everything else has not happened.
struct Outcome {
  Status status;
  bool applied = false;
};
using FaultHook = std::function<Outcome(const Call&)>;

struct SimOptions {
  uint64_t seed = 1;
  uint32_t alignment = 4096;  // what direct files and queues insist on
  // Mutants of the platform: link() replaces as rename() does.
  bool link_replaces = false;
};

class SimFileSystem final : public FileSystem {
 public:
  explicit SimFileSystem(const SimOptions& options = {}, Image image = Image());
  ~SimFileSystem() override;

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode,
                                     Access access) override;
  Status link(const std::string& from, const std::string& to) override;
  Status rename(const std::string& from, const std::string& to) override;
  Status remove_file(const std::string& path) override;
  Status remove_directory(const std::string& path) override;
  Status create_directory(const std::string& path) override;
  Status sync_directory(const std::string& path) override;
  Result<DirEntry> stat(const std::string& path) override;
  Result<std::vector<DirEntry>> list_after(const std::string& path, std::string_view name) override;
  Result<std::unique_ptr<IoQueue>> make_queue(const IoQueueOptions& options) override;
  std::string io_engine() override { return "simulated"; }

  // What was there at the start, and what happened since.
  Image base() const;
  History history() const;
  // What a reader sees now.
  Image image() const;
  // Adds a mark to the history: everything recorded so far came before it.
  void mark(uint64_t value);
  void set_fault_hook(FaultHook hook);
  // Runs in the caller's thread before each call that it is about to make (the index is not set):
  // what another process does at that moment. Its own calls come here, too.
  void set_interloper(std::function<void(const Call&)> interloper);
  uint64_t calls() const;
  int open_files() const;

 private:
  friend class SimFile;
  friend class SimQueue;

  void arrive(CallKind kind, std::string_view path) CAISSON_EXCLUDES(mutex_);
  // Asks the hook; kOk outcome: go on.
  Outcome enter(CallKind kind, std::string_view path) CAISSON_REQUIRES(mutex_);
  void commit(Op op) CAISSON_REQUIRES(mutex_);
  Result<NodeId> directory_of(std::string_view path) const CAISSON_REQUIRES(mutex_);
  Status make_node(const std::string& path, bool directory) CAISSON_REQUIRES(mutex_);
  Status remove(const std::string& path, bool directory) CAISSON_REQUIRES(mutex_);
  void write_now(NodeId node, const std::string& path, uint64_t offset, Bytes from)
      CAISSON_REQUIRES(mutex_);
  Status write(NodeId node, const std::string& path, uint64_t offset, Bytes from);
  Status read(NodeId node, const std::string& path, uint64_t offset, MutableBytes into);

  const SimOptions options_;
  const Image base_;
  mutable Mutex mutex_;
  Image live_ CAISSON_GUARDED_BY(mutex_);
  History history_ CAISSON_GUARDED_BY(mutex_);
  FaultHook hook_ CAISSON_GUARDED_BY(mutex_);
  std::function<void(const Call&)> interloper_ CAISSON_GUARDED_BY(mutex_);
  uint64_t calls_ CAISSON_GUARDED_BY(mutex_) = 0;
  uint64_t queues_ CAISSON_GUARDED_BY(mutex_) = 0;
  int open_files_ CAISSON_GUARDED_BY(mutex_) = 0;
};

}  // namespace caisson::sim

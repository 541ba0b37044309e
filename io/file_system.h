// The seam to the operating system: every file operation of the engine goes through FileSystem, so
// that tests can record, replay, tear and fail each one. Paths are absolute. Implementations:
// posix_file_system.h (the real one) and tests/support/sim_file_system.h (the simulated one).
// FileSystem is thread-safe; a File may be used by several threads at different offsets; an IoQueue
// belongs to one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/result.h"
#include "io/base/bytes.h"

namespace caisson {

// What the file that stands open asks of direct I/O: addresses and offsets must be multiples.
struct IoAlignment {
  uint32_t memory = 4096;
  uint32_t offset = 4096;
  bool direct = false;  // false: buffered, no constraint at all
  bool takes(uint64_t at, Bytes bytes) const {
    return !direct || (reinterpret_cast<uintptr_t>(bytes.data()) % memory == 0 &&
                       at % offset == 0 && bytes.size() % offset == 0);
  }
};

class File {
 public:
  virtual ~File() = default;
  virtual const std::string& path() const = 0;
  virtual IoAlignment alignment() const = 0;
  virtual Result<uint64_t> size() = 0;
  // Exactly `into.size()` bytes, looping over short reads and EINTR; kCorruption when the file ends
  // before (the message says where). Any alignment: the file bounces what direct I/O refuses.
  virtual Status read_at(uint64_t offset, MutableBytes into) = 0;
  // All of `from`, looping over short writes. Any alignment.
  virtual Status write_at(uint64_t offset, Bytes from) = 0;
  // Reserves blocks for [0, bytes) and sets the size, so that direct writes are not punted to a
  // kernel worker. A file system without fallocate is not an error.
  virtual Status allocate(uint64_t bytes) = 0;
  virtual Status truncate(uint64_t bytes) = 0;
  // fdatasync. After a failure of write or sync the writer is poisoned: nobody retries a sync.
  virtual Status sync() = 0;
};

struct IoCompletion {
  uint64_t tag = 0;
  Status status;
};

struct IoQueueOptions {
  uint32_t depth = 64;               // requests in flight at most
  MutableBytes registered_memory{};  // registered with the kernel where that is possible
};

// Asynchronous reads, writes and syncs. One completion handler finishes short transfers, so a
// completion is the whole request or an error. wait() after submit; the caller bounds what is in
// flight by bytes. Destruction waits for everything in flight.
class IoQueue {
 public:
  virtual ~IoQueue() = default;
  // REQUIRES: address, offset and length obey file.alignment(); memory and file outlive the
  // completion; in_flight() < depth.
  virtual Status submit_write(File& file, uint64_t offset, Bytes from, uint64_t tag) = 0;
  virtual Status submit_read(File& file, uint64_t offset, MutableBytes into, uint64_t tag) = 0;
  // File::sync as a request: makes durable what of the file's writes had completed before.
  virtual Status submit_sync(File& file, uint64_t tag) = 0;
  // Blocks for one completion. REQUIRES: in_flight() > 0.
  virtual Result<IoCompletion> wait() = 0;
  // Whether wait() would find a completion there already, as far as the queue can tell.
  virtual bool ready() const { return false; }
  virtual uint32_t in_flight() const = 0;
  virtual uint32_t depth() const = 0;
};

enum class OpenMode : uint8_t {
  kRead,       // must exist
  kCreateNew,  // must not exist (O_EXCL), read and write
};

enum class Access : uint8_t {
  kDirect,    // O_DIRECT where the file system takes it, buffered where it refuses: bulk data
  kBuffered,  // small objects
};

struct DirEntry {
  std::string name;
  bool is_directory = false;
  uint64_t bytes = 0;
};

class FileSystem {
 public:
  virtual ~FileSystem() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode,
                                             Access access) = 0;
  // kAlreadyExists when `to` exists; never replaces. `from` keeps its name too (a hard link).
  virtual Status link(const std::string& from, const std::string& to) = 0;
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  virtual Status remove_file(const std::string& path) = 0;
  virtual Status remove_directory(const std::string& path) = 0;  // must be empty
  // Creates one directory; success when it is there already. Does not sync the parent.
  virtual Status create_directory(const std::string& path) = 0;
  // fsync of a directory: makes creations, links, renames and removals in it durable.
  virtual Status sync_directory(const std::string& path) = 0;
  virtual Result<DirEntry> stat(const std::string& path) = 0;
  // What is directly in the directory, in no order; kNotFound when it is not there.
  Result<std::vector<DirEntry>> list(const std::string& path) { return list_after(path, {}); }
  // Of that only names that sort after `name`; the others cost no more than reading them.
  virtual Result<std::vector<DirEntry>> list_after(const std::string& path,
                                                   std::string_view name) = 0;
  virtual Result<std::unique_ptr<IoQueue>> make_queue(const IoQueueOptions& options) = 0;
  // "io_uring", "threads (io_uring: EPERM)", ... : which engine make_queue uses and why.
  virtual std::string io_engine() = 0;
};

}  // namespace caisson

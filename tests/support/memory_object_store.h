// An ObjectStore in memory that tests can make lie and damage the way real ones do: outcomes that
// nobody learns, reads that lag behind, fail or give other bytes, objects that are cut or taken
// away. What crashes leave is sim_file_system.h. Queues finish requests in the reverse order, so
// that nothing relies on the order of submission. Thread-safe; the hooks are called with no lock
// held and must be set before the store is shared.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "io/base/sync.h"
#include "io/object_store.h"

namespace caisson {

class MemoryObjectStore final : public ObjectStore {
 public:
  using Objects = std::map<std::string, ByteVector, std::less<>>;
  enum class Fault : uint8_t {
    kNone,
    kBefore,  // kIoError, and nothing happened
    kAfter,   // kIoError, though it happened
    kUnseen,  // reads: as if it were not there (yet)
  };
  // `operation` is "put", "get", "open", "stat", "list", "remove" or "sync". It may use the store.
  using Hook = std::function<Fault(std::string_view operation, std::string_view key)>;
  void set_hook(Hook hook) { hook_ = std::move(hook); }
  // Called after every read of an object: may change what was read, or fail it.
  using ReadHook =
      std::function<Status(const std::string& key, uint64_t offset, MutableBytes read)>;
  void set_read_hook(ReadHook hook) { read_hook_ = std::move(hook); }

  // "put log/0..1", "sync log/", "remove data/..": what was done, in order; reads are not.
  std::vector<std::string> journal() const CAISSON_EXCLUDES(mutex_);
  std::vector<std::string> keys(std::string_view prefix) const CAISSON_EXCLUDES(mutex_);
  bool has(std::string_view key) const CAISSON_EXCLUDES(mutex_);
  // Replaces or creates, as no store lets anybody do.
  void damage(const std::string& key, ByteVector bytes) CAISSON_EXCLUDES(mutex_);
  // All that is stored, to change at will. REQUIRES: no other call meanwhile.
  Objects& objects() { return objects_; }
  int open_readers_peak() const CAISSON_EXCLUDES(mutex_);
  // What queued reads ask of addresses.
  void set_memory_alignment(uint32_t bytes) { memory_alignment_ = bytes; }

  Status put_new(std::string_view key, Bytes bytes) override;
  Result<ByteVector> get(std::string_view key, uint64_t bytes_max) override;
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key, uint64_t bytes_max) override;
  Result<std::unique_ptr<ObjectReader>> open(std::string_view key) override;
  Result<ObjectInfo> stat(std::string_view key) override;
  Status list(std::string_view prefix,
              const std::function<Status(const ObjectInfo&)>& visit) override;
  Status list_after(std::string_view prefix, std::string_view key,
                    const std::function<Status(const ObjectInfo&)>& visit) override;
  Status remove(std::string_view key) override;
  Status sync_names(std::string_view prefix) override;
  ObjectCaps caps() override { return {.engine = "memory"}; }
  Result<std::unique_ptr<TransferQueue>> make_queue(const IoQueueOptions& options) override;

 private:
  friend class MemoryReader;
  Fault fault(std::string_view operation, std::string_view key) const {
    return hook_ ? hook_(operation, key) : Fault::kNone;
  }
  Result<ByteVector> find(std::string_view operation, std::string_view key);
  Status read(const std::string& key, uint64_t offset, MutableBytes into) CAISSON_EXCLUDES(mutex_);
  void count_reader(int change) CAISSON_EXCLUDES(mutex_);

  Hook hook_;
  ReadHook read_hook_;
  uint32_t memory_alignment_ = 512;
  mutable Mutex mutex_;
  Objects objects_;  // under mutex_, but for objects()
  std::vector<std::string> journal_ CAISSON_GUARDED_BY(mutex_);
  int readers_ CAISSON_GUARDED_BY(mutex_) = 0;
  int readers_peak_ CAISSON_GUARDED_BY(mutex_) = 0;
};

}  // namespace caisson

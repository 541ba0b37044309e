// An object store in memory that a test can damage: flip, cut, take away, and fail or spoil single
// reads. For tests of readers; what crashes leave is sim_file_system.h. Queues finish reads in the
// reverse order, so that nothing relies on the order of submission. Thread-safe.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "io/base/sync.h"
#include "io/object_store.h"

namespace caisson::sim {

class MemoryObjects final : public ObjectStore {
 public:
  // Called after every read of an object: may change what was read, or fail it.
  using ReadHook =
      std::function<Status(const std::string& key, uint64_t offset, MutableBytes read)>;

  // ---- for tests
  std::map<std::string, ByteVector>& objects() { return objects_; }  // no calls meanwhile
  void set_read_hook(ReadHook hook) { hook_ = std::move(hook); }
  int open_readers_peak() const { return readers_peak_; }

  // ---- ObjectStore
  Status put_new(std::string_view key, Bytes bytes) override;
  Result<ByteVector> get(std::string_view key, uint64_t bytes_max) override;
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key, uint64_t bytes_max) override;
  Result<std::unique_ptr<ObjectReader>> open(std::string_view key) override;
  Result<ObjectInfo> stat(std::string_view key) override;
  Status list(std::string_view prefix,
              const std::function<Status(const ObjectInfo&)>& visit) override;
  Status remove(std::string_view key) override;
  Status sync_names(std::string_view) override { return ok_status(); }
  ObjectCaps caps() override { return {}; }
  Result<std::unique_ptr<TransferQueue>> make_queue(const IoQueueOptions& options) override;

 private:
  friend class MemoryReader;
  Status read(const std::string& key, uint64_t offset, MutableBytes into) CAISSON_EXCLUDES(mutex_);
  void count_reader(int change) CAISSON_EXCLUDES(mutex_);

  Mutex mutex_;
  std::map<std::string, ByteVector> objects_;
  ReadHook hook_;
  int readers_ = 0;
  int readers_peak_ = 0;
};

}  // namespace caisson::sim

// An ObjectStore in memory that tests can make lie the way real ones do: outcomes that nobody
// learns, reads that lag behind. Thread-safe; the hooks are called with no lock held and must be
// set before the store is shared.
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
  enum class Fault : uint8_t {
    kNone,
    kBefore,  // kIoError, and nothing happened
    kAfter,   // kIoError, though it happened
    kUnseen,  // reads: as if it were not there (yet)
  };
  // `operation` is "put", "get", "stat", "list", "remove" or "sync".
  using Hook = std::function<Fault(std::string_view operation, std::string_view key)>;
  void set_hook(Hook hook) { hook_ = std::move(hook); }

  // "put log/0..1", "sync log/", "remove data/..": what was done, in order; reads are not.
  std::vector<std::string> journal() const CAISSON_EXCLUDES(mutex_);
  std::vector<std::string> keys(std::string_view prefix) const CAISSON_EXCLUDES(mutex_);
  bool has(std::string_view key) const CAISSON_EXCLUDES(mutex_);
  // Replaces or creates, as no store lets anybody do.
  void damage(const std::string& key, ByteVector bytes) CAISSON_EXCLUDES(mutex_);

  Status put_new(std::string_view key, Bytes bytes) override;
  Result<ByteVector> get(std::string_view key, uint64_t bytes_max) override;
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key, uint64_t bytes_max) override;
  Result<std::unique_ptr<ObjectReader>> open(std::string_view key) override;
  Result<ObjectInfo> stat(std::string_view key) override;
  Status list(std::string_view prefix,
              const std::function<Status(const ObjectInfo&)>& visit) override;
  Status remove(std::string_view key) override;
  Status sync_names(std::string_view prefix) override;
  ObjectCaps caps() override { return {.engine = "memory"}; }
  Result<std::unique_ptr<TransferQueue>> make_queue(const IoQueueOptions&) override {
    return unsupported("the memory store has no queues");
  }

 private:
  Fault fault(std::string_view operation, std::string_view key) const {
    return hook_ ? hook_(operation, key) : Fault::kNone;
  }

  Hook hook_;
  mutable Mutex mutex_;
  std::map<std::string, ByteVector, std::less<>> objects_ CAISSON_GUARDED_BY(mutex_);
  std::vector<std::string> journal_ CAISSON_GUARDED_BY(mutex_);
};

}  // namespace caisson

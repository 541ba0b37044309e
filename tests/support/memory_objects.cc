#include "tests/support/memory_objects.h"

#include <algorithm>
#include <vector>

namespace caisson::sim {

class MemoryReader final : public ObjectReader {
 public:
  MemoryReader(MemoryObjects& store, std::string key, uint64_t bytes)
      : store_(store), key_(std::move(key)), bytes_(bytes) {
    store_.count_reader(1);
  }
  ~MemoryReader() override { store_.count_reader(-1); }
  const std::string& key() const override { return key_; }
  uint64_t bytes() const override { return bytes_; }
  Status read(uint64_t offset, MutableBytes into) override {
    return store_.read(key_, offset, into);
  }

 private:
  MemoryObjects& store_;
  const std::string key_;
  const uint64_t bytes_;
};

namespace {

class MemoryQueue final : public TransferQueue {
 public:
  explicit MemoryQueue(uint32_t depth) : depth_(depth) {}
  Status submit_write(ObjectWriter&, uint64_t, Bytes, uint64_t) override {
    return unsupported("this store is read only");
  }
  Status submit_read(ObjectReader& object, uint64_t offset, MutableBytes into,
                     uint64_t tag) override {
    if (requests_.size() == depth_) return invalid_argument("the queue is full");
    if (offset % 4096 != 0 || reinterpret_cast<uintptr_t>(into.data()) % 4096 != 0) {
      return invalid_argument("a read that direct I/O would refuse");
    }
    requests_.push_back({&object, offset, into, tag});
    return ok_status();
  }
  Result<IoCompletion> wait() override {
    if (requests_.empty()) return invalid_argument("nothing is in flight");
    const Request request = requests_.back();
    requests_.pop_back();
    return IoCompletion{request.tag, request.object->read(request.offset, request.into)};
  }
  uint32_t in_flight() const override { return static_cast<uint32_t>(requests_.size()); }
  uint32_t depth() const override { return depth_; }

 private:
  struct Request {
    ObjectReader* object;
    uint64_t offset;
    MutableBytes into;
    uint64_t tag;
  };
  const uint32_t depth_;
  std::vector<Request> requests_;
};

}  // namespace

Status MemoryObjects::put_new(std::string_view key, Bytes bytes) {
  MutexLock lock(mutex_);
  const bool made = objects_.emplace(key, ByteVector(bytes.begin(), bytes.end())).second;
  return made ? ok_status() : already_exists(std::string(key));
}

Result<ByteVector> MemoryObjects::get(std::string_view key, uint64_t bytes_max) {
  ByteVector bytes;
  {
    MutexLock lock(mutex_);
    const auto found = objects_.find(std::string(key));
    if (found == objects_.end()) return not_found(std::string(key));
    bytes = found->second;
  }
  if (bytes.size() > bytes_max) return corruption(std::string(key) + ": larger than expected");
  if (hook_) CAISSON_RETURN_IF_ERROR(hook_(std::string(key), 0, bytes));
  return bytes;
}

Result<std::unique_ptr<ObjectWriter>> MemoryObjects::create(std::string_view, uint64_t) {
  return unsupported("this store is read only");
}

Result<std::unique_ptr<ObjectReader>> MemoryObjects::open(std::string_view key) {
  CAISSON_ASSIGN_OR_RETURN(const ObjectInfo info, stat(key));
  return std::unique_ptr<ObjectReader>(std::make_unique<MemoryReader>(*this, info.key, info.bytes));
}

Result<ObjectInfo> MemoryObjects::stat(std::string_view key) {
  MutexLock lock(mutex_);
  const auto found = objects_.find(std::string(key));
  if (found == objects_.end()) return not_found(std::string(key));
  return ObjectInfo{found->first, found->second.size()};
}

Status MemoryObjects::list(std::string_view prefix,
                           const std::function<Status(const ObjectInfo&)>& visit) {
  std::vector<ObjectInfo> found;
  {
    MutexLock lock(mutex_);
    for (const auto& [key, bytes] : objects_) {
      if (key.starts_with(prefix)) found.push_back({key, bytes.size()});
    }
  }
  for (const ObjectInfo& info : found) CAISSON_RETURN_IF_ERROR(visit(info));
  return ok_status();
}

Status MemoryObjects::remove(std::string_view key) {
  MutexLock lock(mutex_);
  objects_.erase(std::string(key));
  return ok_status();
}

Result<std::unique_ptr<TransferQueue>> MemoryObjects::make_queue(const IoQueueOptions& options) {
  return std::unique_ptr<TransferQueue>(std::make_unique<MemoryQueue>(options.depth));
}

Status MemoryObjects::read(const std::string& key, uint64_t offset, MutableBytes into) {
  {
    MutexLock lock(mutex_);
    const auto found = objects_.find(key);
    if (found == objects_.end()) return io_error(key + ": gone");
    const ByteVector& bytes = found->second;
    if (offset > bytes.size() || into.size() > bytes.size() - offset) {
      return corruption(key + ": ends at " + std::to_string(bytes.size()));
    }
    std::copy_n(bytes.begin() + static_cast<ptrdiff_t>(offset), into.size(), into.begin());
  }
  return hook_ ? hook_(key, offset, into) : ok_status();
}

void MemoryObjects::count_reader(int change) {
  MutexLock lock(mutex_);
  readers_ += change;
  readers_peak_ = std::max(readers_peak_, readers_);
}

}  // namespace caisson::sim

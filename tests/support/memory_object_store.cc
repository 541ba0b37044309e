#include "tests/support/memory_object_store.h"

#include <algorithm>
#include <utility>

namespace caisson {

namespace {

Status injected(std::string_view operation, std::string_view key) {
  return io_error(std::string(operation) + " " + std::string(key) + ": injected");
}

class MemoryWriter final : public ObjectWriter {
 public:
  MemoryWriter(MemoryObjectStore& store, std::string key, uint64_t bytes_max)
      : store_(store), key_(std::move(key)), bytes_(bytes_max) {}
  const std::string& key() const override { return key_; }
  Status write(uint64_t offset, Bytes from) override {
    if (offset > bytes_.size() || from.size() > bytes_.size() - offset) {
      return invalid_argument(key_ + ": written past its bound");
    }
    std::copy(from.begin(), from.end(), bytes_.begin() + static_cast<ptrdiff_t>(offset));
    return ok_status();
  }
  Status publish(uint64_t bytes) override {
    bytes_.resize(bytes);
    return store_.put_new(key_, bytes_);
  }

 private:
  MemoryObjectStore& store_;
  const std::string key_;
  ByteVector bytes_;
};

class MemoryQueue final : public TransferQueue {
 public:
  explicit MemoryQueue(uint32_t depth) : depth_(depth) {}
  Status submit_write(ObjectWriter& object, uint64_t offset, Bytes from, uint64_t tag) override {
    CAISSON_RETURN_IF_ERROR(check({.memory = 4096, .offset = 4096, .direct = true}, offset, from));
    done_.push_back({tag, object.write(offset, from)});
    return ok_status();
  }
  Status submit_read(ObjectReader& object, uint64_t offset, MutableBytes into,
                     uint64_t tag) override {
    CAISSON_RETURN_IF_ERROR(check(object.alignment(), offset, into));
    done_.push_back({tag, object.read(offset, into)});
    return ok_status();
  }
  Status submit_publish(ObjectWriter& object, uint64_t bytes, uint64_t tag) override {
    if (done_.size() == depth_) return invalid_argument("the queue is full");
    done_.push_back({tag, object.publish(bytes)});
    return ok_status();
  }
  Result<IoCompletion> wait() override {
    if (done_.empty()) return invalid_argument("nothing is in flight");
    IoCompletion completion = std::move(done_.back());
    done_.pop_back();
    return completion;
  }
  bool ready() const override { return !done_.empty(); }
  uint32_t in_flight() const override { return static_cast<uint32_t>(done_.size()); }
  uint32_t depth() const override { return depth_; }

 private:
  Status check(const IoAlignment& alignment, uint64_t offset, Bytes memory) const {
    if (done_.size() == depth_) return invalid_argument("the queue is full");
    if (alignment.takes(offset, memory)) return ok_status();
    return invalid_argument("a transfer that direct I/O would refuse");
  }

  const uint32_t depth_;
  std::vector<IoCompletion> done_;
};

}  // namespace

// Reads through the store: an object that is gone is gone for its readers, too.
class MemoryReader final : public ObjectReader {
 public:
  MemoryReader(MemoryObjectStore& store, std::string key, uint64_t bytes)
      : store_(store), key_(std::move(key)), bytes_(bytes) {
    store_.count_reader(1);
  }
  ~MemoryReader() override { store_.count_reader(-1); }
  MemoryReader(const MemoryReader&) = delete;
  MemoryReader& operator=(const MemoryReader&) = delete;
  const std::string& key() const override { return key_; }
  uint64_t bytes() const override { return bytes_; }
  IoAlignment alignment() const override {
    return {.memory = store_.memory_alignment_, .offset = 4096, .direct = true};
  }
  Status read(uint64_t offset, MutableBytes into) override {
    return store_.read(key_, offset, into);
  }

 private:
  MemoryObjectStore& store_;
  const std::string key_;
  const uint64_t bytes_;
};

std::vector<std::string> MemoryObjectStore::journal() const {
  MutexLock lock(mutex_);
  return journal_;
}

std::vector<std::string> MemoryObjectStore::keys(std::string_view prefix) const {
  MutexLock lock(mutex_);
  std::vector<std::string> found;
  for (const auto& [key, bytes] : objects_) {
    if (key.starts_with(prefix)) found.push_back(key);
  }
  return found;
}

bool MemoryObjectStore::has(std::string_view key) const {
  MutexLock lock(mutex_);
  return objects_.contains(key);
}

void MemoryObjectStore::damage(const std::string& key, ByteVector bytes) {
  MutexLock lock(mutex_);
  objects_[key] = std::move(bytes);
}

int MemoryObjectStore::open_readers_peak() const {
  MutexLock lock(mutex_);
  return readers_peak_;
}

Status MemoryObjectStore::put_new(std::string_view key, Bytes bytes) {
  CAISSON_RETURN_IF_ERROR(check_key(key));
  const Fault fault = this->fault("put", key);
  if (fault == Fault::kBefore) return injected("put", key);
  {
    MutexLock lock(mutex_);
    const bool created =
        objects_.emplace(std::string(key), ByteVector(bytes.begin(), bytes.end())).second;
    if (created) journal_.push_back("put " + std::string(key));
    if (!created && fault == Fault::kNone) return already_exists(std::string(key));
  }
  return fault == Fault::kNone ? ok_status() : injected("put", key);
}

// The whole object, past the hook of `operation`.
Result<ByteVector> MemoryObjectStore::find(std::string_view operation, std::string_view key) {
  const Fault fault = this->fault(operation, key);
  if (fault == Fault::kUnseen) return not_found(std::string(key));
  if (fault != Fault::kNone) return injected(operation, key);
  MutexLock lock(mutex_);
  const auto found = objects_.find(key);
  if (found == objects_.end()) return not_found(std::string(key));
  return found->second;
}

Result<ByteVector> MemoryObjectStore::get(std::string_view key, uint64_t bytes_max) {
  CAISSON_ASSIGN_OR_RETURN(ByteVector bytes, find("get", key));
  if (bytes.size() > bytes_max) return corruption(std::string(key) + ": larger than expected");
  if (read_hook_) CAISSON_RETURN_IF_ERROR(read_hook_(std::string(key), 0, bytes));
  return bytes;
}

Result<std::unique_ptr<ObjectWriter>> MemoryObjectStore::create(std::string_view key,
                                                                uint64_t bytes_max) {
  CAISSON_RETURN_IF_ERROR(check_key(key));
  return std::unique_ptr<ObjectWriter>(
      std::make_unique<MemoryWriter>(*this, std::string(key), bytes_max));
}

Result<std::unique_ptr<ObjectReader>> MemoryObjectStore::open(std::string_view key) {
  CAISSON_ASSIGN_OR_RETURN(const ByteVector bytes, find("open", key));
  return std::unique_ptr<ObjectReader>(
      std::make_unique<MemoryReader>(*this, std::string(key), bytes.size()));
}

Result<ObjectInfo> MemoryObjectStore::stat(std::string_view key) {
  CAISSON_ASSIGN_OR_RETURN(const ByteVector bytes, find("stat", key));
  return ObjectInfo{.key = std::string(key), .bytes = bytes.size()};
}

Status MemoryObjectStore::list(std::string_view prefix,
                               const std::function<Status(const ObjectInfo&)>& visit) {
  if (fault("list", prefix) != Fault::kNone) return injected("list", prefix);
  for (const std::string& key : keys(prefix)) {
    if (fault("list", key) == Fault::kUnseen) continue;
    const Result<ObjectInfo> info = stat(key);
    if (info.ok()) CAISSON_RETURN_IF_ERROR(visit(*info));
  }
  return ok_status();
}

Status MemoryObjectStore::list_after(std::string_view prefix, std::string_view key,
                                     const std::function<Status(const ObjectInfo&)>& visit) {
  return list(prefix, [&](const ObjectInfo& info) {
    const bool deeper = info.key.find('/', prefix.size()) != std::string::npos;
    return deeper || info.key <= key ? ok_status() : visit(info);
  });
}

Status MemoryObjectStore::remove(std::string_view key) {
  const Fault fault = this->fault("remove", key);
  if (fault == Fault::kBefore) return injected("remove", key);
  MutexLock lock(mutex_);
  if (const auto found = objects_.find(key); found != objects_.end()) objects_.erase(found);
  journal_.push_back("remove " + std::string(key));
  return fault == Fault::kNone ? ok_status() : injected("remove", key);
}

Status MemoryObjectStore::sync_names(std::string_view prefix) {
  if (fault("sync", prefix) != Fault::kNone) return injected("sync", prefix);
  MutexLock lock(mutex_);
  journal_.push_back("sync " + std::string(prefix));
  return ok_status();
}

Result<std::unique_ptr<TransferQueue>> MemoryObjectStore::make_queue(
    const IoQueueOptions& options) {
  return std::unique_ptr<TransferQueue>(std::make_unique<MemoryQueue>(options.depth));
}

Status MemoryObjectStore::read(const std::string& key, uint64_t offset, MutableBytes into) {
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
  return read_hook_ ? read_hook_(key, offset, into) : ok_status();
}

void MemoryObjectStore::count_reader(int change) {
  MutexLock lock(mutex_);
  readers_ += change;
  readers_peak_ = std::max(readers_peak_, readers_);
}

}  // namespace caisson

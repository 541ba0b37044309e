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

class MemoryReader final : public ObjectReader {
 public:
  MemoryReader(std::string key, ByteVector bytes)
      : key_(std::move(key)), bytes_(std::move(bytes)) {}
  const std::string& key() const override { return key_; }
  uint64_t bytes() const override { return bytes_.size(); }
  Status read(uint64_t offset, MutableBytes into) override {
    if (offset > bytes_.size() || into.size() > bytes_.size() - offset) {
      return corruption(key_ + " is too short");
    }
    std::copy_n(bytes_.begin() + static_cast<ptrdiff_t>(offset), into.size(), into.begin());
    return ok_status();
  }

 private:
  const std::string key_;
  const ByteVector bytes_;
};

}  // namespace

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

Result<ByteVector> MemoryObjectStore::get(std::string_view key, uint64_t bytes_max) {
  const Fault fault = this->fault("get", key);
  if (fault == Fault::kUnseen) return not_found(std::string(key));
  if (fault != Fault::kNone) return injected("get", key);
  MutexLock lock(mutex_);
  const auto found = objects_.find(key);
  if (found == objects_.end()) return not_found(std::string(key));
  if (found->second.size() > bytes_max) return corruption(std::string(key) + " is too large");
  return found->second;
}

Result<std::unique_ptr<ObjectWriter>> MemoryObjectStore::create(std::string_view key,
                                                                uint64_t bytes_max) {
  CAISSON_RETURN_IF_ERROR(check_key(key));
  return std::unique_ptr<ObjectWriter>(
      std::make_unique<MemoryWriter>(*this, std::string(key), bytes_max));
}

Result<std::unique_ptr<ObjectReader>> MemoryObjectStore::open(std::string_view key) {
  CAISSON_ASSIGN_OR_RETURN(ByteVector bytes, get(key, ~uint64_t{0}));
  return std::unique_ptr<ObjectReader>(
      std::make_unique<MemoryReader>(std::string(key), std::move(bytes)));
}

Result<ObjectInfo> MemoryObjectStore::stat(std::string_view key) {
  const Fault fault = this->fault("stat", key);
  if (fault == Fault::kUnseen) return not_found(std::string(key));
  if (fault != Fault::kNone) return injected("stat", key);
  MutexLock lock(mutex_);
  const auto found = objects_.find(key);
  if (found == objects_.end()) return not_found(std::string(key));
  return ObjectInfo{.key = std::string(key), .bytes = found->second.size()};
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

}  // namespace caisson

#include "engine/object_reads.h"

#include <utility>

#include "io/base/mutant.h"

namespace caisson {

Result<std::unique_ptr<ObjectReader>> open_sealed(ObjectStore& objects,
                                                  const format::SealedRef& sealed) {
  const std::string key = sealed.object.key();
  Result<std::unique_ptr<ObjectReader>> reader = objects.open(key);
  if (!reader.ok()) {
    if (reader.status().code() != StatusCode::kNotFound) return reader.status().with_context(key);
    return corruption(key + " is missing, though a checkpoint needs its " +
                      std::to_string(sealed.bytes) + " bytes");
  }
  if ((*reader)->bytes() != sealed.bytes && !CAISSON_MUTANT(object_size)) {
    return corruption(key + " has " + std::to_string((*reader)->bytes()) +
                      " bytes, was sealed with " + std::to_string(sealed.bytes));
  }
  return reader;
}

std::unique_ptr<ObjectReader> ObjectReads::take_idle(const std::string& key) {
  MutexLock lock(mutex_);
  for (auto it = idle_.begin(); it != idle_.end(); ++it) {
    if ((*it)->key() != key) continue;
    std::unique_ptr<ObjectReader> reader = std::move(*it);
    idle_.erase(it);
    return reader;
  }
  return nullptr;
}

void ObjectReads::give_idle(std::unique_ptr<ObjectReader> reader) {
  std::unique_ptr<ObjectReader> evicted;  // closed outside the lock
  MutexLock lock(mutex_);
  idle_.push_front(std::move(reader));
  if (idle_.size() > idle_readers_max_) {
    evicted = std::move(idle_.back());
    idle_.pop_back();
  }
}

Status ObjectReads::read(const format::SealedRef& sealed, uint64_t offset, MutableBytes into) {
  const std::string key = sealed.object.key();
  if (offset > sealed.bytes || into.size() > sealed.bytes - offset) {
    return corruption(key + " has " + std::to_string(sealed.bytes) + " bytes, but " +
                      std::to_string(into.size()) + " bytes at offset " + std::to_string(offset) +
                      " are referred to");
  }
  if (into.empty()) return ok_status();
  std::unique_ptr<ObjectReader> reader = take_idle(key);
  if (reader == nullptr) {
    CAISSON_ASSIGN_OR_RETURN(reader, open_sealed(objects_, sealed));
  }
  const Status status = reader->read(offset, into);
  // A reader that failed is not kept: the next attempt opens the object afresh.
  if (!status.ok()) return status.with_context(key + " at offset " + std::to_string(offset));
  give_idle(std::move(reader));
  return ok_status();
}

}  // namespace caisson

// Small reads of sealed objects by any thread, through a bounded number of open readers: a
// checkpoint of 8,192 parts must not need 8,192 descriptors. Used by manifest.cc, chunk_reader.cc
// and scrub.cc. Thread-safe: a reader serves one thread at a time and is kept for the next.
#pragma once

#include <list>
#include <memory>
#include <string>

#include "engine/format/names.h"
#include "io/base/sync.h"
#include "io/object_store.h"

namespace caisson {

// Opens an object that another object vouches for. kCorruption when it is missing or has another
// size than it was sealed with: a committed checkpoint without one of its objects is damaged.
Result<std::unique_ptr<ObjectReader>> open_sealed(ObjectStore& objects,
                                                  const format::SealedRef& sealed);

class ObjectReads {
 public:
  explicit ObjectReads(ObjectStore& objects, size_t idle_readers_max = 32)
      : objects_(objects), idle_readers_max_(idle_readers_max) {}

  // Exactly [offset, offset + into.size()) of `sealed`. Errors name the object and the offset.
  Status read(const format::SealedRef& sealed, uint64_t offset, MutableBytes into)
      CAISSON_EXCLUDES(mutex_);

 private:
  std::unique_ptr<ObjectReader> take_idle(const std::string& key) CAISSON_EXCLUDES(mutex_);
  void give_idle(std::unique_ptr<ObjectReader> reader) CAISSON_EXCLUDES(mutex_);

  ObjectStore& objects_;
  const size_t idle_readers_max_;
  Mutex mutex_;
  // Most recently used first.
  std::list<std::unique_ptr<ObjectReader>> idle_ CAISSON_GUARDED_BY(mutex_);
};

}  // namespace caisson

// Uuids and time that are the same in every run: for golden files, crash states and models.
// Thread-safe.
#pragma once

#include <random>

#include "io/base/bytes.h"
#include "io/base/clock.h"
#include "io/base/hash.h"
#include "io/base/sync.h"

namespace caisson {

class SeededUuids final : public UuidSource {
 public:
  explicit SeededUuids(uint64_t seed) : random_(seed) {}
  Uuid next() override {
    MutexLock lock(mutex_);
    Uuid uuid;
    store_le<uint64_t>(uuid.bytes.data(), random_());
    store_le<uint64_t>(uuid.bytes.data() + 8, random_());
    return uuid;
  }

 private:
  Mutex mutex_;
  std::mt19937_64 random_ CAISSON_GUARDED_BY(mutex_);
};

class FixedClock final : public Clock {
 public:
  int64_t unix_ns() override { return 1'700'000'000'000'000'000; }
};

}  // namespace caisson

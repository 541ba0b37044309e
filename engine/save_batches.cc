#include "engine/save_batches.h"

#include <algorithm>
#include <utility>

namespace caisson {

bool SaveBatches::claim(SaveBatch& batch) {
  MutexLock lock(mutex_);
  while (error_.ok() && claimed_ - sunk_ >= kAheadMax) moved_.wait(mutex_);
  const uint64_t first = claimed_ * kBatchUnits;
  if (!error_.ok() || first >= units_) return false;
  batch = {};
  batch.index = claimed_++;
  batch.first = first;
  batch.count = std::min(kBatchUnits, units_ - first);
  return true;
}

void SaveBatches::finish(SaveBatch&& batch) {
  MutexLock lock(mutex_);
  early_.emplace(batch.index, std::move(batch));
  for (auto next = early_.begin(); error_.ok() && next != early_.end() && next->first == sunk_;
       next = early_.begin()) {
    error_ = sink_(next->second);
    early_.erase(next);
    ++sunk_;
  }
  moved_.notify_all();
}

Status SaveBatches::wait_finished() {
  MutexLock lock(mutex_);
  while (error_.ok() && sunk_ * kBatchUnits < units_) moved_.wait(mutex_);
  return error_;
}

void SaveBatches::fail(Status status) {
  MutexLock lock(mutex_);
  if (error_.ok()) error_ = std::move(status);
  moved_.notify_all();
}

Status SaveBatches::status() const {
  MutexLock lock(mutex_);
  return error_;
}

}  // namespace caisson

#include "engine/save_batches.h"

#include <algorithm>
#include <utility>

namespace caisson {

void SaveBatches::add(SavePlan* plan, uint64_t units) {
  if (units == 0) return;
  MutexLock lock(mutex_);
  added_.push_back({.plan = plan, .units_left = units});
  moved_.notify_all();
}

void SaveBatches::close() {
  MutexLock lock(mutex_);
  closed_ = true;
  moved_.notify_all();
}

bool SaveBatches::claim(SaveBatch& batch) {
  MutexLock lock(mutex_);
  const auto is_held_up = [&]() CAISSON_REQUIRES(mutex_) {
    return claimed_ - sunk_ >= kAheadMax || (added_.empty() && !closed_);
  };
  while (error_.ok() && is_held_up()) moved_.wait(mutex_);
  if (!error_.ok() || added_.empty()) return false;
  Added& from = added_.front();
  batch = {};
  batch.index = claimed_++;
  batch.plan = from.plan;
  batch.first = from.next;
  batch.count = std::min(kBatchUnits, from.units_left);
  from.next += batch.count;
  from.units_left -= batch.count;
  if (from.units_left == 0) added_.pop_front();
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
  while (error_.ok() && !(closed_ && added_.empty() && sunk_ == claimed_)) moved_.wait(mutex_);
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

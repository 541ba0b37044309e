#include "client/ready_gate.h"

#include <string>
#include <utility>

namespace caisson::c {

Status ReadyGate::mark(std::span<const uint64_t> places) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const uint64_t place : places) {
    if (place < marked_.size()) continue;
    return invalid_argument("shard " + std::to_string(place) + " was marked ready, but there are " +
                            std::to_string(marked_.size()));
  }
  for (const uint64_t place : places) {
    if (marked_[place]) continue;
    marked_[place] = true;
    ready_.push_back(place);
    --left_;
  }
  changed_.notify_all();
  return ok_status();
}

Result<std::vector<uint64_t>> ReadyGate::take(const std::stop_token& stop) {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, stop, [this] { return !ready_.empty() || left_ == 0; });
  if (stop.stop_requested()) {
    return cancelled("cancelled, when " + std::to_string(left_) + " shards were not ready");
  }
  return std::exchange(ready_, {});
}

bool ReadyGate::is_waiting() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return left_ > 0;
}

}  // namespace caisson::c

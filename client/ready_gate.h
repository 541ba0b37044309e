// Which shards of a deferred save may be read: the caller marks them, the save's thread takes what
// was marked and not yet taken. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <stop_token>
#include <vector>

#include "caisson/result.h"

namespace caisson::c {

class ReadyGate {
 public:
  explicit ReadyGate(uint64_t shards) : marked_(shards), left_(shards) {}

  // kInvalidArgument for a place that is none; then nothing is marked.
  Status mark(std::span<const uint64_t> places);
  // Blocks until there are some, and gives the places of all that are ready; none once all were
  // taken. kCancelled when `stop` was asked for.
  Result<std::vector<uint64_t>> take(const std::stop_token& stop);
  // Whether some shard was not marked yet.
  bool is_waiting() const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable_any changed_;  // knows stop tokens
  std::vector<bool> marked_;
  std::vector<uint64_t> ready_;  // marked, not taken
  uint64_t left_;                // not marked
};

}  // namespace caisson::c

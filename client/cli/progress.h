// A line of progress on a terminal: share done, rate, time left. Writes nothing when standard error
// is no terminal, or with --json or --quiet. Thread-safe: pipelines call it from their threads.
#pragma once

#include <chrono>
#include <string>

#include "client/cli/command.h"
#include "io/base/sync.h"

namespace caisson::cli {

class ProgressMeter {
 public:
  ProgressMeter(const Session& session, std::string label);
  ~ProgressMeter();  // clears the line
  ProgressMeter(const ProgressMeter&) = delete;
  ProgressMeter& operator=(const ProgressMeter&) = delete;

  void update(const Progress& now) CAISSON_EXCLUDES(mutex_);
  ProgressFn callback() {
    return [this](const Progress& now) { update(now); };
  }
  double seconds() const;

 private:
  using Clock = std::chrono::steady_clock;

  const std::string label_;
  const bool shown_;
  const Clock::time_point started_ = Clock::now();
  Mutex mutex_;
  Clock::time_point drawn_ CAISSON_GUARDED_BY(mutex_){};
  bool on_screen_ CAISSON_GUARDED_BY(mutex_) = false;
};

}  // namespace caisson::cli

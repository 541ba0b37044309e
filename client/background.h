// One thread that runs what it is given, in order: a Store has one for its saves. Thread-safe. In a
// forked child the thread does not exist, and destruction would wait for it: leak it there.
#pragma once

#include <deque>
#include <functional>
#include <thread>

#include "io/base/sync.h"

namespace caisson {

class BackgroundThread {
 public:
  BackgroundThread() = default;
  // Runs everything that was posted, then ends.
  ~BackgroundThread();
  BackgroundThread(const BackgroundThread&) = delete;
  BackgroundThread& operator=(const BackgroundThread&) = delete;

  void post(std::function<void()> task) CAISSON_EXCLUDES(mutex_);

 private:
  void loop() CAISSON_EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<void()>> tasks_ CAISSON_GUARDED_BY(mutex_);
  bool ending_ CAISSON_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // started with the first task
};

}  // namespace caisson

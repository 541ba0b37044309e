// The shared state behind a PendingSave: filled by the save's thread, waited for by callers.
// Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <stop_token>

#include "caisson/store.h"
#include "io/base/sync.h"

namespace caisson {

struct PendingSave::State {
  // Called once, by the thread that saved.
  void finish(Status status, SaveReport report) CAISSON_EXCLUDES(mutex);
  Status wait() CAISSON_EXCLUDES(mutex);
  bool is_done() CAISSON_EXCLUDES(mutex);
  bool wait_for(std::chrono::nanoseconds timeout) CAISSON_EXCLUDES(mutex);
  void wait_done() CAISSON_EXCLUDES(mutex);  // does not count as being told of an error
  // The error, when the save failed and nobody has been told yet; ok otherwise.
  Status take_unseen_error() CAISSON_EXCLUDES(mutex);

  std::stop_source stop;  // cancel()
  Mutex mutex;
  std::condition_variable_any finished;  // takes our Mutex, and knows timeouts
  bool done CAISSON_GUARDED_BY(mutex) = false;
  bool seen CAISSON_GUARDED_BY(mutex) = false;
  Status status CAISSON_GUARDED_BY(mutex);
  SaveReport report;  // written before done, read after
};

}  // namespace caisson

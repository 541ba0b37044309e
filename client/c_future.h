// The futures of caisson/c.h: a save of the Store's own background thread, or a task with a thread
// of its own. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <stop_token>

#include "client/c_handles.h"

struct caisson_future : caisson::c::Handle {
  caisson_future() : Handle(caisson::c::HandleKind::kFuture) {}
  virtual ~caisson_future() = default;  // waits
  caisson_future(const caisson_future&) = delete;
  caisson_future& operator=(const caisson_future&) = delete;

  // Whether it has finished; a negative timeout waits without end.
  virtual bool wait_for(std::chrono::nanoseconds timeout) = 0;
  virtual caisson::Status outcome() = 0;  // REQUIRES: finished
  virtual void cancel() = 0;
  virtual caisson::Result<caisson::SaveReport> report() = 0;  // REQUIRES: finished

  std::shared_ptr<caisson::Store> store;  // goes after what the future waits for
  std::shared_ptr<caisson::c::ProgressCell> progress = std::make_shared<caisson::c::ProgressCell>();
};

namespace caisson::c {

// Starts `task` in a thread of its own. `stop` is what cancel() asks.
std::unique_ptr<caisson_future> run_task(std::shared_ptr<Store> store,
                                         std::shared_ptr<ProgressCell> progress,
                                         std::stop_source stop, std::function<Status()> task);
std::unique_ptr<caisson_future> make_save_future(std::shared_ptr<Store> store,
                                                 std::shared_ptr<ProgressCell> progress,
                                                 PendingSave save);

}  // namespace caisson::c

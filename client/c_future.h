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
#include "client/ready_gate.h"

struct caisson_future : caisson::c::Handle {
  caisson_future() : Handle(caisson::c::HandleKind::kFuture) {}
  virtual ~caisson_future() = default;  // waits
  caisson_future(const caisson_future&) = delete;
  caisson_future& operator=(const caisson_future&) = delete;

  // Whether it has finished; a negative timeout waits without end.
  virtual bool wait_for(std::chrono::nanoseconds timeout) = 0;
  virtual caisson::Status outcome() = 0;  // REQUIRES: finished
  virtual void cancel() = 0;
  // REQUIRES: finished. An error where this future has none.
  virtual caisson::Result<caisson::SaveReport> report() = 0;
  virtual caisson::Result<std::string> text() = 0;

  std::shared_ptr<caisson::Store> store;  // goes after what the future waits for
  std::shared_ptr<caisson::c::ProgressCell> progress = std::make_shared<caisson::c::ProgressCell>();
  std::shared_ptr<caisson::c::ReadyGate> gate;  // null: nothing is deferred
};

namespace caisson::c {

// What a task has to give: a save its report, maintenance its document.
struct TaskResult {
  std::optional<SaveReport> report;
  std::optional<std::string> text;
};
using Task = std::function<Result<TaskResult>()>;

struct TaskOptions {
  std::shared_ptr<Store> store;
  std::shared_ptr<ProgressCell> progress;
  std::stop_source stop;            // what cancel() asks
  std::shared_ptr<ReadyGate> gate;  // null: nothing is deferred
};
// Starts `task` in a thread of its own.
std::unique_ptr<caisson_future> run_task(TaskOptions options, Task task);
std::unique_ptr<caisson_future> make_save_future(std::shared_ptr<Store> store,
                                                 std::shared_ptr<ProgressCell> progress,
                                                 PendingSave save);

// Puts every shard once it is ready, by as many puts as it takes. (c_deferred.cc)
Status put_when_ready(SaveTransaction& transaction, const OwnedSave& save, ReadyGate& gate,
                      const std::stop_token& stop);
// The rest of a save by one process that has begun: joins, puts, seals, commits.
Result<SaveReport> save_when_ready(Store& store, const std::string& ticket, const OwnedSave& save,
                                   ReadyGate& gate, const SaveOptions& options);

}  // namespace caisson::c

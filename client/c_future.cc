// caisson/c.h: futures. See c_future.h.
#include "client/c_future.h"

#include <algorithm>
#include <thread>
#include <utility>

namespace caisson::c {

namespace {

using std::chrono::nanoseconds;
// A time that the clock cannot hold is one that never comes.
constexpr nanoseconds kLongest = std::chrono::hours(24 * 365);
nanoseconds bounded(nanoseconds timeout) {
  return timeout < nanoseconds::zero() ? kLongest : std::min(timeout, kLongest);
}

class SaveFuture final : public caisson_future {
 public:
  explicit SaveFuture(PendingSave save) : save_(std::move(save)) {}
  bool wait_for(nanoseconds timeout) override { return save_.wait_for(bounded(timeout)); }
  Status outcome() override { return save_.wait(); }
  void cancel() override { save_.cancel(); }
  Result<SaveReport> report() override {
    CAISSON_RETURN_IF_ERROR(save_.wait());
    return save_.report();
  }
  Result<std::string> text() override { return invalid_argument("a save has no text"); }

 private:
  PendingSave save_;
};

class TaskFuture final : public caisson_future {
 public:
  TaskFuture(std::stop_source stop, Task task)
      : stop_(std::move(stop)), thread_([this, task = std::move(task)] { run(task); }) {}
  ~TaskFuture() override {
    // Nobody is left to mark the rest.
    if (gate != nullptr && gate->is_waiting()) stop_.request_stop();
  }
  TaskFuture(const TaskFuture&) = delete;
  TaskFuture& operator=(const TaskFuture&) = delete;

  bool wait_for(nanoseconds timeout) override {
    std::unique_lock<std::mutex> lock(mutex_);
    return finished_.wait_for(lock, bounded(timeout), [this] { return result_.has_value(); });
  }
  Status outcome() override { return result().status(); }
  void cancel() override { stop_.request_stop(); }
  Result<SaveReport> report() override {
    CAISSON_ASSIGN_OR_RETURN(const TaskResult made, result());
    if (made.report) return *made.report;
    return invalid_argument("this future is no save: it has no report");
  }
  Result<std::string> text() override {
    CAISSON_ASSIGN_OR_RETURN(const TaskResult made, result());
    if (made.text) return *made.text;
    return invalid_argument("this future has no text");
  }

 private:
  void run(const Task& task) {
    const auto guarded = [&]() -> Result<TaskResult> {
      try {
        return task();
      } catch (const std::exception& exception) {
        return out_of_memory(exception.what());
      }
    };
    Result<TaskResult> made = guarded();
    const std::lock_guard<std::mutex> lock(mutex_);
    result_ = std::move(made);
    finished_.notify_all();
  }
  Result<TaskResult> result() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return *result_;
  }

  std::stop_source stop_;
  std::mutex mutex_;
  std::condition_variable finished_;
  std::optional<Result<TaskResult>> result_;
  std::jthread thread_;  // last: uses the rest, and is joined first
};

Answer check_future(const caisson_future* future) {
  return check_handle(future, HandleKind::kFuture, "future");
}

Answer check_finished(caisson_future* future) {
  CAISSON_RETURN_IF_BAD(check_future(future));
  if (future->wait_for(nanoseconds::zero())) return {};
  return invalid_argument("it has not finished: wait first");
}

}  // namespace

std::unique_ptr<caisson_future> run_task(TaskOptions options, Task task) {
  auto future = std::make_unique<TaskFuture>(std::move(options.stop), std::move(task));
  future->store = std::move(options.store);
  future->progress = std::move(options.progress);
  future->gate = std::move(options.gate);
  return future;
}

std::unique_ptr<caisson_future> make_save_future(std::shared_ptr<Store> store,
                                                 std::shared_ptr<ProgressCell> progress,
                                                 PendingSave save) {
  auto future = std::make_unique<SaveFuture>(std::move(save));
  future->store = std::move(store);
  future->progress = std::move(progress);
  return future;
}

}  // namespace caisson::c

using caisson::c::Answer;
using caisson::c::call;
using caisson::c::check_finished;
using caisson::c::check_future;

extern "C" {

int32_t caisson_future_wait(caisson_future* future, int64_t timeout_ns, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_BAD(check_future(future));
    // Without an end means: again and again.
    while (!future->wait_for(std::chrono::nanoseconds(timeout_ns))) {
      if (timeout_ns >= 0) return {CAISSON_TIMEOUT, {}};
    }
    return future->outcome();
  });
}

int32_t caisson_future_poll(caisson_future* future) {
  if (check_future(future).code != CAISSON_OK) return -1;
  return future->wait_for(std::chrono::nanoseconds::zero()) ? 1 : 0;
}

void caisson_future_cancel(caisson_future* future) {
  if (check_future(future).code == CAISSON_OK) future->cancel();
}

void caisson_future_progress(caisson_future* future, uint64_t* bytes_done, uint64_t* bytes_total) {
  const bool known = check_future(future).code == CAISSON_OK;
  if (bytes_done != nullptr) *bytes_done = known ? future->progress->done.load() : 0;
  if (bytes_total != nullptr) *bytes_total = known ? future->progress->total.load() : 0;
}

int32_t caisson_future_report(caisson_future* future, caisson_report** report,
                              caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(caisson::c::check_out(report, "report"));
    CAISSON_RETURN_IF_BAD(check_finished(future));
    CAISSON_ASSIGN_OR_RETURN(caisson::SaveReport made, future->report());
    *report = caisson::c::make_report(std::move(made));
    return {};
  });
}

int32_t caisson_future_text(caisson_future* future, caisson_bytes** text, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(caisson::c::check_out(text, "text"));
    CAISSON_RETURN_IF_BAD(check_finished(future));
    CAISSON_ASSIGN_OR_RETURN(const std::string made, future->text());
    *text = caisson::c::make_bytes(made);
    return {};
  });
}

int32_t caisson_future_mark_ready(caisson_future* future, const uint64_t* places,
                                  uint64_t places_count, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_BAD(check_future(future));
    if (future->gate == nullptr) {
      return caisson::invalid_argument(
          "nothing is deferred here: the input had no CAISSON_INPUT_DEFERRED");
    }
    if (places == nullptr && places_count > 0) {
      return caisson::invalid_argument("the array of places is null");
    }
    if (places_count > caisson::c::kCountMax) {
      return caisson::invalid_argument("more places than there can be shards");
    }
    return future->gate->mark({places, places_count});
  });
}

void caisson_future_free(caisson_future* future) {
  if (future != nullptr && !future->is_forked()) delete future;
}

}  // extern "C"

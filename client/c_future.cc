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

 private:
  PendingSave save_;
};

class TaskFuture final : public caisson_future {
 public:
  TaskFuture(std::stop_source stop, std::function<Status()> task)
      : stop_(std::move(stop)), thread_([this, task = std::move(task)] { run(task); }) {}

  bool wait_for(nanoseconds timeout) override {
    std::unique_lock<std::mutex> lock(mutex_);
    return finished_.wait_for(lock, bounded(timeout), [this] { return status_.has_value(); });
  }
  Status outcome() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return *status_;
  }
  void cancel() override { stop_.request_stop(); }
  Result<SaveReport> report() override {
    return invalid_argument("this future is no save: it has no report");
  }

 private:
  void run(const std::function<Status()>& task) {
    Status status;
    try {
      status = task();
    } catch (const std::exception& exception) {
      status = out_of_memory(exception.what());
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    status_ = std::move(status);
    finished_.notify_all();
  }

  std::stop_source stop_;
  std::mutex mutex_;
  std::condition_variable finished_;
  std::optional<Status> status_;
  std::jthread thread_;  // last: uses the rest, and is joined first
};

Answer check_future(const caisson_future* future) {
  return check_handle(future, HandleKind::kFuture, "future");
}

}  // namespace

std::unique_ptr<caisson_future> run_task(std::shared_ptr<Store> store,
                                         std::shared_ptr<ProgressCell> progress,
                                         std::stop_source stop, std::function<Status()> task) {
  auto future = std::make_unique<TaskFuture>(std::move(stop), std::move(task));
  future->store = std::move(store);
  future->progress = std::move(progress);
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
    CAISSON_RETURN_IF_BAD(check_future(future));
    if (!future->wait_for(std::chrono::nanoseconds::zero())) {
      return caisson::invalid_argument("it has not finished: wait first");
    }
    CAISSON_ASSIGN_OR_RETURN(caisson::SaveReport made, future->report());
    *report = caisson::c::make_report(std::move(made));
    return {};
  });
}

void caisson_future_free(caisson_future* future) {
  if (future != nullptr && !future->is_forked()) delete future;
}

}  // extern "C"

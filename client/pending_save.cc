#include "client/pending_save.h"

#include <algorithm>
#include <utility>

#include "io/base/check.h"

namespace caisson {

void PendingSave::State::finish(Status outcome, SaveReport made) {
  MutexLock lock(mutex);
  status = std::move(outcome);
  report = std::move(made);
  done = true;
  finished.notify_all();
}

Status PendingSave::State::wait() {
  MutexLock lock(mutex);
  while (!done) finished.wait(mutex);
  seen = true;
  return status;
}

bool PendingSave::State::wait_for(std::chrono::nanoseconds timeout) {
  // A time that the clock cannot hold is one that never comes.
  constexpr std::chrono::nanoseconds kLongest = std::chrono::hours(24 * 365);
  const auto deadline = std::chrono::steady_clock::now() + std::min(timeout, kLongest);
  MutexLock lock(mutex);
  while (!done) {
    if (finished.wait_until(mutex, deadline) == std::cv_status::timeout) break;
  }
  return done;
}

void PendingSave::State::wait_done() {
  MutexLock lock(mutex);
  while (!done) finished.wait(mutex);
}

bool PendingSave::State::is_done() {
  MutexLock lock(mutex);
  return done;
}

Status PendingSave::State::take_unseen_error() {
  MutexLock lock(mutex);
  if (!done || seen) return ok_status();
  seen = true;
  return status;
}

PendingSave::PendingSave(std::shared_ptr<State> state) : state_(std::move(state)) {}
PendingSave::PendingSave(PendingSave&&) noexcept = default;

PendingSave& PendingSave::operator=(PendingSave&& other) noexcept {
  PendingSave old(std::exchange(state_, std::move(other.state_)));  // waits, like the destructor
  return *this;
}

PendingSave::~PendingSave() {
  if (state_ == nullptr) return;
  state_->wait_done();  // the memory may be lent
}

bool PendingSave::wait_for(std::chrono::nanoseconds timeout) const {
  return state_->wait_for(timeout);
}
bool PendingSave::done() const { return state_->is_done(); }
Status PendingSave::wait() { return state_->wait(); }
void PendingSave::cancel() { state_->stop.request_stop(); }

const SaveReport& PendingSave::report() const {
  CAISSON_CHECK(state_->is_done());
  return state_->report;
}

}  // namespace caisson

// See interrupt.h. The signals are blocked in every thread and taken by one that waits for them, so
// no code ever runs in a signal handler.
#include "client/cli/interrupt.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "client/cli/exit_code.h"

namespace caisson::cli {
namespace {

sigset_t interrupts() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGINT);
  ::sigaddset(&set, SIGTERM);
  return set;
}

}  // namespace

InterruptWatch::InterruptWatch() {
  ::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of write(2), not the end of a save
  const sigset_t set = interrupts();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  watcher_ = std::jthread([this](const std::stop_token& done) {
    const sigset_t waited = interrupts();
    const timespec tick{.tv_sec = 0, .tv_nsec = 100'000'000};
    while (!done.stop_requested()) {
      if (::sigtimedwait(&waited, nullptr, &tick) < 0) continue;
      if (!source_.request_stop()) ::_exit(kExitInterrupted);
    }
  });
}

InterruptWatch::~InterruptWatch() { watcher_.request_stop(); }

}  // namespace caisson::cli

#include "io/base/clock.h"

#include <ctime>

namespace caisson {

namespace {
class SystemClock final : public Clock {
 public:
  int64_t unix_ns() override {
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  }
};
}  // namespace

Clock& system_clock() {
  static SystemClock clock;
  return clock;
}

}  // namespace caisson

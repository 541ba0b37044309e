// Wall-clock time, injected so that tests and golden files are deterministic. For display and
// metrics only: nothing in Caisson is decided by a clock. Thread-safe implementations only.
#pragma once

#include <cstdint>

namespace caisson {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t unix_ns() = 0;
};
Clock& system_clock();

}  // namespace caisson

// Counts what this thread allocates, for tests that bound a decoder's memory. Linking
// alloc_meter.cc replaces operator new and delete of the whole program.
#pragma once

#include <cstdint>

namespace caisson::testing {

struct AllocMeter {
  // Bytes asked for by this thread since it started, freed or not.
  static uint64_t bytes();
};

}  // namespace caisson::testing

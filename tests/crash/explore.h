// Takes the record of a workload apart into crash states and checks each: whatever was acknowledged
// is there, whatever was not is whole or absent, and the store goes on from there. Prints nothing;
// thread-compatible.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

#include "tests/crash/world.h"

namespace caisson::crash {

// What is to be explored: a record, what was noted during it, and what was known before.
struct Recording {
  std::string workload;
  uint64_t seed = 0;
  sim::Image base;
  sim::History history;
  std::vector<Event> journal;
  Expectation initial;
};
Recording record_of(const std::string& workload, uint64_t seed, const World& world);

struct Explored {
  uint64_t prefixes = 0;
  uint64_t states = 0;    // crash states built
  uint64_t distinct = 0;  // of those, checked: the disk or what is known about it is new
  std::vector<std::string> failures;  // each starts with the id that replays it
  void add(const Explored& other);
};

struct ExploreOptions {
  sim::CrashLimits limits;
  size_t failures_max = 3;
  // Of the prefixes, from `first` on, each `stride`-th.
  size_t first = 0;
  size_t stride = 1;
  // Only this prefix and variant: replays a failure.
  bool only = false;
  size_t prefix = 0;
  uint32_t variant = 0;
  // Called for each state that passed, for crashes during recovery.
  std::function<void(const sim::Image&, const Expectation&, const std::string& id)> visit;
};
Explored explore(const Recording& recording, const ExploreOptions& options);

// The check of one state. Empty when all is well, else what is not.
std::string check_crashed(const sim::Image& image, const Expectation& expectation, uint64_t seed);

}  // namespace caisson::crash

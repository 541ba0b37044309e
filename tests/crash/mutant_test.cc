// The crash tests must be able to fail: with each durability step taken out in turn, some crash
// state of some workload must lose or damage what was acknowledged. Prints the list.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/crash/explore.h"
#include "tests/crash/mutants.h"
#include "tests/crash/workloads.h"

namespace caisson::crash {
namespace {

constexpr uint64_t kSeed = 1;

Recording record(const Workload& each) {
  World world(kSeed, {}, {}, {});
  const Status status = each.run(world);
  EXPECT_TRUE(status.ok()) << each.name << ": " << status.to_string();
  return record_of(each.name, kSeed, world);
}

// The first failure that the mutant causes, or nothing.
std::string caught_by(const DurabilityMutant& mutant, const std::vector<Recording>& recordings) {
  for (const Workload& each : workloads()) {
    // One life with snapshots, prune and gc is enough to show that a harmless step is harmless.
    if (mutant.harmless && each.name != "snapshots") continue;
    if (mutant.link_replaces) {
      // A platform that breaks its promise is found out before anything rests on it.
      World world(kSeed, {}, {}, {.link_replaces = true});
      const Status status = each.run(world);
      if (status.code() == StatusCode::kUnsupported) return status.to_string();
      continue;
    }
    Recording recording = recordings[static_cast<size_t>(&each - workloads().data())];
    recording.history = mutant.change(recording.history);
    ExploreOptions options;
    options.failures_max = 1;
    const Explored done = explore(recording, options);
    if (!done.failures.empty()) return done.failures.front();
  }
  return {};
}

TEST(Mutants, EveryDurabilityStepIsNeeded) {
  std::vector<Recording> recordings;
  for (const Workload& each : workloads()) recordings.push_back(record(each));
  size_t caught = 0, wanted = 0;
  for (const DurabilityMutant& mutant : durability_mutants()) {
    const std::string how = caught_by(mutant, recordings);
    std::printf("  %-52s %s\n", mutant.name.c_str(),
                mutant.harmless ? (how.empty() ? "harmless, as designed" : how.c_str())
                : how.empty()   ? "SURVIVED"
                                : ("caught: " + how.substr(0, how.find('\n'))).c_str());
    std::fflush(stdout);
    EXPECT_EQ(how.empty(), mutant.harmless) << mutant.name << ": " << how;
    if (mutant.harmless) continue;
    ++wanted;
    if (!how.empty()) ++caught;
  }
  std::printf("durability mutants: %zu of %zu caught\n", caught, wanted);
}

}  // namespace
}  // namespace caisson::crash

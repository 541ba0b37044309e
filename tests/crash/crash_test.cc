// The proof that Caisson never loses an acknowledged checkpoint: every workload, stopped at every
// file operation, with every disk that the stop may leave (or a seeded sample where they are many).
// After each: the store opens without repair; what was acknowledged restores byte for byte; what
// was not is whole or absent; latest is the newest of these; a new save and gc work and lose
// nothing.
//
// CAISSON_CRASH_REPLAY=<id> checks one state alone, by the id that its failure starts with:
// <workload>:<seed>:<prefix>:<variant>, then /recovery:<seed>:<prefix>:<variant> where it crashed
// again; CAISSON_SOAK=1 samples ten times as many.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/crash/explore.h"
#include "tests/crash/workloads.h"
#include "tests/support/sanitized.h"

namespace caisson::crash {
namespace {

constexpr uint64_t kSeed = 1;
// Under a sanitizer each eighth stop; the seeds are the same.
constexpr size_t kStride = testing::kSanitized ? 8 : 1;
constexpr uint64_t kStatesMin = 20'000 / kStride;

bool soak() { return std::getenv("CAISSON_SOAK") != nullptr; }

ExploreOptions usual_options() {
  ExploreOptions options;
  options.stride = kStride;
  if (soak()) options.limits = {.subset_max = 8, .torn = 20, .recent = 8, .samples = 60};
  return options;
}

Recording record(const std::string& name, uint64_t seed) {
  World world(seed);
  const Status status = workload(name).run(world);
  EXPECT_TRUE(status.ok()) << name << " without any crash: " << status.to_string();
  EXPECT_EQ(world.disk().open_files(), 0) << name;
  return record_of(name, seed, world);
}

struct Totals {
  uint64_t states = 0;
  uint64_t distinct = 0;
};

void report(const std::string& name, const Explored& done, Totals& totals) {
  std::printf("  %-28s %6llu prefixes %8llu states %8llu distinct\n", name.c_str(),
              static_cast<unsigned long long>(done.prefixes),
              static_cast<unsigned long long>(done.states),
              static_cast<unsigned long long>(done.distinct));
  std::fflush(stdout);
  for (const std::string& failure : done.failures) ADD_FAILURE() << failure;
  totals.states += done.states;
  totals.distinct += done.distinct;
}

// Of the states before the last crash, and of the last.
sim::CrashLimits sparse(bool last) {
  return {.subset_max = last ? 0u : 1u, .torn = 1, .recent = 0, .samples = 1};
}

// Crashes of workloads whose recovery crashes, and recovers, and crashes again. `every` picks the
// states of the first level.
Explored explore_recoveries(const Recording& first, uint64_t every) {
  Explored total;
  ExploreOptions outer{.limits = sparse(false)};
  uint64_t count = 0;
  outer.visit = [&](const sim::Image& image, const Expectation& known, const std::string& id) {
    if (++count % every != 0) return;
    const uint64_t seed = count * 31 + 5;
    World second(seed, image, known);
    const Status status = recover(second, 1);
    EXPECT_TRUE(status.ok()) << "recovery from " << id << ": " << status.to_string();
    ExploreOptions inner{.limits = sparse(false)};
    uint64_t inner_count = 0;
    inner.visit = [&](const sim::Image& again, const Expectation& then, const std::string& inside) {
      if (++inner_count % 40 != 7) return;
      const uint64_t third_seed = seed + inner_count;
      World third(third_seed, again, then);
      const Status twice = recover(third, 2);
      EXPECT_TRUE(twice.ok()) << "second recovery from " << inside << ": " << twice.to_string();
      total.add(
          explore(record_of(inside + "/recovery", third_seed, third), {.limits = sparse(true)}));
    };
    total.add(explore(record_of(id + "/recovery", seed, second), inner));
  };
  const Explored outermost = explore(first, outer);
  total.failures.insert(total.failures.end(), outermost.failures.begin(), outermost.failures.end());
  return total;
}

TEST(Crash, EveryWorkloadSurvivesEveryCrash) {
  if (std::getenv("CAISSON_CRASH_REPLAY") != nullptr) GTEST_SKIP();
  Totals totals;
  for (const Workload& each : workloads()) {
    report(each.name, explore(record(each.name, kSeed), usual_options()), totals);
  }
  for (const std::string name : {"deduplicated_saves", "prune_and_gc", "takeover"}) {
    const Explored again = explore_recoveries(record(name, kSeed), soak() ? 5 * kStride : 60);
    EXPECT_GT(again.distinct, 0u) << "no crash of a recovery was tried";
    report("recovery of " + name, again, totals);
  }
  std::printf("crash states: %llu built, %llu distinct, every one whole after recovery\n",
              static_cast<unsigned long long>(totals.states),
              static_cast<unsigned long long>(totals.distinct));
  EXPECT_GE(totals.distinct, kStatesMin);
}

TEST(Crash, Replay) {
  const char* const replay = std::getenv("CAISSON_CRASH_REPLAY");
  if (replay == nullptr) GTEST_SKIP() << "CAISSON_CRASH_REPLAY names no state";
  const std::string ids = replay;
  const bool again = ids.find("/recovery") != std::string::npos;
  Recording recording;
  sim::Image image;
  Expectation known;
  uint32_t level = 0;
  for (size_t at = 0; at != std::string::npos; ++level) {
    char name[64] = {};
    unsigned long long seed = 0, prefix = 0;
    unsigned variant = 0;
    ASSERT_EQ(std::sscanf(&ids[at], "%63[^:]:%llu:%llu:%u", name, &seed, &prefix, &variant), 4);
    if (level == 0) {
      recording = record(name, seed);
    } else {
      World world(seed, image, known);
      ASSERT_TRUE(recover(world, level).ok());
      recording = record_of(name, seed, world);
    }
    ExploreOptions options = usual_options();
    if (again) options.limits = sparse(level == 2);
    options.only = true;
    options.prefix = prefix;
    options.variant = variant;
    options.visit = [&](const sim::Image& disk, const Expectation& then, const std::string&) {
      image = disk;
      known = then;
    };
    for (const std::string& failure : explore(recording, options).failures)
      ADD_FAILURE() << failure;
    at = ids.find('/', at);
    if (at != std::string::npos) ++at;
  }
}

}  // namespace
}  // namespace caisson::crash

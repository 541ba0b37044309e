// Two processes on one store, the second doing all of its work at one moment of the first's: before
// each of its file operations in turn. Then the same promises hold as without a race, also when
// both crash at any point after that.
//
// CAISSON_RACE_REPLAY=<pair>:<moment> runs one race alone.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/crash/explore.h"
#include "tests/crash/workloads.h"

namespace caisson::crash {
namespace {

constexpr uint64_t kSeed = 6;

Status save_other_run(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  return world.save(*store, "other/1", 7);
}

Status take_over(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(store->claim("run"));
  return world.save(*store, "run/7", 7);
}

Status prune_and_collect(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/1"));
  return world.collect_garbage();
}

Status snapshot_and_collect(World& world) {
  CAISSON_RETURN_IF_ERROR(world.write_snapshot());
  return world.collect_garbage();
}

Status rewrite_and_collect(World& world) {
  CAISSON_RETURN_IF_ERROR(world.rewrite("run/1"));
  return world.collect_garbage();
}

struct Moment {
  uint64_t at = 0;
  bool at_log_sync = false;  // a record of the first is linked, but not durable
  size_t prefix = 0;
  Status other;
  uint64_t seen = 0;
};

// One save by two ranks over an existing checkpoint.
Status save_by_ranks(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_ASSIGN_OR_RETURN(RankSave save, world.begin(*store, "run/2", 2, 2));
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, 0));
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, 1));
  CAISSON_RETURN_IF_ERROR(world.commit(*store, save));
  return world.collect_garbage();
}

struct Pair {
  std::string name;
  std::function<Status(World&)> first;
  std::function<Status(World&)> other;
};
const Pair kPairs[] = {{"save of another run", save_by_ranks, save_other_run},
                       {"takeover", save_by_ranks, take_over},
                       {"prune and gc", save_by_ranks, prune_and_collect},
                       {"snapshot and gc", save_by_ranks, snapshot_and_collect},
                       {"rewrite of the base", save_by_ranks, rewrite_and_collect},
                       {"rewrite, takeover", rewrite_and_collect, take_over},
                       {"rewrite, prune", rewrite_and_collect, prune_and_collect},
                       {"rewrite, rewrite", rewrite_and_collect, rewrite_and_collect}};

// Runs the race at one moment. False when the first made fewer calls than that.
bool race(World& world, const Pair& pair, Moment& moment, Status& first) {
  bool busy = false, done = false;
  world.disk().set_interloper([&](const sim::Call& call) {
    if (busy || done || moment.seen++ != moment.at) return;
    busy = true;
    moment.at_log_sync = call.kind == sim::CallKind::kSyncDirectory && call.path.ends_with("/log");
    moment.prefix = world.disk().history().size();
    moment.other = pair.other(world);
    busy = false;
    done = true;
  });
  first = pair.first(world);
  world.disk().set_interloper({});
  return done;
}

bool is_lost_race(const Status& status) {
  return status.ok() || status.code() == StatusCode::kFenced ||
         status.code() == StatusCode::kNotFound;
}

TEST(Races, TwoProcessesAtEveryMoment) {
  const char* const replay = std::getenv("CAISSON_RACE_REPLAY");
  World before(kSeed);
  {
    auto store = before.open();
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(before.save(**store, "run/1", 1).ok());
  }
  uint64_t races = 0, lost = 0;
  Explored total;
  for (const Pair& pair : kPairs) {
    for (uint64_t at = 0; total.failures.size() < 5; ++at) {
      const std::string id = pair.name + ":" + std::to_string(at);
      World world(kSeed + at, before.disk().image(), before.expectation());
      Moment moment{.at = at};
      Status first;
      if (!race(world, pair, moment, first)) break;
      if (replay != nullptr && id != replay) continue;
      ++races;
      if (!first.ok()) ++lost;
      EXPECT_TRUE(is_lost_race(first)) << id << ": " << first.to_string();
      EXPECT_TRUE(moment.other.ok()) << id << ": " << moment.other.to_string();
      const std::string wrong = check_crashed(world.disk().image(), world.expectation(), at);
      EXPECT_EQ(wrong, "") << id;
      ExploreOptions options;
      options.limits = {.subset_max = 1, .torn = 0, .recent = 3, .samples = 2};
      options.first = moment.prefix + (moment.at_log_sync ? 0 : at % 24);
      options.stride = moment.at_log_sync ? 1 : 24;
      options.failures_max = 1;
      total.add(explore(record_of(id, at, world), options));
    }
    std::printf("  %-22s up to here %5llu races, %5llu lost by the first, %7llu crash states\n",
                pair.name.c_str(), static_cast<unsigned long long>(races),
                static_cast<unsigned long long>(lost),
                static_cast<unsigned long long>(total.states));
    std::fflush(stdout);
  }
  for (const std::string& failure : total.failures) ADD_FAILURE() << failure;
}

}  // namespace
}  // namespace caisson::crash

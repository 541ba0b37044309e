// A reader and, at one moment of its reading, another process that takes the checkpoint away:
// prunes it and collects its objects, saves its name anew, or gives it another root. Before
// each file operation of the reader in turn. The reader gets the bytes of the checkpoint that it
// asked for, or is told that it is gone: never that something is damaged, and never other bytes.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/crash/world.h"

namespace caisson::crash {
namespace {

constexpr uint64_t kSeed = 9;
const std::string kName = "run/1";

struct Other {
  const char* name;
  Status (*run)(World& world);
  bool takes_away = true;  // the content, not only the objects
};

Status prune_and_collect(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.remove(*store, kName));
  return world.collect_garbage();
}

Status overwrite_and_collect(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  SaveOptions again;
  again.overwrite = true;
  again.dedup = false;
  CAISSON_RETURN_IF_ERROR(world.save(*store, kName, 2, again));
  return world.collect_garbage();
}

Status rewrite_and_collect(World& world) {
  CAISSON_RETURN_IF_ERROR(world.rewrite(kName));
  return world.collect_garbage();
}

const Other kOthers[] = {{"rewritten", rewrite_and_collect, false},
                         {"pruned", prune_and_collect},
                         {"saved anew", overwrite_and_collect}};

// Runs `read`, and `other` before its file operation number `at`. False: it made fewer than that.
bool interleave(World& world, const Other& other, uint64_t at, const std::function<void()>& read) {
  uint64_t seen = 0;
  bool busy = false, done = false;
  world.disk().set_interloper([&](const sim::Call&) {
    if (busy || done || seen++ != at) return;
    busy = true;
    const Status status = other.run(world);
    EXPECT_TRUE(status.ok()) << other.name << ": " << status.to_string();
    busy = false;
    done = true;
  });
  read();
  world.disk().set_interloper({});
  return done;
}

class ReadRaces : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = before_.open();
    ASSERT_TRUE(store.ok());
    ASSERT_TRUE(before_.save(**store, kName, 1).ok());
  }
  World world_at(uint64_t at) {
    return World(kSeed + at, before_.disk().image(), before_.expectation());
  }

  World before_{kSeed};
};

// Of a name that is pinned to a commit: those bytes, or told that they are gone.
TEST_F(ReadRaces, ARestoreOfOneCommitGivesItsBytesOrSaysThatItIsGone) {
  for (const Other& other : kOthers) {
    uint64_t restored = 0, gone = 0;
    for (uint64_t at = 0;; ++at) {
      World world = world_at(at);
      auto store = world.open();
      ASSERT_TRUE(store.ok());
      const std::string pinned =
          kName + "@" + std::to_string((*store)->info(kName).value().commit_seq);
      auto fresh = world.open();  // has no manifest open yet
      ASSERT_TRUE(fresh.ok());
      std::string wrong;
      const bool raced =
          interleave(world, other, at, [&] { wrong = verify_checkpoint(**fresh, pinned, {1}); });
      if (!raced) break;
      const bool fenced = wrong.find("failed: fenced: ") != std::string::npos;
      ++(wrong.empty() ? restored : gone);
      EXPECT_TRUE(wrong.empty() || fenced) << other.name << " at " << at << ": " << wrong;
      EXPECT_TRUE(!fenced || wrong.find("caisson ls") != std::string::npos) << wrong;
    }
    std::printf("  %-12s %3llu restored, %3llu told that it is gone\n", other.name,
                static_cast<unsigned long long>(restored), static_cast<unsigned long long>(gone));
    EXPECT_EQ(gone > 0, other.takes_away) << other.name;
    EXPECT_GT(restored, 0u) << other.name;
  }
}

// By name alone: what a single call gives is of one save, whichever the name meant.
TEST_F(ReadRaces, OneCallReadsOneCheckpoint) {
  const Content one(1), two(2);
  for (const Other& other : kOthers) {
    for (uint64_t at = 0;; ++at) {
      World world = world_at(at);
      auto store = world.open();
      ASSERT_TRUE(store.ok());
      Status status;
      std::string wrong;
      const bool raced = interleave(world, other, at, [&] {
        status = restore_tensors(**store, kName, {1, 2}, &wrong);
      });
      if (!raced) break;
      EXPECT_EQ(wrong, "") << other.name << " at " << at;
      const bool told = status.ok() || status.code() == StatusCode::kFenced ||
                        status.code() == StatusCode::kNotFound;
      EXPECT_TRUE(told) << other.name << " at " << at << ": " << status.to_string();
    }
  }
}

TEST_F(ReadRaces, AListingShowsNoDamageThatIsNone) {
  for (const Other& other : kOthers) {
    for (uint64_t at = 0;; ++at) {
      World world = world_at(at);
      auto store = world.open();
      ASSERT_TRUE(store.ok());
      Result<std::vector<CheckpointInfo>> listed = std::vector<CheckpointInfo>();
      Result<std::vector<TensorInfo>> tensors = std::vector<TensorInfo>();
      const bool raced = interleave(world, other, at, [&] {
        listed = (*store)->checkpoints();
        tensors = (*store)->tensors(kName);
      });
      if (!raced) break;
      ASSERT_TRUE(listed.ok()) << other.name << " at " << at << listed.status().to_string();
      for (const CheckpointInfo& info : *listed) {
        EXPECT_EQ(info.problem, "") << other.name << " at " << at;
      }
      const StatusCode code = tensors.status().code();
      EXPECT_TRUE(tensors.ok() || code == StatusCode::kFenced || code == StatusCode::kNotFound)
          << other.name << " at " << at << ": " << tensors.status().to_string();
    }
  }
}

}  // namespace
}  // namespace caisson::crash

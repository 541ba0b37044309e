#include "engine/retention.h"

#include <gtest/gtest.h>

#include "tests/support/log_records.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/seeded.h"

namespace caisson {
namespace {

using Fault = MemoryObjectStore::Fault;
using format::CommitSeq;

class RetentionTest : public testing::Test {
 protected:
  void SetUp() override {
    log_ = open_log();
    append(*log_, claim_run(1));
  }
  std::unique_ptr<Log> open_log() { return Log::open(store_, uuids_, {}, clock_).value(); }
  static CommitSeq append(Log& log, const format::LogBody& body) {
    const auto seq = log.append([&](const LogState&) -> Result<format::LogBody> { return body; });
    EXPECT_TRUE(seq.ok()) << seq.status().to_string();
    return seq.ok() ? *seq : 0;
  }
  CommitSeq save(uint8_t id, uint64_t step, uint64_t epoch = 1) {
    append(*log_, open_save(id, step, epoch));
    return append(*log_, commit_save(id, step, epoch));
  }
  std::vector<uint64_t> steps() {
    std::vector<uint64_t> left;
    for (const auto& [seq, checkpoint] : log_->refresh().value()->checkpoints()) {
      left.push_back(checkpoint.step);
    }
    return left;
  }
  static std::vector<uint64_t> steps_of(const Result<std::vector<Checkpoint>>& pruned) {
    std::vector<uint64_t> steps;
    EXPECT_TRUE(pruned.ok()) << pruned.status().to_string();
    if (!pruned.ok()) return steps;
    for (const Checkpoint& checkpoint : *pruned) steps.push_back(checkpoint.step);
    return steps;
  }
  using Steps = std::vector<uint64_t>;

  MemoryObjectStore store_;
  SeededUuids uuids_{3};
  FixedClock clock_;
  std::unique_ptr<Log> log_;
};

TEST_F(RetentionTest, TheNewestAndTheMilestonesStay) {
  for (uint8_t i = 1; i <= 6; ++i) save(i, i * 10);
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "r", {.keep_last = 2, .keep_every = 30})),
            (Steps{10, 20, 40}));
  EXPECT_EQ(steps(), (Steps{30, 50, 60}));
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "r", {.keep_last = 0})), (Steps{30, 50}));
  EXPECT_EQ(steps(), (Steps{60})) << "latest always stays";
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "nobody", {})), Steps());
}

TEST_F(RetentionTest, WhatWasRolledBackIsNoMilestoneAndDoesNotCount) {
  const CommitSeq first = save(1, 10);
  save(2, 20);
  append(*log_, claim_run(2, first));
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "r", {.keep_last = 1})), Steps())
      << "no newer one of the run's own line yet";
  save(3, 30, 2);
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "r", {.keep_last = 2})), Steps());
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "r", {.keep_last = 1, .keep_every = 10})), Steps({20}));
  EXPECT_EQ(steps(), (Steps{10, 30}));
}

// Between the policy's answer and its record the run goes back to the very checkpoint that was one
// too many.
TEST_F(RetentionTest, AClaimMeanwhileKeepsWhatItContinuesFrom) {
  const CommitSeq first = save(1, 10);
  save(2, 20);
  const auto other = open_log();
  bool claimed = false;
  store_.set_hook([&](std::string_view operation, std::string_view key) {
    if (!claimed && operation == "put" && key.starts_with("log/")) {
      claimed = true;
      append(*other, claim_run(2, first));
    }
    return Fault::kNone;
  });
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "r", {.keep_last = 1})), Steps());
  EXPECT_TRUE(claimed);
  EXPECT_EQ(steps(), (Steps{10, 20}));
}

// Another process prunes by the same policy at the same time.
TEST_F(RetentionTest, WhatAnotherPrunedMeanwhileIsNoError) {
  const CommitSeq first = save(1, 10);
  save(2, 20);
  save(3, 30);
  const auto other = open_log();
  bool pruned = false;
  store_.set_hook([&](std::string_view operation, std::string_view key) {
    if (!pruned && operation == "put" && key.starts_with("log/")) {
      pruned = true;
      append(*other, format::PruneRecord{first});
    }
    return Fault::kNone;
  });
  EXPECT_EQ(steps_of(prune_by_policy(*log_, "r", {.keep_last = 1})), (Steps{20}));
  EXPECT_EQ(steps(), (Steps{30}));
}

}  // namespace
}  // namespace caisson

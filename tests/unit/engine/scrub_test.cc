// Verify of handmade checkpoints: a sound one is clean, and each kind of damage is found at its
// depth, by name.
#include "engine/scrub.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "tests/support/memory_object_store.h"
#include "tests/support/tiny_checkpoint.h"

namespace caisson {
namespace {

using sim::random_tensor;
using testing::AnyOf;
using testing::HasSubstr;

constexpr DType kF32{.code = DTypeCode::kFloat, .bits = 32};
constexpr DType kBF16{.code = DTypeCode::kBfloat, .bits = 16};

class ScrubTest : public testing::Test {
 protected:
  ScrubTest() {
    model_.push_back(random_tensor("weight", kBF16, {64, 100}, {16, 50}, 1));
    model_.push_back(random_tensor("norm", kF32, {3}, {3}, 2));  // inline
    model_.push_back(random_tensor("bias", kF32, {2000}, {500}, 3));
    model_.back().shards[0].rank = 1;
    root_ = sim::write_tiny_checkpoint(objects_, model_, {});
  }

  ScrubReport scrub(ScrubDepth depth) {
    Scrubber scrubber(objects_, budget_, {.depth = depth, .progress = {}, .stop = {}});
    const Status status = scrubber.check_checkpoint("run/1", root_);
    EXPECT_TRUE(status.ok()) << status.to_string();
    EXPECT_EQ(budget_.bytes_held(), 0u);
    return scrubber.report();
  }
  ByteVector& object(std::string_view ending, size_t index = 0) {
    for (auto& [key, bytes] : objects_.objects()) {
      if (key.ends_with(ending) && index-- == 0) {
        key_ = key;
        return bytes;
      }
    }
    ADD_FAILURE() << ending;
    return objects_.objects().begin()->second;
  }
  void flip(ByteVector& bytes, size_t at) { bytes[at] ^= std::byte{0x10}; }

  void expect_found(ScrubDepth at, std::string_view what) {
    for (const ScrubDepth depth :
         {ScrubDepth::kStructure, ScrubDepth::kChecksums, ScrubDepth::kFull}) {
      SCOPED_TRACE("depth " + std::to_string(static_cast<int>(depth)));
      const ScrubReport report = scrub(depth);
      if (depth < at) {
        EXPECT_EQ(report.damaged, 0u);
        continue;
      }
      ASSERT_GE(report.damaged, 1u);
      EXPECT_EQ(report.findings[0].object, key_);
      EXPECT_EQ(report.findings[0].checkpoint, "run/1");
      EXPECT_THAT(report.findings[0].what, HasSubstr(std::string(what)));
      EXPECT_TRUE(report.findings[0].damage);
    }
  }

  MemoryObjectStore objects_;
  MemoryBudget budget_{64u << 20};
  std::vector<sim::TinyTensor> model_;
  format::SealedRef root_;
  std::string key_;  // of the object that object() gave
};

TEST_F(ScrubTest, ASoundCheckpointIsCleanAtEveryDepth) {
  for (const ScrubDepth depth :
       {ScrubDepth::kStructure, ScrubDepth::kChecksums, ScrubDepth::kFull}) {
    const ScrubReport report = scrub(depth);
    EXPECT_EQ(report.damaged, 0u) << report.findings[0].object << ": " << report.findings[0].what;
    EXPECT_EQ(report.harmless, 0u);
    EXPECT_EQ(report.tensors, 3u);
    // Eight tiles of weight, four of bias; the inline one is an entry, but no chunk of a pack.
    EXPECT_EQ(report.chunks, depth == ScrubDepth::kStructure ? 13u : 12u);
  }
}

TEST_F(ScrubTest, ReadsMoreTheDeeperItGoes) {
  uint64_t stored = 0;
  for (const auto& [key, bytes] : objects_.objects()) stored += bytes.size();
  EXPECT_LT(scrub(ScrubDepth::kStructure).bytes_read, stored);
  EXPECT_GE(scrub(ScrubDepth::kChecksums).bytes_read, stored);
}

TEST_F(ScrubTest, DamageOfACheckpointThatIsGivenUpMeanwhileIsTakenBack) {
  object(".pack", 1);
  objects_.objects().erase(key_);
  Scrubber scrubber(objects_, budget_, {.depth = ScrubDepth::kFull});
  ASSERT_TRUE(scrubber.check_checkpoint("run/1", root_).ok());
  const uint64_t damaged = scrubber.report().damaged;
  ASSERT_GE(damaged, 1u);
  scrubber.retract_damage();
  EXPECT_EQ(scrubber.report().damaged, 0u);
  EXPECT_TRUE(scrubber.report().findings.empty());
  // A checkpoint that stands and shares the pack reports it all the same.
  ASSERT_TRUE(scrubber.check_checkpoint("run/1", root_).ok());
  EXPECT_EQ(scrubber.report().damaged, damaged);
}

TEST_F(ScrubTest, AMissingRoot) {
  object(".root");
  objects_.objects().erase(key_);
  expect_found(ScrubDepth::kStructure, "missing");
}
TEST_F(ScrubTest, AChangedRoot) {
  ByteVector& root = object(".root");
  flip(root, root.size() / 2);
  expect_found(ScrubDepth::kStructure, "digest");
}
TEST_F(ScrubTest, AMissingPart) {
  object(".part", 1);
  objects_.objects().erase(key_);
  expect_found(ScrubDepth::kStructure, "missing");
}
TEST_F(ScrubTest, AChangedPartTrailer) {
  ByteVector& part = object(".part");
  flip(part, part.size() - 4000);
  expect_found(ScrubDepth::kStructure, "trailer");
}
TEST_F(ScrubTest, AChangedEntryBlock) {
  flip(object(".part"), 100);
  expect_found(ScrubDepth::kStructure, "a block of the entry table");
}
TEST_F(ScrubTest, AChangedInlineChunk) {
  flip(object(".part"), 4096);
  expect_found(ScrubDepth::kChecksums, "");
  const ScrubReport report = scrub(ScrubDepth::kFull);
  ASSERT_GE(report.damaged, 1u);
  EXPECT_EQ(report.findings[0].tensor, "norm");
}
TEST_F(ScrubTest, AChangedDirectory) {
  flip(object(".dir"), 40);
  expect_found(ScrubDepth::kStructure, "");
}
TEST_F(ScrubTest, AMissingPack) {
  object(".pack", 1);
  objects_.objects().erase(key_);
  expect_found(ScrubDepth::kStructure, "missing");
}
TEST_F(ScrubTest, ACutPack) {
  ByteVector& pack = object(".pack");
  pack.resize(pack.size() - 4096);
  expect_found(ScrubDepth::kStructure, "sealed with");
}
TEST_F(ScrubTest, AChangedFooter) {
  ByteVector& pack = object(".pack");
  flip(pack, pack.size() - 8192 + 20);
  expect_found(ScrubDepth::kStructure, "");
}
TEST_F(ScrubTest, AChangedPackHeader) {
  flip(object(".pack"), 20);
  expect_found(ScrubDepth::kChecksums, "");
}
TEST_F(ScrubTest, AChangedSegmentDirectory) {
  flip(object(".pack"), 4096 + 20);
  expect_found(ScrubDepth::kChecksums, "");
}
TEST_F(ScrubTest, AChangedChunk) {
  flip(object(".pack"), 8192 + 5);
  expect_found(ScrubDepth::kChecksums, "checksum");
  const ScrubReport report = scrub(ScrubDepth::kChecksums);
  ASSERT_EQ(report.damaged, 1u);
  EXPECT_EQ(report.findings[0].offset, 8192u);
  EXPECT_EQ(report.findings[0].id.size(), 32u);
  EXPECT_EQ(report.findings[0].tensor, "weight");
}

TEST_F(ScrubTest, ADeviceThatErrs) {
  object(".pack");
  objects_.set_read_hook([&](const std::string& key, uint64_t offset, MutableBytes) {
    return key == key_ && offset == 4096 ? io_error("the device erred") : ok_status();
  });
  expect_found(ScrubDepth::kChecksums, "the device erred");
}

TEST_F(ScrubTest, AFaultThatPassesIsNotDamage) {
  int reads = 0;
  objects_.set_read_hook([&](const std::string& key, uint64_t offset, MutableBytes bytes) {
    if (key.ends_with(".pack") && offset == 4096 && reads++ == 0) bytes[5000] ^= std::byte{1};
    return ok_status();
  });
  EXPECT_EQ(scrub(ScrubDepth::kChecksums).damaged, 0u);
  EXPECT_GT(reads, 1);
}

TEST_F(ScrubTest, EveryFlippedByteThatARestoreNeedsIsFound) {
  std::mt19937_64 random(17);
  for (auto& [key, bytes] : objects_.objects()) {
    for (int i = 0; i < 40; ++i) {
      const size_t at = random() % bytes.size();
      SCOPED_TRACE(key + " at " + std::to_string(at));
      const std::byte original = bytes[at];
      bytes[at] ^= static_cast<std::byte>(1u << random() % 8);
      const ScrubReport report = scrub(ScrubDepth::kFull);
      // Only the padding of packs is under no checksum: it says nothing.
      if (report.damaged == 0) {
        EXPECT_TRUE(key.ends_with(".pack"));
        EXPECT_EQ(original, std::byte{0});
      } else {
        EXPECT_EQ(report.findings[0].object, key);
      }
      bytes[at] = original;
    }
  }
}

TEST_F(ScrubTest, AnotherCheckpointWithTheSameDamagedPackIsToldToo) {
  flip(object(".pack"), 8192);
  Scrubber scrubber(objects_, budget_,
                    {.depth = ScrubDepth::kChecksums, .progress = {}, .stop = {}});
  ASSERT_TRUE(scrubber.check_checkpoint("run/1", root_).ok());
  const uint64_t bytes_read = scrubber.report().bytes_read;
  ASSERT_TRUE(scrubber.check_checkpoint("run/1", root_).ok());
  ASSERT_EQ(scrubber.report().damaged, 2u);
  EXPECT_THAT(scrubber.report().findings[1].what, HasSubstr("reported for run/1"));
  EXPECT_LT(scrubber.report().bytes_read, bytes_read * 2) << "a pack was read twice";
}

TEST_F(ScrubTest, WhatNothingRefersToIsHarmless) {
  sim::write_tiny_checkpoint(objects_, {random_tensor("x", kF32, {100}, {100}, 5)}, {.save = 2});
  sim::write_tiny_checkpoint(objects_, {random_tensor("x", kF32, {100}, {100}, 5)}, {.save = 3});
  ASSERT_TRUE(objects_.put_new("tmp/left", {}).ok());
  Scrubber scrubber(objects_, budget_,
                    {.depth = ScrubDepth::kStructure, .progress = {}, .stop = {}});
  ASSERT_TRUE(scrubber.check_checkpoint("run/1", root_).ok());
  Uuid in_progress = root_.object.save;
  in_progress.bytes[0] = std::byte{3};
  ASSERT_TRUE(scrubber.find_orphans({&in_progress, 1}).ok());
  EXPECT_EQ(scrubber.report().damaged, 0u);
  EXPECT_EQ(scrubber.report().harmless, 5u);  // pack, part, directory, root, temporary file
  for (const ScrubFinding& finding : scrubber.report().findings) {
    EXPECT_FALSE(finding.damage);
    EXPECT_THAT(finding.what, HasSubstr("caisson gc"));
  }
}

TEST_F(ScrubTest, StopsWhenAsked) {
  std::stop_source stop;
  stop.request_stop();
  Scrubber scrubber(objects_, budget_,
                    {.depth = ScrubDepth::kFull, .progress = {}, .stop = stop.get_token()});
  EXPECT_EQ(scrubber.check_checkpoint("run/1", root_).code(), StatusCode::kCancelled);
}

}  // namespace
}  // namespace caisson

#include "engine/coverage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

namespace caisson {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// A tensor of u8 whose shards each have one piece a row.
class Cover {
 public:
  explicit Cover(std::initializer_list<uint64_t> extents) {
    tensor_.spec = {
        "layer.0.w", {DTypeCode::kUInt, 8}, Shape::of({extents.begin(), extents.size()})};
    tensor_.tile = tensor_.spec.shape;
  }
  // Shard of part `part` (rank 100 + part), all pieces of it unless told otherwise.
  Cover& shard(uint32_t part, std::initializer_list<uint64_t> offset,
               std::initializer_list<uint64_t> extent, uint64_t first = 0,
               uint64_t pieces = UINT64_MAX) {
    ShardRecord record;
    record.part = part;
    record.box.rank = tensor_.spec.shape.rank;
    std::copy(offset.begin(), offset.end(), record.box.offset.begin());
    std::copy(extent.begin(), extent.end(), record.box.extent.begin());
    record.grid.rank = record.box.rank;
    record.grid.cell = tensor_.spec.shape.dims;
    for (uint64_t& cell : record.grid.cell) cell = std::max<uint64_t>(cell, 1);
    record.grid.cell[0] = 1;
    record.first_piece = first;
    record.pieces = pieces == UINT64_MAX && contains(tensor_.spec.shape, record.box)
                        ? piece_count(record.grid, record.box)
                        : pieces;
    tensor_.shards.push_back(record);
    return *this;
  }
  TensorRecord& record() { return tensor_; }
  Status check() const {
    const uint32_t ranks[] = {100, 101, 102, 103};
    return check_coverage(tensor_, ranks);
  }
  std::string message() const { return check().to_string(); }

 private:
  TensorRecord tensor_;
};

TEST(Coverage, AcceptsWholeTensors) {
  EXPECT_EQ(Cover({4, 4}).shard(0, {0, 0}, {4, 4}).message(), "ok");
  EXPECT_EQ(Cover({}).shard(0, {}, {}).message(), "ok");
  EXPECT_EQ(Cover({4, 0}).message(), "ok");
  EXPECT_EQ(Cover({4, 0}).shard(0, {1, 0}, {2, 0}).shard(1, {1, 0}, {2, 0}).message(), "ok");
  // A pinwheel: no axis separates any of its five boxes.
  EXPECT_EQ(Cover({3, 3})
                .shard(0, {0, 0}, {1, 2})
                .shard(1, {0, 2}, {2, 1})
                .shard(2, {2, 1}, {1, 2})
                .shard(3, {1, 0}, {2, 1})
                .shard(0, {1, 1}, {1, 1})
                .message(),
            "ok");
}

TEST(Coverage, NamesTheMissingBox) {
  EXPECT_THAT(Cover({4, 4}).message(), AllOf(HasSubstr("layer.0.w"), HasSubstr("[0:4, 0:4]")));
  EXPECT_THAT(Cover({}).message(), HasSubstr("no rank holds"));
  EXPECT_THAT(
      Cover({4, 4}).shard(0, {0, 0}, {2, 4}).shard(1, {3, 0}, {1, 4}).message(),
      AllOf(HasSubstr("layer.0.w"), HasSubstr("[2:3, 0:4]"), HasSubstr("rank 100, rank 101")));
  EXPECT_THAT(Cover({3, 3})
                  .shard(0, {0, 0}, {1, 2})
                  .shard(1, {0, 2}, {2, 1})
                  .shard(2, {2, 1}, {1, 2})
                  .shard(3, {1, 0}, {2, 1})
                  .message(),
              HasSubstr("[1:2, 1:2]"));
}

TEST(Coverage, NamesBothRanksOfAnOverlap) {
  EXPECT_THAT(Cover({4, 4}).shard(2, {0, 0}, {3, 4}).shard(1, {2, 0}, {2, 4}).message(),
              AllOf(HasSubstr("layer.0.w"), HasSubstr("rank 101"), HasSubstr("rank 102"),
                    HasSubstr("[2:3, 0:4]")));
  // As much held twice as is missing: the volumes alone would agree.
  EXPECT_THAT(Cover({4, 4}).shard(0, {0, 0}, {2, 4}).shard(1, {1, 0}, {2, 4}).message(),
              HasSubstr("overlap"));
  EXPECT_THAT(Cover({4, 4}).shard(0, {0, 0}, {4, 4}).shard(3, {0, 0}, {4, 4}).message(),
              AllOf(HasSubstr("rank 100"), HasSubstr("again by rank 103"), HasSubstr("replica")));
}

TEST(Coverage, ReplicasHoldEveryPieceOnce) {
  EXPECT_EQ(Cover({4, 4}).shard(0, {0, 0}, {4, 4}, 0, 1).shard(1, {0, 0}, {4, 4}, 1, 3).message(),
            "ok");
  EXPECT_EQ(
      Cover({4}).shard(0, {0}, {4}, 0, 0).shard(1, {0}, {4}).shard(2, {0}, {4}, 4, 0).message(),
      "ok");
  EXPECT_THAT(Cover({4, 4}).shard(0, {0, 0}, {4, 4}, 0, 1).shard(1, {0, 0}, {4, 4}, 2, 2).message(),
              AllOf(HasSubstr("[1:2, 0:4]"), HasSubstr("rank 101")));
  EXPECT_THAT(Cover({4, 4}).shard(0, {0, 0}, {4, 4}, 0, 3).message(),
              AllOf(HasSubstr("[3:4, 0:4]"), HasSubstr("rank 100")));
  EXPECT_THAT(Cover({4, 4}).shard(0, {0, 0}, {4, 4}, 0, 3).shard(1, {0, 0}, {4, 4}, 2, 2).message(),
              AllOf(HasSubstr("rank 100"), HasSubstr("rank 101")));
  Cover cover({4, 4});
  cover.shard(0, {0, 0}, {4, 4}, 0, 1).shard(1, {0, 0}, {4, 4}, 1, 1);
  cover.record().shards[1].grid.cell[0] = 2;
  EXPECT_THAT(cover.message(), HasSubstr("different pieces"));
}

TEST(Coverage, RefusesShardsThatAreWrongInThemselves) {
  EXPECT_THAT(Cover({4, 4}).shard(1, {0, 0}, {4, 5}, 0, 4).message(), HasSubstr("rank 101"));
  EXPECT_THAT(Cover({4, 4}).shard(1, {0, 0}, {4, 4}, 1, 4).message(), HasSubstr("which has 4"));
  EXPECT_THAT(Cover({4, 4}).shard(1, {0, 0}, {4, 4}, 1, UINT64_MAX - 1).message(),
              HasSubstr("which has 4"));
  Cover cover({4, 4});
  cover.shard(0, {0, 0}, {4, 4}).record().shards[0].grid.cell[1] = 0;
  EXPECT_EQ(cover.check().code(), StatusCode::kInvalidArgument);
}

// Deep one-box-a-round layouts must not recurse as deep as they have boxes.
TEST(Coverage, TakesALongStaircase) {
  constexpr uint64_t kSteps = 2000;
  Cover cover({kSteps, kSteps});
  for (uint64_t i = 0; i + 1 < kSteps; ++i) {
    cover.shard(0, {i, i}, {1, kSteps - i}).shard(1, {i + 1, i}, {kSteps - i - 1, 1});
  }
  cover.shard(2, {kSteps - 1, kSteps - 1}, {1, 1});
  EXPECT_EQ(cover.message(), "ok");
}

// A million shards: rows over 1,024 ranks, as sharded training holds them. Quadratic work would
// exceed the suite's time limit.
TEST(Coverage, TakesAMillionShards) {
  constexpr uint64_t kRanks = 1024;
  Cover cover({kRanks * 16, 128});
  for (uint64_t i = 0; i < kRanks; ++i) {
    cover.shard(static_cast<uint32_t>(i * 389 % kRanks), {i * 389 % kRanks * 16, 0}, {16, 128});
  }
  std::vector<uint32_t> ranks(kRanks);
  std::iota(ranks.begin(), ranks.end(), 0u);
  for (int tensor = 0; tensor < 1024; ++tensor) {
    ASSERT_TRUE(check_coverage(cover.record(), ranks).ok());
  }
}

}  // namespace
}  // namespace caisson

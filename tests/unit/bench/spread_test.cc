#include "bench/spread.h"

#include <gtest/gtest.h>

namespace caisson::bench {
namespace {

TEST(Spread, GivesMedianAndQuartiles) {
  const Spread spread = spread_of({5, 1, 4, 2, 3});
  EXPECT_DOUBLE_EQ(spread.median, 3);
  EXPECT_DOUBLE_EQ(spread.q1, 2);
  EXPECT_DOUBLE_EQ(spread.q3, 4);
  EXPECT_DOUBLE_EQ(spread.min, 1);
  EXPECT_DOUBLE_EQ(spread.max, 5);
}

TEST(Spread, InterpolatesBetweenNeighbours) {
  EXPECT_DOUBLE_EQ(spread_of({1, 2}).median, 1.5);
  EXPECT_DOUBLE_EQ(spread_of({7}).q3, 7);
}

TEST(Spread, PairsRoundByRound) {
  const std::vector<double> ratios = paired_ratios({2, 9}, {1, 3});
  EXPECT_DOUBLE_EQ(ratios[0], 2);
  EXPECT_DOUBLE_EQ(ratios[1], 3);
}

}  // namespace
}  // namespace caisson::bench

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
  EXPECT_DOUBLE_EQ(spread_of({1, 2, 3, 4}).q1, 1.75);
  EXPECT_DOUBLE_EQ(spread_of({7}).q3, 7);
}

TEST(Spread, PairsRoundByRound) {
  const std::vector<double> ratios = paired_ratios({2, 9}, {1, 3});
  EXPECT_DOUBLE_EQ(ratios[0], 2);
  EXPECT_DOUBLE_EQ(ratios[1], 3);
}

TEST(Spread, SlopeIsTheExponent) {
  EXPECT_NEAR(log_log_slope({1, 10, 100}, {5, 50, 500}), 1, 1e-12);
  EXPECT_NEAR(log_log_slope({1, 2, 4, 8}, {3, 12, 48, 192}), 2, 1e-12);
  EXPECT_NEAR(log_log_slope({1, 10, 100}, {7, 7, 7}), 0, 1e-12);
  EXPECT_EQ(log_log_slope({10}, {7}), 0);
  EXPECT_EQ(log_log_slope({10, 10}, {7, 9}), 0);  // no line through one place
}

TEST(Spread, DiffersOnlyWhereTheQuartilesHaveNothingInCommon) {
  const Spread low = spread_of({1, 2, 3});
  EXPECT_TRUE(differ_beyond_spread(low, spread_of({4, 5, 6})));
  EXPECT_TRUE(differ_beyond_spread(spread_of({4, 5, 6}), low));
  EXPECT_FALSE(differ_beyond_spread(low, spread_of({2, 3, 4})));
  EXPECT_FALSE(differ_beyond_spread(low, low));
}

}  // namespace
}  // namespace caisson::bench

// Medians and quartiles of a few rounds, ratios taken pair by pair, slopes, and whether two runs
// differ by more than their spreads: a shared machine drifts, so only what was measured in the same
// round is compared. Pure.
#pragma once

#include <vector>

namespace caisson::bench {

struct Spread {
  double median = 0, q1 = 0, q3 = 0, min = 0, max = 0;
};

// REQUIRES: samples is not empty.
Spread spread_of(std::vector<double> samples);
// a[i] / b[i] for every round. REQUIRES: equal sizes.
std::vector<double> paired_ratios(const std::vector<double>& a, const std::vector<double>& b);
// Slope of the least-squares line through (log x, log y): 1 where y grows as x does. 0 for fewer
// than two points. REQUIRES: equal sizes, all values positive.
double log_log_slope(const std::vector<double>& x, const std::vector<double>& y);
// True when the ranges between the quartiles have nothing in common: a difference that neither
// run's own spread explains.
bool differ_beyond_spread(const Spread& a, const Spread& b);

}  // namespace caisson::bench

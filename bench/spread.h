// Medians and quartiles of a few rounds, and ratios taken pair by pair: a shared machine drifts, so
// only what was measured in the same round is compared. Pure.
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

}  // namespace caisson::bench

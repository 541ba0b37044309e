#include "bench/spread.h"

#include <algorithm>
#include <cmath>

#include "io/base/check.h"

namespace caisson::bench {

Spread spread_of(std::vector<double> samples) {
  CAISSON_CHECK(!samples.empty());
  std::sort(samples.begin(), samples.end());
  const auto quantile = [&](double q) {
    const double place = q * static_cast<double>(samples.size() - 1);
    const auto below = static_cast<size_t>(std::floor(place));
    const auto above = std::min(below + 1, samples.size() - 1);
    const double share = place - std::floor(place);
    return samples[below] * (1 - share) + samples[above] * share;
  };
  return {quantile(0.5), quantile(0.25), quantile(0.75), samples.front(), samples.back()};
}

std::vector<double> paired_ratios(const std::vector<double>& a, const std::vector<double>& b) {
  CAISSON_CHECK(a.size() == b.size());
  std::vector<double> ratios;
  ratios.reserve(a.size());
  for (size_t i = 0; i < a.size(); ++i) ratios.push_back(a[i] / b[i]);
  return ratios;
}

double log_log_slope(const std::vector<double>& x, const std::vector<double>& y) {
  CAISSON_CHECK(x.size() == y.size());
  if (x.size() < 2) return 0;
  double mean_x = 0, mean_y = 0;
  for (size_t i = 0; i < x.size(); ++i) mean_x += std::log(x[i]), mean_y += std::log(y[i]);
  mean_x /= static_cast<double>(x.size());
  mean_y /= static_cast<double>(x.size());
  double covariance = 0, variance = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    covariance += (std::log(x[i]) - mean_x) * (std::log(y[i]) - mean_y);
    variance += (std::log(x[i]) - mean_x) * (std::log(x[i]) - mean_x);
  }
  return variance > 0 ? covariance / variance : 0;
}

bool differ_beyond_spread(const Spread& a, const Spread& b) { return a.q3 < b.q1 || b.q3 < a.q1; }

}  // namespace caisson::bench

// A bench report as JSON and back (docs/operations.md, "caisson.bench/2"), and two of them
// compared. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/bench_run.h"
#include "bench/spread.h"

namespace caisson::bench {

nlohmann::ordered_json json_of(const BenchReport& report);
// kInvalidArgument says what is not as it should be.
Result<BenchReport> report_of(const std::string& json);

// A metric that two runs both have.
struct Difference {
  std::string case_name;
  Metric metric;  // of the newer run
  Spread before, now;
  bool beyond_spread = false;
  bool better = false;  // by its median; only means something beyond the spread
};
// Comparable metrics of both, in the order of `now`.
std::vector<Difference> compare(const BenchReport& before, const BenchReport& now);

// Whether its median reaches the target; true without one.
bool meets_target(const MetricSamples& metric);

struct TargetCount {
  size_t met = 0, all = 0;
};
TargetCount count_targets(const BenchReport& report);

}  // namespace caisson::bench

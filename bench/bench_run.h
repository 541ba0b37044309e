// Drives the cases in interleaved rounds and gives the report: what `caisson bench` prints.
// Single-threaded driver.
#pragma once

#include <string>
#include <vector>

#include "bench/case.h"

namespace caisson::bench {

struct CaseResult {
  std::string name;
  std::string summary;
  std::vector<MetricSamples> metrics;

  const MetricSamples* find(std::string_view metric) const;
};

// A case that this machine cannot do, and why.
struct SkippedCase {
  std::string name, why;
};

struct BenchReport {
  std::string machine;  // processor, cores, memory, kernel
  std::string directory;
  std::string io_engine;
  uint64_t bytes = 0;
  uint32_t rounds = 0;
  double seconds = 0;  // that the whole run took
  // First "limit", what the device did in the rounds of all groups; then the cases.
  std::vector<CaseResult> cases;
  std::vector<SkippedCase> skipped;

  const CaseResult* find(std::string_view name) const;
};

// kNoSpace or kOutOfMemory, naming the case, before anything is written when space lacks.
Result<BenchReport> run_bench(const BenchOptions& options);

}  // namespace caisson::bench

// Whole saves and restores against the device limit, in interleaved rounds of one process: what
// `caisson bench DIR` prints. Single-threaded driver.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/spread.h"
#include "caisson/options.h"
#include "caisson/result.h"

namespace caisson::bench {

struct StoreBenchOptions {
  std::string directory;        // on the device to measure; must exist
  uint64_t bytes = 2ull << 30;  // of incompressible tensors
  uint32_t rounds = 9;
  double settle_seconds = 1.0;  // after deletions, which go on hurting the device
  StoreOptions store;
  std::function<void(uint32_t round, uint32_t rounds)> progress;
};

// One thing that every round measures, in seconds; and against which other, if any.
struct StoreBenchCase {
  std::string name;     // "save", "restore, verified", "write limit, fresh file", ...
  std::string against;  // name of the case that its ratio refers to; empty: none
  std::vector<double> seconds;
  std::vector<double> cpu_seconds;
  uint64_t extra_memory_bytes = 0;  // peak beyond what was resident before, the worst round
};

struct StoreBenchReport {
  std::string machine;  // processor, cores, memory, kernel
  std::string target;   // directory and I/O engine
  uint64_t bytes = 0;
  uint32_t rounds = 0;
  std::vector<StoreBenchCase> cases;

  const StoreBenchCase* find(const std::string& name) const;
  // against / case, round by round: 0.9 means nine tenths of the other's speed.
  std::vector<double> speed_ratios(const StoreBenchCase& of) const;
};

Result<StoreBenchReport> run_store_bench(const StoreBenchOptions& options);

}  // namespace caisson::bench

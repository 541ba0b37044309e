// What a case of the bench is: something that every round does once, and measures. The table of all
// of them is in case_table.cc; workbench.h is what they work with; bench_run.cc drives the rounds.
// Single-threaded, as all of the driver is.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/options.h"
#include "caisson/result.h"

namespace caisson::bench {

enum class Better : uint8_t { kHigher, kLower };

// What one number means. Two runs are compared metric by metric.
struct Metric {
  std::string name;  // "ratio": unique within its case
  std::string unit;  // "of L", "s/GB", "MiB", "ms", "GB/s"
  Better better = Better::kHigher;
  std::optional<double> target;  // to reach, or to stay below
  // Set against something measured in the same round, or independent of the device: comparable
  // between runs. Plain rates are not, they drift with the machine.
  bool comparable = true;
};

struct MetricSamples {
  Metric metric;
  std::vector<double> samples;  // one a round
};

// The device limits of this round in bytes a second; 0 when the case's group measures none.
struct Limits {
  double write = 0;
  double read = 0;
};

class Round {
 public:
  Round(uint32_t number_in, Limits limits_in, std::vector<MetricSamples>* metrics)
      : number(number_in), limits(limits_in), metrics_(metrics) {}
  // Keeps one sample; nothing in a warm-up round.
  void add(const Metric& metric, double value);

  const uint32_t number;  // from 0, the warm-up
  const Limits limits;

 private:
  std::vector<MetricSamples>* metrics_;  // null: warm-up
};

struct BenchOptions {
  std::string directory;                   // on the device to measure; must exist
  std::vector<std::string> directories{};  // further ones: of a store that spans several devices
  std::vector<std::string> cases;          // names, "quick" or "all"
  uint64_t bytes = 2ull << 30;             // of tensors in most cases
  uint64_t large_bytes = 8ull << 30;       // of the one tensor of save-large
  std::string state;                       // safetensors file of a training state; may be empty
  uint64_t store_bytes = 19200ull << 20;   // of the store that find reads one tensor of
  uint32_t rounds = 9;                     // after one that warms up and does not count
  double settle_seconds = 1.0;             // after deletions, which go on hurting the device
  StoreOptions store;
  std::stop_token stop;
  std::function<void(const std::string& what)> progress;
};

struct Needs {
  uint64_t disk_bytes = 0;
  uint64_t memory_bytes = 0;
};

class Workbench;

class Case {
 public:
  virtual ~Case() = default;
  // Before the first round, not timed.
  virtual Status prepare(Workbench&) { return {}; }
  // Does it once. Whatever takes device space and is not needed again is gone when it returns.
  virtual Status run(Workbench& bench, Round& round) = 0;
};

// Cases of one group share rounds, tensors and limits.
enum class Group : uint8_t {
  kSave,
  kRestore,
  kEngines,
  kRanks,
  kLarge,
  kConfined,
  kFind,
  kAsync,
  kGrowth,
  kState,
  kStateRestore
};

// For a case that is there to be compared with: how many times as fast `faster` must be.
struct Versus {
  std::string_view faster;  // name of a case; empty: none
  double target = 0;
};

struct CaseEntry {
  std::string_view name;
  Group group;
  bool quick;  // without --case
  std::string_view summary;
  Needs (*needs)(const BenchOptions& options);
  std::unique_ptr<Case> (*make)();
  Versus versus{};
};

// In the order of the report.
const std::vector<CaseEntry>& case_table();
// Entries for names, "quick" and "all", each once, in the table's order. kInvalidArgument names the
// stranger.
Result<std::vector<const CaseEntry*>> choose_cases(const std::vector<std::string>& names);

}  // namespace caisson::bench

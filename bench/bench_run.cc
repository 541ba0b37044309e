#include "bench/bench_run.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "bench/spread.h"
#include "bench/workbench.h"
#include "caisson/metrics.h"
#include "io/posix_file_system.h"

namespace caisson::bench {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMemoryReserve = 512u << 20;  // beside tensors: staging, limits, the host

bool measures_write(Group group) {
  return group == Group::kSave || group == Group::kEngines || group == Group::kRanks ||
         group == Group::kLarge || group == Group::kConfined || group == Group::kState;
}
bool measures_read(Group group) {
  return group == Group::kRestore || group == Group::kRanks || group == Group::kFind ||
         group == Group::kStateRestore;
}

// What the kernel thinks can be had without swapping; 0 where it does not say.
uint64_t memory_available() {
  std::ifstream in("/proc/meminfo");
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("MemAvailable:")) return std::stoull(line.substr(13)) * 1024;
  }
  return 0;
}

std::string mebibytes(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

Status check_needs(const BenchOptions& options, const CaseEntry& entry) {
  const Needs needs = entry.needs(options);
  const std::string what = "bench: case " + std::string(entry.name) + " needs ";
  std::vector<std::string> directories = {options.directory};
  directories.insert(directories.end(), options.directories.begin(), options.directories.end());
  for (const std::string& directory : directories) {
    std::error_code error;
    const fs::space_info space = fs::space(directory, error);
    if (error) return io_error(directory + ": " + error.message());
    const uint64_t share = needs.disk_bytes / directories.size();
    if (space.available < share) {
      return no_space(what + mebibytes(share) + " free in " + directory + " and there are " +
                      mebibytes(space.available) + "; choose a smaller --size");
    }
  }
  const uint64_t available = memory_available();
  const uint64_t memory = needs.memory_bytes + kMemoryReserve;
  if (available > 0 && available < memory) {
    return out_of_memory(what + mebibytes(memory) + " of memory and " + mebibytes(available) +
                         " are available; choose a smaller --size");
  }
  return {};
}

std::string directory_words(const BenchOptions& options) {
  std::string words = options.directory;
  for (const std::string& further : options.directories) words += " and " + further;
  return words;
}

Status check_options(const BenchOptions& options) {
  if (options.rounds == 0) return invalid_argument("bench: at least one round");
  for (const uint64_t bytes : {options.bytes, options.large_bytes, options.store_bytes}) {
    if (bytes < kTensorBytes || bytes % kTensorBytes != 0) {
      return invalid_argument("bench: sizes are multiples of 64MiB");
    }
  }
  return {};
}

struct RunningCase {
  std::unique_ptr<Case> one;
  CaseResult result;
};

class BenchRun {
 public:
  BenchRun(const BenchOptions& options, BenchReport& report) : options_(options), report_(report) {}

  // The cases of one group: prepared in turn, then all in every round.
  Status run_group(std::span<const CaseEntry* const> entries);

 private:
  Status skips(std::vector<RunningCase>& cases, size_t which, const Status& status);
  Result<Limits> measure_limits(Workbench& bench, Group group, uint32_t number);
  void tell(const std::string& what) const {
    if (options_.progress) options_.progress(what);
  }

  const BenchOptions& options_;
  BenchReport& report_;
};

Result<Limits> BenchRun::measure_limits(Workbench& bench, Group group, uint32_t number) {
  Limits limits;
  Round round(number, limits, number == 0 ? nullptr : &report_.cases.front().metrics);
  if (measures_write(group)) {
    CAISSON_ASSIGN_OR_RETURN(limits.write, bench.write_limit());
    round.add({.name = "write", .unit = "GB/s", .comparable = false}, limits.write * 1e-9);
  }
  if (measures_read(group)) {
    CAISSON_ASSIGN_OR_RETURN(limits.read, bench.read_limit());
    round.add({.name = "read", .unit = "GB/s", .comparable = false}, limits.read * 1e-9);
  }
  return limits;
}

Status BenchRun::run_group(std::span<const CaseEntry* const> entries) {
  const Group group = entries.front()->group;
  BenchOptions options = options_;
  if (options.store.metrics == nullptr) {
    options.store.metrics = std::make_shared<Metrics>();  // of the group's stores alone
  }
  CAISSON_ASSIGN_OR_RETURN(
      const auto bench, Workbench::create(options, "caisson-bench-" + std::to_string(::getpid())));
  std::vector<RunningCase> cases;
  for (const CaseEntry* entry : entries) {
    tell("preparing " + std::string(entry->name));
    cases.push_back({entry->make(), {std::string(entry->name), std::string(entry->summary), {}}});
    CAISSON_RETURN_IF_ERROR(skips(cases, cases.size() - 1, cases.back().one->prepare(*bench)));
    CAISSON_RETURN_IF_ERROR(bench->check_stop());
  }
  for (uint32_t number = 0; number <= options_.rounds && !cases.empty(); ++number) {
    const std::string where =
        number == 0 ? "warming up"
                    : "round " + std::to_string(number) + " of " + std::to_string(options_.rounds);
    tell(where + ": device limit");
    CAISSON_ASSIGN_OR_RETURN(const Limits limits, measure_limits(*bench, group, number));
    // The order turns from round to round, so that no case always follows the same neighbour.
    const size_t count = cases.size();
    for (size_t i = 0; i < count && !cases.empty(); ++i) {
      const size_t which = (i + number) % cases.size();
      tell(where + ": " + cases[which].result.name);
      Round round(number, limits, number == 0 ? nullptr : &cases[which].result.metrics);
      CAISSON_RETURN_IF_ERROR(skips(cases, which, cases[which].one->run(*bench, round)));
    }
  }
  for (RunningCase& done : cases) report_.cases.push_back(std::move(done.result));
  return {};
}

// Takes a case out that this machine cannot do; hands on every other status.
Status BenchRun::skips(std::vector<RunningCase>& cases, size_t which, const Status& status) {
  if (status.ok()) return status;
  const std::string name = cases[which].result.name;
  if (status.code() != StatusCode::kUnsupported) return status.with_context(name);
  report_.skipped.push_back({name, std::string(status.message())});
  cases.erase(cases.begin() + static_cast<ptrdiff_t>(which));
  return {};
}

void add_comparisons(std::span<const CaseEntry* const> entries, BenchReport& report) {
  for (const CaseEntry* entry : entries) {
    if (entry->versus.faster.empty()) continue;
    const CaseResult* faster = report.find(entry->versus.faster);
    const auto slow = std::find_if(report.cases.begin(), report.cases.end(),
                                   [&](const CaseResult& c) { return c.name == entry->name; });
    if (faster == nullptr || slow == report.cases.end()) continue;
    CaseResult& slower = *slow;
    const std::vector<double>& a = faster->find("rate")->samples;
    const std::vector<double>& b = slower.find("rate")->samples;
    slower.metrics.insert(slower.metrics.begin(),
                          {{.name = std::string(entry->versus.faster) + " against it",
                            .unit = "x",
                            .target = entry->versus.target},
                           paired_ratios(a, b)});
  }
}

}  // namespace

void Round::add(const Metric& metric, double value) {
  if (metrics_ == nullptr) return;
  auto known = std::find_if(metrics_->begin(), metrics_->end(),
                            [&](const MetricSamples& m) { return m.metric.name == metric.name; });
  if (known == metrics_->end()) known = metrics_->insert(metrics_->end(), {metric, {}});
  known->samples.push_back(value);
}

const MetricSamples* CaseResult::find(std::string_view metric) const {
  const auto found = std::find_if(metrics.begin(), metrics.end(),
                                  [&](const MetricSamples& m) { return m.metric.name == metric; });
  return found == metrics.end() ? nullptr : &*found;
}

const CaseResult* BenchReport::find(std::string_view name) const {
  const auto found =
      std::find_if(cases.begin(), cases.end(), [&](const CaseResult& c) { return c.name == name; });
  return found == cases.end() ? nullptr : &*found;
}

Result<BenchReport> run_bench(const BenchOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  CAISSON_RETURN_IF_ERROR(check_options(options));
  CAISSON_ASSIGN_OR_RETURN(const std::vector<const CaseEntry*> entries,
                           choose_cases(options.cases));
  for (const CaseEntry* entry : entries) CAISSON_RETURN_IF_ERROR(check_needs(options, *entry));
  CAISSON_ASSIGN_OR_RETURN(const auto files, make_posix_file_system(options.store.io_engine));
  BenchReport report{.machine = machine_words(),
                     .directory = directory_words(options),
                     .io_engine = files->io_engine(),
                     .bytes = options.bytes,
                     .rounds = options.rounds,
                     .cases = {{"limit", "what the device does with nothing else to do", {}}},
                     .skipped = {}};
  BenchRun run(options, report);
  for (size_t first = 0; first < entries.size();) {
    size_t end = first;
    while (end < entries.size() && entries[end]->group == entries[first]->group) ++end;
    CAISSON_RETURN_IF_ERROR(run.run_group(std::span(entries).subspan(first, end - first)));
    first = end;
  }
  add_comparisons(entries, report);
  if (report.cases.front().metrics.empty()) report.cases.erase(report.cases.begin());
  report.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return report;
}

}  // namespace caisson::bench

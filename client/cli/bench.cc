// caisson bench: what this device can do, and how near saves and restores come to it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "bench/metadata_bench.h"
#include "bench/report_json.h"
#include "client/cli/commands.h"
#include "client/cli/text.h"

namespace caisson::cli {
namespace {

using bench::BenchReport;
using bench::CaseResult;
using bench::MetadataBenchReport;
using bench::MetadataScale;
using bench::MetricSamples;
using bench::Spread;

// Three digits, whatever the size.
std::string number(double value) {
  const double size = std::abs(value);
  if (size >= 100 || value == 0) return fmt::format("{:.0f}", value);
  return size >= 10 ? fmt::format("{:.1f}", value)
                    : fmt::format("{:.{}f}", value, size >= 1 ? 2 : 3);
}

std::string target_of(const bench::Metric& metric) {
  if (!metric.target) return "";
  return fmt::format("{} {}",
                     metric.better == bench::Better::kHigher ? ">=" : "<=", number(*metric.target));
}

void print(const BenchReport& report) {
  fmt::print(
      "{}\n{}, {}\n{} of incompressible tensors, {} rounds; L is what the device does with "
      "nothing else to do\n\n",
      report.machine, printable(report.directory), printable(report.io_engine),
      human_bytes(report.bytes), report.rounds);
  Table table({"CASE", "METRIC", "MEDIAN", "[Q1-Q3]", "UNIT", "TARGET", ""},
              {false, false, true, false, false, false, false});
  for (const CaseResult& one : report.cases) {
    bool first = true;
    for (const MetricSamples& metric : one.metrics) {
      const Spread spread = bench::spread_of(metric.samples);
      table.add({std::exchange(first, false) ? one.name : "", metric.metric.name,
                 number(spread.median),
                 fmt::format("[{}-{}]", number(spread.q1), number(spread.q3)), metric.metric.unit,
                 target_of(metric.metric),
                 !metric.metric.target         ? ""
                 : bench::meets_target(metric) ? "met"
                                               : "MISSED"});
    }
  }
  table.print();
}

Json json_of(const MetadataBenchReport& report) {
  Json scales = Json::array();
  for (const MetadataScale& scale : report.scales) {
    scales.push_back({{"tiles", scale.tiles},
                      {"write_seconds", scale.write_seconds},
                      {"commit_seconds", scale.commit_seconds},
                      {"find_seconds", scale.find_seconds},
                      {"index_seconds", scale.index_seconds},
                      {"bytes_per_tile", scale.bytes_per_tile},
                      {"peak_memory_bytes", scale.peak_memory_bytes}});
  }
  return {{"schema", "caisson.bench.metadata/1"},
          {"machine", report.machine},
          {"scales", std::move(scales)},
          {"commit_slope", report.commit_slope},
          {"memory_slope", report.memory_slope},
          {"log_records", report.log_records},
          {"log_open_seconds", report.log_open_seconds},
          {"log_open_seconds_replayed", report.log_open_seconds_replayed}};
}

void print(const MetadataBenchReport& report) {
  fmt::print("{}\n\n", report.machine);
  Table table({"TILES", "WRITE", "COMMIT", "FIND ONE", "INDEX", "INDEX RATE", "BYTES/TILE", "PEAK"},
              {true, true, true, true, true, true, true, true});
  for (const MetadataScale& scale : report.scales) {
    table.add(
        {std::to_string(scale.tiles), fmt::format("{:.3f} s", scale.write_seconds),
         fmt::format("{:.3f} s", scale.commit_seconds),
         fmt::format("{:.2f} ms", scale.find_seconds * 1e3),
         fmt::format("{:.3f} s", scale.index_seconds),
         fmt::format("{:.2f} M/s", static_cast<double>(scale.tiles) / scale.index_seconds * 1e-6),
         fmt::format("{:.1f}", scale.bytes_per_tile), human_bytes(scale.peak_memory_bytes)});
  }
  table.print();
  fmt::print(
      "\nlog-log slope from 100,000 tiles on: time {:.2f}, memory {:.2f}\n"
      "log of {} records: opens in {:.3f} s through its snapshot, {:.3f} s without\n",
      report.commit_slope, report.memory_slope, report.log_records, report.log_open_seconds,
      report.log_open_seconds_replayed);
}

class BenchCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("directory", directory_, "An existing directory on the device to measure")
        ->required();
    app.add_option("--size", size_, "Bytes of tensors in every round, a multiple of 64MiB")
        ->capture_default_str();
    app.add_option("--rounds", rounds_, "Interleaved rounds; the medians are printed")
        ->capture_default_str();
    app.add_option("--case", cases_, "A case by name, \"quick\" or \"all\"; may be repeated")
        ->capture_default_str();
    app.add_flag("--metadata", metadata_,
                 "Instead: how commit, look-up, index and log grow with the number of tiles");
    app.add_option("--tiles-max", tiles_max_, "With --metadata: the largest checkpoint")
        ->capture_default_str();
  }

  Result<int> run(const Session& session) override {
    return metadata_ ? run_metadata(session) : run_store(session);
  }

 private:
  static bool shows_progress(const Session& session) {
    return !session.globals.json && !session.globals.quiet;
  }

  Result<int> run_store(const Session& session) {
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes, parse_bytes(size_));
    bench::BenchOptions options{.directory = directory_,
                                .cases = cases_,
                                .bytes = bytes,
                                .rounds = rounds_,
                                .store = session.store_options(true),
                                .stop = session.stop,
                                .progress = {}};
    if (shows_progress(session)) {
      options.progress = [](const std::string& what) { fmt::print(stderr, "{}\n", what); };
    }
    options.store_bytes -= options.store_bytes % (64 << 20);
    CAISSON_ASSIGN_OR_RETURN(const BenchReport report, bench::run_bench(options));
    session.globals.json ? print_json(bench::json_of(report)) : print(report);
    return 0;
  }

  Result<int> run_metadata(const Session& session) {
    bench::MetadataBenchOptions options;
    options.directory = directory_;
    std::erase_if(options.tiles, [this](uint64_t tiles) { return tiles > tiles_max_; });
    if (shows_progress(session)) {
      options.progress = [](const std::string& what) { fmt::print(stderr, "{}\n", what); };
    }
    CAISSON_ASSIGN_OR_RETURN(const MetadataBenchReport report, bench::run_metadata_bench(options));
    session.globals.json ? print_json(json_of(report)) : print(report);
    return 0;
  }

  std::string directory_;
  std::vector<std::string> cases_ = {"quick"};
  std::string size_ = "2GiB";
  uint32_t rounds_ = 9;
  bool metadata_ = false;
  uint64_t tiles_max_ = 10'000'000;
};

}  // namespace

std::unique_ptr<Command> make_bench() { return std::make_unique<BenchCommand>(); }

}  // namespace caisson::cli

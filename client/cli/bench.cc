// caisson bench: what this device can do, and how near saves and restores come to it.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "bench/metadata_bench.h"
#include "bench/store_bench.h"
#include "client/cli/commands.h"
#include "client/cli/text.h"

namespace caisson::cli {
namespace {

using bench::MetadataBenchReport;
using bench::MetadataScale;
using bench::Spread;
using bench::StoreBenchCase;
using bench::StoreBenchReport;

Json json_of(const Spread& spread) {
  return {{"median", spread.median},
          {"q1", spread.q1},
          {"q3", spread.q3},
          {"min", spread.min},
          {"max", spread.max}};
}

Json json_of(const StoreBenchReport& report) {
  Json cases = Json::array();
  for (const StoreBenchCase& one : report.cases) {
    Json row = {{"name", one.name},
                {"seconds", json_of(bench::spread_of(one.seconds))},
                {"cpu_seconds", json_of(bench::spread_of(one.cpu_seconds))},
                {"extra_memory_bytes", one.extra_memory_bytes}};
    if (!one.against.empty()) {
      row["against"] = one.against;
      row["ratio"] = json_of(bench::spread_of(report.speed_ratios(one)));
    }
    cases.push_back(std::move(row));
  }
  return {{"schema", "caisson.bench/1"}, {"machine", report.machine}, {"target", report.target},
          {"bytes", report.bytes},       {"rounds", report.rounds},   {"cases", std::move(cases)}};
}

void print(const StoreBenchReport& report) {
  fmt::print("{}\n{}\n{} of incompressible tensors, {} rounds\n\n", report.machine,
             printable(report.target), human_bytes(report.bytes), report.rounds);
  Table table({"CASE", "RATE", "RATIO", "[Q1-Q3]", "OF", "CPU S/GB", "EXTRA MEMORY"},
              {false, true, true, false, false, true, true});
  const double gigabytes = static_cast<double>(report.bytes) * 1e-9;
  for (const StoreBenchCase& one : report.cases) {
    std::string ratio = "1", quartiles;
    if (!one.against.empty()) {
      const Spread spread = bench::spread_of(report.speed_ratios(one));
      ratio = fmt::format("{:.2f}", spread.median);
      quartiles = fmt::format("[{:.2f}-{:.2f}]", spread.q1, spread.q3);
    }
    table.add({one.name,
               fmt::format("{:.2f} GB/s", gigabytes / bench::spread_of(one.seconds).median), ratio,
               quartiles, one.against,
               fmt::format("{:.3f}", bench::spread_of(one.cpu_seconds).median / gigabytes),
               human_bytes(one.extra_memory_bytes)});
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
    bench::StoreBenchOptions options{.directory = directory_,
                                     .bytes = bytes,
                                     .rounds = rounds_,
                                     .store = session.store_options(true),
                                     .progress = {}};
    if (shows_progress(session)) {
      options.progress = [](uint32_t round, uint32_t rounds) {
        fmt::print(stderr, "round {} of {}\n", round + 1, rounds);
      };
    }
    CAISSON_ASSIGN_OR_RETURN(const StoreBenchReport report, bench::run_store_bench(options));
    session.globals.json ? print_json(json_of(report)) : print(report);
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
  std::string size_ = "2GiB";
  uint32_t rounds_ = 9;
  bool metadata_ = false;
  uint64_t tiles_max_ = 10'000'000;
};

}  // namespace

std::unique_ptr<Command> make_bench() { return std::make_unique<BenchCommand>(); }

}  // namespace caisson::cli

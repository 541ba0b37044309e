// caisson bench: what this device can do, and how near saves and restores come to it. The hidden
// verb bench-rank is one rank process of the cases by many ranks.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "bench/device_limit.h"
#include "bench/metadata_bench.h"
#include "bench/rank_team.h"
#include "bench/report_html.h"
#include "bench/report_json.h"
#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/text.h"
#include "client/open_objects.h"

namespace caisson::cli {
namespace {

using bench::BenchReport;
using bench::CaseResult;
using bench::MetadataBenchReport;
using bench::MetadataScale;
using bench::MetricSamples;
using bench::Spread;

std::string target_of(const bench::Metric& metric) {
  if (!metric.target) return "";
  return fmt::format("{} {}", metric.better == bench::Better::kHigher ? ">=" : "<=",
                     bench::figure(*metric.target));
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
                 bench::figure(spread.median),
                 fmt::format("[{}-{}]", bench::figure(spread.q1), bench::figure(spread.q3)),
                 metric.metric.unit, target_of(metric.metric),
                 !metric.metric.target         ? ""
                 : bench::meets_target(metric) ? "met"
                                               : "MISSED"});
    }
  }
  table.print();
  for (const bench::SkippedCase& one : report.skipped) {
    fmt::print("left out: {}: {}\n", one.name, printable(one.why));
  }
  const bench::TargetCount targets = bench::count_targets(report);
  fmt::print("\n{} of {} targets met, in {}\n", targets.met, targets.all,
             human_seconds(report.seconds));
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

void print_cases() {
  Table table({"CASE", "WHAT", "DISK", "MEMORY"}, {false, false, true, true});
  const bench::BenchOptions defaults;
  for (const bench::CaseEntry& entry : bench::case_table()) {
    const bench::Needs needs = entry.needs(defaults);
    table.add({std::string(entry.name) + (entry.quick ? " *" : ""), std::string(entry.summary),
               human_bytes(needs.disk_bytes), human_bytes(needs.memory_bytes)});
  }
  table.print();
  fmt::print("\n* without --case. Needs are those of the default sizes.\n");
}

void print_differences(const std::vector<bench::Difference>& differences) {
  Table table({"CASE", "METRIC", "BEFORE", "[Q1-Q3]", "NOW", "[Q1-Q3]", "UNIT", ""},
              {false, false, true, false, true, false, false, false});
  size_t told = 0;
  for (const bench::Difference& one : differences) {
    if (!one.beyond_spread) continue;
    ++told;
    const auto quartiles = [](const Spread& spread) {
      return fmt::format("[{}-{}]", bench::figure(spread.q1), bench::figure(spread.q3));
    };
    table.add({one.case_name, one.metric.name, bench::figure(one.before.median),
               quartiles(one.before), bench::figure(one.now.median), quartiles(one.now),
               one.metric.unit, one.better ? "better" : "WORSE"});
  }
  fmt::print("\nagainst the baseline: {} of {} metrics differ by more than the spread of both\n",
             told, differences.size());
  if (told > 0) table.print();
}

Json json_of(const std::vector<bench::Difference>& differences) {
  Json rows = Json::array();
  for (const bench::Difference& one : differences) {
    rows.push_back({{"case", one.case_name},
                    {"metric", one.metric.name},
                    {"before", one.before.median},
                    {"now", one.now.median},
                    {"beyond_spread", one.beyond_spread},
                    {"better", one.better}});
  }
  return rows;
}

Result<BenchReport> read_report(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return not_found(path + ": cannot be read; --against takes what --json printed");
  const std::string text(std::istreambuf_iterator<char>(in), {});
  auto report = bench::report_of(text);
  if (!report.ok()) return report.status().with_context(path);
  return report;
}

class BenchCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("directory", directory_,
                   "An existing directory on the device to measure; DIR?dirs=DIR2,DIR3 for a store "
                   "in several");
    app.add_option("--case", cases_, "A case of --list, \"quick\" or \"all\"; may be repeated")
        ->take_all()
        ->expected(1)
        ->capture_default_str();
    app.add_flag("--list", list_, "Show the cases and what they need, and do nothing");
    app.add_option("--rounds", rounds_, "Interleaved rounds; the medians are printed")
        ->capture_default_str();
    app.add_option("--size", size_, "Bytes of tensors in most cases, a multiple of 64MiB")
        ->capture_default_str();
    app.add_option("--large-size", large_size_, "Bytes of the one tensor of save-large")
        ->capture_default_str();
    app.add_option("--store-size", store_size_, "Bytes of the store of case find")
        ->capture_default_str();
    app.add_option("--state", state_, "safetensors file that the cases state-... save");
    app.add_option("--settle", settle_, "Seconds to wait after every deletion")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--html", html_, "Also write the report to this file, as one page");
    app.add_option(
        "--against", against_,
        "Compare with the --json output of an earlier run; exit code 1 when something is "
        "worse by more than the spread of both");
    app.add_flag("--limit", limit_, "Instead: the device limit alone, once, over --size bytes");
    app.add_flag("--metadata", metadata_,
                 "Instead: how commit, look-up, index and log grow with the number of tiles");
    app.add_option("--tiles-max", tiles_max_, "With --metadata: the largest checkpoint")
        ->capture_default_str();
  }

  Result<int> run(const Session& session) override {
    if (list_) return print_cases(), kExitOk;
    if (directory_.empty()) {
      return invalid_argument("bench needs a directory on the device to measure");
    }
    if (limit_) return run_limit(session);
    return metadata_ ? run_metadata(session) : run_cases(session);
  }

 private:
  static bool shows_progress(const Session& session) {
    return !session.globals.json && !session.globals.quiet;
  }

  Result<bench::BenchOptions> options_of(const Session& session) const {
    bench::BenchOptions options;
    CAISSON_ASSIGN_OR_RETURN(const StoreUrl where, parse_store_url(directory_));
    options.directory = where.root;
    options.directories = where.directories;
    options.cases = cases_;
    CAISSON_ASSIGN_OR_RETURN(options.bytes, parse_bytes(size_));
    CAISSON_ASSIGN_OR_RETURN(options.large_bytes, parse_bytes(large_size_));
    options.state = state_;
    CAISSON_ASSIGN_OR_RETURN(options.store_bytes, parse_bytes(store_size_));
    options.rounds = rounds_;
    options.settle_seconds = settle_;
    options.store = session.store_options(true);
    options.stop = session.stop;
    if (shows_progress(session)) {
      options.progress = [](const std::string& what) { fmt::print(stderr, "{}\n", what); };
    }
    return options;
  }

  Result<int> run_cases(const Session& session) {
    CAISSON_ASSIGN_OR_RETURN(const bench::BenchOptions options, options_of(session));
    std::optional<BenchReport> baseline;  // read first: a typing error must not cost minutes
    if (!against_.empty()) {
      CAISSON_ASSIGN_OR_RETURN(baseline, read_report(against_));
    }
    CAISSON_ASSIGN_OR_RETURN(const BenchReport report, bench::run_bench(options));
    std::vector<bench::Difference> differences;
    if (baseline) differences = bench::compare(*baseline, report);
    if (session.globals.json) {
      Json json = bench::json_of(report);
      if (baseline) json["against"] = json_of(differences);
      print_json(json);
    } else {
      print(report);
      if (baseline) print_differences(differences);
    }
    if (!html_.empty()) {
      std::ofstream out(html_, std::ios::binary);
      out << bench::html_of(report);
      if (!out.flush()) return io_error(html_ + ": cannot be written");
    }
    const bool worse =
        std::any_of(differences.begin(), differences.end(),
                    [](const bench::Difference& d) { return d.beyond_spread && !d.better; });
    return worse ? kExitDifferent : kExitOk;
  }

  Result<int> run_limit(const Session& session) {
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes, parse_bytes(size_));
    if (bytes == 0 || bytes % bench::kLimitRequestBytes != 0) {
      return invalid_argument("bench: --limit takes a --size that is a multiple of 4MiB");
    }
    CAISSON_ASSIGN_OR_RETURN(
        const bench::LimitRates rates,
        bench::measure_limit(directory_, bytes, session.store_options(true).io_engine));
    if (session.globals.json) {
      print_json({{"schema", "caisson.bench.limit/1"},
                  {"bytes", bytes},
                  {"write_bytes_per_second", rates.write},
                  {"read_bytes_per_second", rates.read}});
    } else {
      fmt::print("write {} GB/s, read {} GB/s\n", bench::figure(rates.write * 1e-9),
                 bench::figure(rates.read * 1e-9));
    }
    return kExitOk;
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
    return kExitOk;
  }

  std::string directory_;
  std::vector<std::string> cases_ = {"quick"};
  bool list_ = false;
  std::string size_ = "2GiB";
  std::string large_size_ = "8GiB";
  std::string state_;
  std::string store_size_ = "19200MiB";
  std::string html_, against_;
  uint32_t rounds_ = 9;
  double settle_ = 1;
  bool limit_ = false;
  bool metadata_ = false;
  uint64_t tiles_max_ = 10'000'000;
};

class BenchRankCommand final : public Command {
 public:
  bool is_single_threaded() const override { return true; }
  void define(CLI::App&) override {}
  Result<int> run(const Session&) override {
    CAISSON_RETURN_IF_ERROR(bench::run_rank_child());
    return kExitOk;
  }
};

}  // namespace

std::unique_ptr<Command> make_bench() { return std::make_unique<BenchCommand>(); }
std::unique_ptr<Command> make_bench_rank() { return std::make_unique<BenchRankCommand>(); }

}  // namespace caisson::cli

// caisson import: checkpoint files into a store, by one process or as several rank processes that
// write one checkpoint. client/import.h says what is stored.
#include "client/import.h"

#include <fmt/format.h>

#include <optional>

#include "caisson/store.h"
#include "client/cli/commands.h"
#include "client/cli/indexed.h"
#include "client/cli/metrics_file.h"
#include "client/cli/progress.h"
#include "client/cli/ranks.h"
#include "client/cli/text.h"
#include "client/cli/trace_file.h"
#include "client/open_store.h"

namespace caisson::cli {
namespace {

constexpr uint32_t kRanksMax = 1024;

// What the ranks of one import must agree about.
SaveOptions options_of_task(const Json& task) {
  SaveOptions options;
  options.codec = task.value("codec", options.codec);
  options.delta = task.value("delta", options.delta);
  options.codec_cpu = task.value("codec_cpu", options.codec_cpu);
  options.dedup = task.value("dedup", options.dedup);
  options.base = task.value("base", options.base);
  options.workers = task.value("workers", options.workers);
  return options;
}

Json codecs_json(const std::vector<CodecUse>& uses) {
  Json list = Json::array();
  for (const CodecUse& use : uses) {
    list.push_back({{"codec", use.codec},
                    {"reason", use.reason},
                    {"chunks", use.chunks},
                    {"raw_bytes", use.raw_bytes},
                    {"stored_bytes", use.stored_bytes}});
  }
  return list;
}

class ImportCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store; created when absent")->required();
    app.add_option("name", name_, "Name of the new checkpoint: run/step")->required();
    app.add_option("sources", sources_,
                   "safetensors files, model directories, or any files (kept as blobs)")
        ->required();
    app.add_option("--ranks", ranks_, "Processes that write the checkpoint together")
        ->check(CLI::Range(1U, kRanksMax));
    app.add_option("--codec", options_.codec, "raw, zstd, planes, entropy, sparse or auto")
        ->check(CLI::IsMember({"raw", "zstd", "planes", "entropy", "sparse", "auto"}));
    app.add_option("--codec-cpu", options_.codec_cpu,
                   "Cores that auto may spend on coding, such as 0.25; by default as much as helps")
        ->check(CLI::NonNegativeNumber);
    app.add_option(
        "--delta", options_.delta,
        "Glob: store these as their difference from the earlier checkpoint, where smaller");
    app.add_option("--base", options_.base, "Checkpoint to share unchanged data with: run/step");
    app.add_flag("--no-dedup", no_dedup_, "Store everything again");
    app.add_flag("--overwrite", options_.overwrite, "Replace a checkpoint of this name");
    app.add_option("--metadata", options_.metadata_json, "JSON object kept with the checkpoint");
    app.add_option("--workers", options_.workers, "Threads that hash and write, per process")
        ->check(CLI::Range(1U, 256U));
  }

  Result<int> run(const Session& session) override {
    if (!Json::parse(options_.metadata_json, nullptr, false).is_object()) {
      return invalid_argument("--metadata: not a JSON object");
    }
    options_.dedup = !no_dedup_;
    options_.stop = session.stop;
    CAISSON_ASSIGN_OR_RETURN(const ImportPlan plan, ImportPlan::make(sources_));
    ProgressMeter meter(session, "import " + printable(name_));
    options_.progress = meter.callback();
    const auto report = ranks_ == 1 ? import_here(plan, session) : import_by_ranks(plan, session);
    if (!report.ok()) return report.status();
    print(*report, meter.seconds(), session);
    return 0;
  }

 private:
  // One process owns the index, so it shares with everything in the store, whatever its name.
  Result<SaveReport> import_here(const ImportPlan& plan, const Session& session) {
    std::optional<StoreAccess> access;
    std::shared_ptr<const LogState> state;
    std::unique_ptr<Index> index;
    std::optional<IndexHints> hints;
    if (auto opened = StoreAccess::open(store_, session); options_.dedup && opened.ok()) {
      access = std::move(opened).value();
      state = access->state();
      index = index_if_any(*access, session);
      if (index != nullptr) hints.emplace(*index, *state);
    }
    auto store = open_store_at(store_, session.store_options(true), hints ? &*hints : nullptr);
    auto report = store.ok() ? import_into(**store, plan, session) : store.status();
    if (index != nullptr) static_cast<void>(index->close());  // it would only be rebuilt
    return report;
  }

  Result<SaveReport> import_by_ranks(const ImportPlan& plan, const Session& session) {
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<Store> store,
                             Store::open(store_, session.store_options(true)));
    return import_into(*store, plan, session);
  }

  Result<SaveReport> import_into(Store& store, const ImportPlan& plan, const Session& session) {
    CAISSON_ASSIGN_OR_RETURN(const std::string ticket, store.begin_save(name_, options_));
    auto report = write_and_commit(store, ticket, plan, session);
    // What was written becomes garbage at once instead of when this process is known to be dead.
    if (!report.ok()) static_cast<void>(store.abort_save(ticket));
    return report;
  }

  Result<SaveReport> write_and_commit(Store& store, const std::string& ticket,
                                      const ImportPlan& plan, const Session& session) {
    SaveReport written;  // by this process
    auto parts = ranks_ == 1 ? write_here(store, ticket, plan, written)
                             : write_by_ranks(ticket, plan, session);
    if (!parts.ok()) return parts.status();
    CAISSON_RETURN_IF_ERROR(plan.check_unchanged());
    if (options_.stop.stop_requested()) return cancelled("the import was cancelled");
    CAISSON_ASSIGN_OR_RETURN(SaveReport report,
                             store.commit_save(ticket, ranks_, *parts, options_));
    report.warning = written.warning;
    report.codecs = written.codecs;
    return report;
  }

  Result<std::vector<SealedPart>> write_here(Store& store, const std::string& ticket,
                                             const ImportPlan& plan, SaveReport& written) {
    const ImportSlice slice = plan.slice(0, 1);
    CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<SaveTransaction> transaction,
                             store.join_save(ticket, 0, options_));
    CAISSON_RETURN_IF_ERROR(transaction->put(slice.input()));
    CAISSON_ASSIGN_OR_RETURN(SealedPart part, transaction->seal());
    written = transaction->report();
    return std::vector<SealedPart>{std::move(part)};
  }

  Result<std::vector<SealedPart>> write_by_ranks(const std::string& ticket, const ImportPlan& plan,
                                                 const Session& session) const {
    std::vector<Json> tasks;
    for (uint32_t rank = 0; rank < ranks_; ++rank) {
      tasks.push_back({{"store", store_},
                       {"ticket", ticket},
                       {"rank", rank},
                       {"ranks", ranks_},
                       {"sources", sources_},
                       {"codec", options_.codec},
                       {"codec_cpu", options_.codec_cpu},
                       {"delta", options_.delta},
                       {"dedup", options_.dedup},
                       {"base", options_.base},
                       {"workers", options_.workers},
                       {"io", session.globals.io_engine},
                       {"memory", session.globals.memory_bytes_max},
                       {"trace", session.trace.trace() != nullptr},
                       {"metrics", session.metrics.metrics() != nullptr}});
    }
    CAISSON_ASSIGN_OR_RETURN(
        const std::vector<Json> results,
        run_ranks("import-rank", tasks, plan.raw_bytes(), options_.progress, session.stop));
    std::vector<SealedPart> parts;
    for (const Json& result : results) {
      parts.push_back({result.value("token", std::string())});
      session.trace.add(result.value("trace", Json::array()));
      session.metrics.add(result.value("metrics", Json::array()));
    }
    return parts;
  }

  void print(const SaveReport& report, double seconds, const Session& session) const {
    if (!report.warning.empty() && !session.globals.quiet) {
      fmt::print(stderr, "caisson: {}\n", printable(report.warning));
    }
    if (session.globals.json) {
      print_json({{"schema", "caisson.import/1"},
                  {"checkpoint", report.name},
                  {"ranks", ranks_},
                  {"tensors", report.tensors},
                  {"tiles", report.tiles},
                  {"raw_bytes", report.raw_bytes},
                  {"deduplicated_bytes", report.deduplicated_bytes},
                  {"stored_bytes", report.stored_bytes},
                  {"codecs", codecs_json(report.codecs)},
                  {"seconds", seconds}});
      return;
    }
    if (session.globals.quiet) return;
    fmt::print(
        "{}: {} tensors, {} by {} rank{} in {} ({}); {} shared with earlier data, {} stored\n",
        printable(report.name), report.tensors, human_bytes(report.raw_bytes), ranks_,
        ranks_ == 1 ? "" : "s", human_seconds(seconds), human_rate(report.raw_bytes, seconds),
        human_bytes(report.deduplicated_bytes), human_bytes(report.stored_bytes));
    for (const CodecUse& use : report.codecs) {
      fmt::print("  {} stored as {} by codec {} ({})\n", human_bytes(use.raw_bytes),
                 human_bytes(use.stored_bytes), use.codec, use.reason);
    }
  }

  std::string store_;
  std::string name_;
  std::vector<std::string> sources_;
  uint32_t ranks_ = 1;
  bool no_dedup_ = false;
  SaveOptions options_;
};

// One rank of `import --ranks`: its slice of the same sources, under the parent's ticket.
class ImportRankCommand final : public Command {
 public:
  void define(CLI::App& /*app*/) override {}

  Result<int> run(const Session& session) override { return RankChild::finish(save_part(session)); }

 private:
  static Result<Json> save_part(const Session& session) {
    CAISSON_ASSIGN_OR_RETURN(const Json task, RankChild::take_task());
    const auto rank = task.value("rank", 0U);
    const auto ranks = task.value("ranks", 1U);
    const auto sources = task.value("sources", std::vector<std::string>());
    CAISSON_ASSIGN_OR_RETURN(const ImportPlan plan, ImportPlan::make(sources));
    const ImportSlice slice = plan.slice(rank, ranks);
    if (task.value("trace", false)) session.trace.start(TraceFile::kRankEventsMax);
    if (task.value("metrics", false)) session.metrics.start();

    StoreOptions store_options = session.store_options(false);
    store_options.io_engine = task.value("io", store_options.io_engine);
    store_options.memory_bytes_max = task.value("memory", store_options.memory_bytes_max);
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<Store> store,
                             Store::open(task.value("store", std::string()), store_options));
    SaveOptions options = options_of_task(task);
    options.stop = session.stop;
    options.progress = RankChild::progress();
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<SaveTransaction> transaction,
                             store->join_save(task.value("ticket", std::string()), rank, options));
    CAISSON_RETURN_IF_ERROR(transaction->put(slice.input()));
    CAISSON_ASSIGN_OR_RETURN(const SealedPart part, transaction->seal());
    CAISSON_RETURN_IF_ERROR(plan.check_unchanged());  // as this process mapped them
    return Json{{"token", part.token},
                {"trace", session.trace.events()},
                {"metrics", session.metrics.numbers()}};
  }
};

}  // namespace

std::unique_ptr<Command> make_import() { return std::make_unique<ImportCommand>(); }
std::unique_ptr<Command> make_import_rank() { return std::make_unique<ImportRankCommand>(); }

}  // namespace caisson::cli

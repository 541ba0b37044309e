// caisson restore: tensors of a checkpoint into files, in any sharding, by one process or by
// several that restore one slice each. Everything written was verified against its content ids.
#include <fmt/format.h>

#include "client/cli/commands.h"
#include "client/cli/metrics_file.h"
#include "client/cli/progress.h"
#include "client/cli/ranks.h"
#include "client/cli/text.h"
#include "client/cli/trace_file.h"
#include "client/export.h"
#include "client/new_file.h"

namespace caisson::cli {
namespace {

constexpr uint32_t kRanksMax = 1024;

// One slice, as a document: the task of a child and the whole job of a single process.
struct SliceJob {
  std::string store, name, out, format;
  SliceOptions slice;
  ExportOptions options;
};

Result<std::vector<ExportedFile>> restore_slice(const SliceJob& job, const StoreOptions& access) {
  CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<Store> store, Store::open(job.store, access));
  const bool whole = job.slice.count == 1;
  const std::string slice_name =
      fmt::format("slice-{:05}-of-{:05}", job.slice.index, job.slice.count);
  if (job.format == "npy") {
    const std::string directory = whole ? job.out : job.out + "/" + slice_name;
    CAISSON_RETURN_IF_ERROR(make_directories(directory));
    return export_npy(*store, job.name, directory, job.slice, job.options);
  }
  CAISSON_RETURN_IF_ERROR(make_directories(job.out));
  const std::string path =
      fmt::format("{}/{}.safetensors", job.out, whole ? "tensors" : slice_name);
  CAISSON_ASSIGN_OR_RETURN(ExportedFile file,
                           export_slice(*store, job.name, path, job.slice, job.options));
  return std::vector<ExportedFile>{std::move(file)};
}

Json files_json(const std::vector<ExportedFile>& files) {
  Json list = Json::array();
  for (const ExportedFile& file : files) {
    list.push_back({{"path", file.path}, {"bytes", file.bytes}, {"tensors", file.tensors}});
  }
  return list;
}

// "1/4": slice 1 of 4, counted from 0.
Result<SliceOptions> parse_shard(const std::string& text, int dim) {
  SliceOptions slice{.index = 0, .count = 0, .dim = dim};
  char end = 0;
  const bool read = std::sscanf(text.c_str(), "%u/%u%c", &slice.index, &slice.count, &end) == 2;
  if (!read || slice.count == 0 || slice.index >= slice.count || slice.count > 1'000'000) {
    return invalid_argument(fmt::format("--shard {}: write i/n with i from 0 to n-1", text));
  }
  return slice;
}

class RestoreCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", job_.store, "Directory of the store")->required();
    app.add_option("name", job_.name, "Checkpoint: run/step or run/latest")->required();
    app.add_option("--out", job_.out, "Directory for the files; created when absent")->required();
    app.add_option("--tensors", job_.options.glob, "Only tensors that match this glob");
    app.add_option("--format", job_.format, "safetensors (one file a slice) or npy (one a tensor)")
        ->check(CLI::IsMember({"safetensors", "npy"}));
    auto* ranks = app.add_option("--ranks", ranks_, "Processes that restore one slice each")
                      ->check(CLI::Range(1U, kRanksMax));
    app.add_option("--shard", shard_, "Restore only slice i of n: i/n, i from 0")->excludes(ranks);
    app.add_option("--shard-dim", job_.slice.dim, "The dimension that slices cut")
        ->check(CLI::Range(0, kRankMax - 1));
    app.add_flag("--overwrite", job_.options.overwrite, "Replace files that exist");
  }

  Result<int> run(const Session& session) override {
    ProgressMeter meter(session, "restore " + printable(job_.name));
    job_.options.progress = meter.callback();
    job_.options.stop = session.stop;
    if (!shard_.empty()) {
      CAISSON_ASSIGN_OR_RETURN(job_.slice, parse_shard(shard_, job_.slice.dim));
    }
    Json files;
    if (ranks_ > 1) {
      CAISSON_ASSIGN_OR_RETURN(files, restore_by_ranks(session));
    } else {
      CAISSON_ASSIGN_OR_RETURN(const std::vector<ExportedFile> written,
                               restore_slice(job_, session.store_options(false)));
      files = files_json(written);
    }
    if (session.globals.json) {
      print_json({{"schema", "caisson.restore/1"},
                  {"checkpoint", job_.name},
                  {"ranks", ranks_},
                  {"files", std::move(files)},
                  {"seconds", meter.seconds()}});
    }
    return 0;
  }

 private:
  Result<Json> restore_by_ranks(const Session& session) const {
    uint64_t total = 0;
    std::string pinned;  // all ranks restore the same checkpoint
    {
      CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<Store> store,
                               Store::open(job_.store, session.store_options(false)));
      CAISSON_ASSIGN_OR_RETURN(pinned, pin(*store, job_.name));
      CAISSON_ASSIGN_OR_RETURN(const auto infos, store->tensors(pinned, job_.options.glob));
      for (const TensorInfo& info : infos) total += info.blob ? 0 : info.raw_bytes;
    }
    std::vector<Json> tasks;
    for (uint32_t rank = 0; rank < ranks_; ++rank) {
      tasks.push_back({{"store", job_.store},
                       {"name", pinned},
                       {"out", job_.out},
                       {"format", job_.format},
                       {"tensors", job_.options.glob},
                       {"overwrite", job_.options.overwrite},
                       {"index", rank},
                       {"count", ranks_},
                       {"dim", job_.slice.dim},
                       {"io", session.globals.io_engine},
                       {"memory", session.globals.memory_bytes_max},
                       {"trace", session.trace.trace() != nullptr},
                       {"metrics", session.metrics.metrics() != nullptr}});
    }
    CAISSON_ASSIGN_OR_RETURN(
        const std::vector<Json> results,
        run_ranks("restore-rank", tasks, total, job_.options.progress, session.stop));
    Json files = Json::array();
    for (const Json& result : results) {
      for (const Json& file : result.value("files", Json::array())) files.push_back(file);
      session.trace.add(result.value("trace", Json::array()));
      session.metrics.add(result.value("metrics", Json::array()));
    }
    return files;
  }

  SliceJob job_{
      .store = {}, .name = {}, .out = {}, .format = "safetensors", .slice = {}, .options = {}};
  uint32_t ranks_ = 1;
  std::string shard_;
};

// One slice of `restore --ranks`.
class RestoreRankCommand final : public Command {
 public:
  void define(CLI::App& /*app*/) override {}

  Result<int> run(const Session& session) override {
    return RankChild::finish(restore_part(session));
  }

 private:
  static Result<Json> restore_part(const Session& session) {
    CAISSON_ASSIGN_OR_RETURN(const Json task, RankChild::take_task());
    SliceJob job{.store = task.value("store", std::string()),
                 .name = task.value("name", std::string()),
                 .out = task.value("out", std::string()),
                 .format = task.value("format", std::string("safetensors")),
                 .slice = {.index = task.value("index", 0U),
                           .count = task.value("count", 1U),
                           .dim = task.value("dim", 0)},
                 .options = {}};
    job.options.glob = task.value("tensors", std::string("*"));
    job.options.overwrite = task.value("overwrite", false);
    job.options.progress = RankChild::progress();
    job.options.stop = session.stop;
    if (task.value("trace", false)) session.trace.start(TraceFile::kRankEventsMax);
    if (task.value("metrics", false)) session.metrics.start();
    StoreOptions access = session.store_options(false);
    access.io_engine = task.value("io", access.io_engine);
    access.memory_bytes_max = task.value("memory", access.memory_bytes_max);
    CAISSON_ASSIGN_OR_RETURN(const std::vector<ExportedFile> files, restore_slice(job, access));
    return Json{{"files", files_json(files)},
                {"trace", session.trace.events()},
                {"metrics", session.metrics.numbers()}};
  }
};

}  // namespace

std::unique_ptr<Command> make_restore() { return std::make_unique<RestoreCommand>(); }
std::unique_ptr<Command> make_restore_rank() { return std::make_unique<RestoreRankCommand>(); }

}  // namespace caisson::cli

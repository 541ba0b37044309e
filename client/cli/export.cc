// caisson export: a checkpoint as safetensors files, with the other files that were imported.
#include "client/export.h"

#include <fmt/format.h>

#include "client/cli/commands.h"
#include "client/cli/progress.h"
#include "client/cli/text.h"

namespace caisson::cli {
namespace {

class ExportCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("name", name_, "Checkpoint: run/step or run/latest")->required();
    app.add_option("destination", destination_, "A .safetensors file, or a directory")->required();
    app.add_option("--tensors", options_.glob, "Only tensors that match this glob");
    app.add_option("--max-shard-size", shard_size_,
                   "Split into files of at most this size (5GB, 256MiB), with an index.json");
    app.add_flag("--overwrite", options_.overwrite, "Replace files that exist");
  }

  Result<int> run(const Session& session) override {
    if (!shard_size_.empty()) {
      CAISSON_ASSIGN_OR_RETURN(options_.shard_bytes_max, parse_bytes(shard_size_));
    }
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<Store> store,
                             Store::open(store_, session.store_options(false)));
    ProgressMeter meter(session, "export " + printable(name_));
    options_.progress = meter.callback();
    options_.stop = session.stop;
    CAISSON_ASSIGN_OR_RETURN(const std::vector<ExportedFile> files,
                             export_checkpoint(*store, name_, destination_, options_));
    if (session.globals.json) print_files(files, meter.seconds());
    return 0;
  }

 private:
  void print_files(const std::vector<ExportedFile>& files, double seconds) const {
    Json list = Json::array();
    for (const ExportedFile& file : files) {
      list.push_back({{"path", file.path},
                      {"bytes", file.bytes},
                      {"tensors", file.tensors},
                      {"original_header", file.original_header}});
    }
    print_json({{"schema", "caisson.export/1"},
                {"checkpoint", name_},
                {"files", std::move(list)},
                {"seconds", seconds}});
  }

  std::string store_;
  std::string name_;
  std::string destination_;
  std::string shard_size_;
  ExportOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_export() { return std::make_unique<ExportCommand>(); }

}  // namespace caisson::cli

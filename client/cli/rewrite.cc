// caisson rewrite: gives checkpoints new packs of their own, with the same content; gc then frees
// what only the old ones were kept for.
#include "engine/rewrite.h"

#include <fmt/format.h>

#include "client/cli/commands.h"
#include "client/cli/progress.h"
#include "client/cli/store_access.h"
#include "client/cli/text.h"

namespace caisson::cli {
namespace {

class RewriteCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("name", name_, "Checkpoint: run/step or run/latest")->required();
    app.add_option("--codec", options_.codec, "raw, zstd, planes, entropy, sparse or auto")
        ->check(CLI::IsMember({"raw", "zstd", "planes", "entropy", "sparse", "auto"}));
    app.add_option("--workers", options_.workers, "Threads that read, hash and write")
        ->check(CLI::Range(1U, 256U));
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    CAISSON_RETURN_IF_ERROR(access.check_writable());
    CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, access.find(name_));
    ProgressMeter meter(session, "rewrite " + printable(checkpoint.name()));
    options_.progress = meter.callback();
    options_.stop = session.stop;
    MemoryBudget budget(session.globals.memory_bytes_max);
    CAISSON_ASSIGN_OR_RETURN(
        const RewriteReport report,
        rewrite_checkpoint(access.objects(), access.log(), budget, system_uuids(), system_clock(),
                           checkpoint, options_));
    print(checkpoint, report, meter.seconds(), session);
    return 0;
  }

 private:
  void print(const Checkpoint& checkpoint, const RewriteReport& report, double seconds,
             const Session& session) const {
    if (session.globals.json) {
      print_json({{"schema", "caisson.rewrite/1"},
                  {"checkpoint", checkpoint.name()},
                  {"tensors", report.tensors},
                  {"raw_bytes", report.raw_bytes},
                  {"stored_bytes", report.stored_bytes},
                  {"packs", report.packs},
                  {"packs_before", report.packs_before},
                  {"foreign_packs_before", report.foreign_packs_before},
                  {"seconds", seconds}});
      return;
    }
    if (session.globals.quiet) return;
    fmt::print(
        "{}: {} tensors, {} stored as {} in {} pack{} of its own in {} ({}); before in {}, {} of "
        "other saves\n",
        printable(checkpoint.name()), report.tensors, human_bytes(report.raw_bytes),
        human_bytes(report.stored_bytes), report.packs, report.packs == 1 ? "" : "s",
        human_seconds(seconds), human_rate(report.raw_bytes, seconds), report.packs_before,
        report.foreign_packs_before);
    fmt::print(stderr, "caisson: caisson gc {} frees what nothing needs any more\n", store_);
  }

  std::string store_;
  std::string name_;
  RewriteOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_rewrite() { return std::make_unique<RewriteCommand>(); }

}  // namespace caisson::cli

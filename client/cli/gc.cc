// caisson gc: frees what no checkpoint needs, and what dead saves left.
#include "engine/gc.h"

#include <fmt/format.h>

#include "caisson/store.h"
#include "client/cli/commands.h"
#include "client/cli/store_access.h"
#include "client/cli/text.h"
#include "client/maintenance.h"

namespace caisson::cli {
namespace {

std::string writer_of(const GcOpenSave& open) {
  return fmt::format("{} by process {} on {}, since {}",
                     printable(open.run + "/" + std::to_string(open.step)), open.writer.pid,
                     printable(open.writer.host), utc_time(open.writer.unix_ns));
}

class GcCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_flag("--dry-run", options_.dry_run, "Only say what would be freed");
    app.add_option(
           "--takeover", takeover_,
           "First take this run over, which ends every save of it that is in progress, also "
           "those of other machines")
        ->type_name("RUN");
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    if (!options_.dry_run) CAISSON_RETURN_IF_ERROR(access.check_writable());
    if (!takeover_.empty()) CAISSON_RETURN_IF_ERROR(take_over(access, session));
    CAISSON_ASSIGN_OR_RETURN(const GcReport report,
                             run_gc(access.objects(), access.log(), options_));
    if (session.globals.json) {
      print_json(document_of(report, options_.dry_run));
    } else if (!session.globals.quiet) {
      print(report);
    }
    return 0;
  }

 private:
  Status take_over(StoreAccess& access, const Session& session) const {
    if (options_.dry_run) {
      return invalid_argument("--takeover changes the store: not together with --dry-run");
    }
    if (!access.state()->runs().contains(takeover_)) {
      return not_found(fmt::format("no run \"{}\" in this store; caisson ls {} lists its runs",
                                   takeover_, store_));
    }
    CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store,
                             Store::open(store_, session.store_options(false)));
    CAISSON_RETURN_IF_ERROR(store->claim(takeover_));
    return access.log().refresh().status();
  }

  void print(const GcReport& report) const {
    fmt::print("{} {} in {} object{}; {} kept\n", options_.dry_run ? "would free" : "freed",
               human_bytes(report.reclaimed.bytes), report.reclaimed.objects,
               report.reclaimed.objects == 1 ? "" : "s", human_bytes(report.kept.bytes));
    for (const GcOpenSave& open : report.open_saves) {
      if (open.provably_dead) {
        fmt::print("dead: {}, {} written{}\n", writer_of(open), human_bytes(open.written.bytes),
                   options_.dry_run ? ", counted above" : "");
      } else {
        fmt::print(
            "in progress: {}, {} written; if that process is gone: caisson gc {} --takeover "
            "{}\n",
            writer_of(open), human_bytes(open.written.bytes), store_, printable(open.run));
      }
    }
    if (report.unknown.objects > 0) {
      fmt::print("left alone: {} in {} objects of saves that the log does not know yet\n",
                 human_bytes(report.unknown.bytes), report.unknown.objects);
    }
  }

  std::string store_;
  std::string takeover_;
  GcOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_gc() { return std::make_unique<GcCommand>(); }

}  // namespace caisson::cli

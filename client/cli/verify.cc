// caisson verify: some checkpoints or the whole store, at three depths. Findings on standard
// output; silent and 0 when everything is whole.
#include <fmt/format.h>

#include <set>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress.h"
#include "client/cli/store_access.h"
#include "client/cli/text.h"
#include "client/maintenance.h"

namespace caisson::cli {
namespace {

class VerifyCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("names", names_, "Checkpoints, run/step or run/latest; all when none is given");
    app.add_option("--depth", depth_,
                   "structure: metadata; checksums: every stored byte; full: every chunk decoded")
        ->check(CLI::IsMember({"structure", "checksums", "full"}));
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    ProgressMeter meter(session, "verify");
    ScrubOptions options;
    CAISSON_ASSIGN_OR_RETURN(options.depth, scrub_depth_from_name(depth_));
    options.progress = meter.callback();
    options.stop = session.stop;
    MemoryBudget budget(session.globals.memory_bytes_max);
    const auto left_out = [&](const std::string& name) {
      if (session.globals.quiet) return;
      fmt::print(stderr, "caisson: {} was given up meanwhile, and left out\n", printable(name));
    };
    CAISSON_ASSIGN_OR_RETURN(
        const ScrubReport report,
        verify_store(access.objects(), access.log(), budget, names_, options, left_out));
    if (session.globals.json) {
      print_json(document_of(report, options.depth));
    } else {
      print(report, session.globals.quiet);
    }
    return report.damaged > 0 ? kExitCorruption : kExitOk;
  }

 private:
  void print(const ScrubReport& report, bool quiet) const {
    std::set<std::string> hurt;
    for (const ScrubFinding& finding : report.findings) {
      if (!finding.damage) continue;
      hurt.insert(finding.checkpoint);
      const std::string tensor =
          finding.tensor.empty() ? "" : fmt::format(" (tensor \"{}\")", printable(finding.tensor));
      fmt::print("damaged: {}: {} at offset {}{}: {}\n", printable(finding.checkpoint),
                 finding.object, finding.offset, tensor, printable(finding.what));
    }
    if (report.damaged > 0) {
      fmt::print(stderr, "caisson: {} finding{} of damage in {} checkpoint{}\n", report.damaged,
                 report.damaged == 1 ? "" : "s", hurt.size(), hurt.size() == 1 ? "" : "s");
      fmt::print(
          stderr,
          "caisson: next: caisson ls {} shows what else there is; keep the damaged objects "
          "until the tensors were restored from elsewhere, and import those with --no-dedup: "
          "a save that shares unchanged data would share the damage\n",
          store_);
      return;
    }
    if (quiet || report.harmless == 0) return;
    fmt::print(stderr, "caisson: {} object{} that nothing needs; caisson gc {} frees the space\n",
               report.harmless, report.harmless == 1 ? "" : "s", store_);
  }

  std::string store_;
  std::vector<std::string> names_;
  std::string depth_ = "checksums";
};

}  // namespace

std::unique_ptr<Command> make_verify() { return std::make_unique<VerifyCommand>(); }

}  // namespace caisson::cli

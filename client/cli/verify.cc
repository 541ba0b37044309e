// caisson verify: some checkpoints or the whole store, at three depths. Findings on standard
// output; silent and 0 when everything is whole.
#include <fmt/format.h>

#include <set>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/progress.h"
#include "client/cli/store_access.h"
#include "client/cli/text.h"
#include "engine/live_read.h"
#include "engine/scrub.h"

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
    CAISSON_ASSIGN_OR_RETURN(const std::vector<Checkpoint> checkpoints, select(access));
    ProgressMeter meter(session, "verify");
    ScrubOptions options;
    CAISSON_ASSIGN_OR_RETURN(options.depth, scrub_depth_from_name(depth_));
    options.progress = meter.callback();
    options.stop = session.stop;
    MemoryBudget budget(session.globals.memory_bytes_max);
    Scrubber scrubber(access.objects(), budget, options);
    for (const Checkpoint& checkpoint : checkpoints) {
      CAISSON_RETURN_IF_ERROR(check(access.log(), scrubber, checkpoint, session));
    }
    if (names_.empty()) {
      std::vector<Uuid> in_progress;
      for (const auto& [save, open] : access.state()->open_saves()) in_progress.push_back(save);
      CAISSON_RETURN_IF_ERROR(scrubber.find_orphans(in_progress));
    }
    const ScrubReport& report = scrubber.report();
    session.globals.json ? print_document(report) : print(report, session.globals.quiet);
    return report.damaged > 0 ? kExitCorruption : kExitOk;
  }

 private:
  // Damage of a checkpoint that was given up meanwhile is none: its objects are being deleted.
  Status check(Log& log, Scrubber& scrubber, Checkpoint checkpoint, const Session& session) const {
    for (;;) {
      const uint64_t before = scrubber.report().damaged;
      CAISSON_RETURN_IF_ERROR(scrubber.check_checkpoint(checkpoint.name(), checkpoint.root));
      if (scrubber.report().damaged == before) return ok_status();
      const Status damage = corruption("objects of it are missing or damaged");
      auto now = after_failed_read(log, checkpoint, damage);
      if (now.ok()) {
        scrubber.retract_damage();
        checkpoint = std::move(now).value();
        continue;
      }
      if (now.status().code() != StatusCode::kFenced) return ok_status();  // damage it is
      scrubber.retract_damage();
      if (!names_.empty()) return now.status();
      if (!session.globals.quiet) {
        fmt::print(stderr, "caisson: {} was given up meanwhile, and left out\n",
                   printable(checkpoint.name()));
      }
      return ok_status();
    }
  }

  Result<std::vector<Checkpoint>> select(const StoreAccess& access) const {
    std::vector<Checkpoint> selected;
    if (names_.empty()) {
      for (const auto& [seq, checkpoint] : access.state()->checkpoints()) {
        selected.push_back(checkpoint);
      }
      return selected;
    }
    for (const std::string& name : names_) {
      CAISSON_ASSIGN_OR_RETURN(Checkpoint checkpoint, access.find(name));
      selected.push_back(std::move(checkpoint));
    }
    return selected;
  }

  void print_document(const ScrubReport& report) const {
    Json findings = Json::array();
    for (const ScrubFinding& finding : report.findings) {
      findings.push_back({{"checkpoint", finding.checkpoint},
                          {"object", finding.object},
                          {"offset", finding.offset},
                          {"id", finding.id},
                          {"tensor", finding.tensor},
                          {"what", finding.what},
                          {"damage", finding.damage}});
    }
    print_json({{"schema", "caisson.verify/1"},
                {"depth", depth_},
                {"checkpoints", report.checkpoints},
                {"objects", report.objects},
                {"tensors", report.tensors},
                {"chunks", report.chunks},
                {"bytes_read", report.bytes_read},
                {"damaged", report.damaged},
                {"harmless", report.harmless},
                {"findings", std::move(findings)}});
  }

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
      fmt::print(stderr,
                 "caisson: next: caisson ls {} shows what else there is; keep the damaged objects "
                 "until the tensors were restored from elsewhere\n",
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

// caisson rm: gives checkpoints up, by name or by policy. Only records in the log; gc frees space.
#include <fmt/format.h>

#include "client/cli/commands.h"
#include "client/cli/store_access.h"
#include "client/cli/text.h"
#include "engine/retention.h"

namespace caisson::cli {
namespace {

class RmCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    auto* names = app.add_option("names", names_, "Checkpoints: run/step or run/latest");
    auto* run = app.add_option("--run", run_, "Apply --keep-last and --keep-every to this run");
    auto* last = app.add_option("--keep-last", policy_.keep_last, "Newest checkpoints that stay")
                     ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 40));
    app.add_option("--keep-every", policy_.keep_every, "Steps that stay: multiples of this")
        ->needs(last)
        ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 62));
    app.add_flag("--dry-run", dry_run_, "Only print what would be given up");
    run->needs(last)->excludes(names);
    last->needs(run);
  }

  Result<int> run(const Session& session) override {
    if (names_.empty() && run_.empty()) {
      return invalid_argument("name checkpoints, or give --run and --keep-last");
    }
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    if (!dry_run_) CAISSON_RETURN_IF_ERROR(access.check_writable());
    CAISSON_ASSIGN_OR_RETURN(std::vector<Checkpoint> chosen, choose(access));
    if (!dry_run_ && !run_.empty()) {
      CAISSON_ASSIGN_OR_RETURN(chosen, prune_by_policy(access.log(), run_, policy_));
    } else if (!dry_run_) {
      for (const Checkpoint& checkpoint : chosen) {
        CAISSON_RETURN_IF_ERROR(prune(access.log(), checkpoint).with_context(checkpoint.name()));
      }
    }
    print(chosen, session);
    return 0;
  }

 private:
  static Status prune(Log& log, const Checkpoint& checkpoint) {
    return log
        .append([&](const LogState&) -> Result<format::LogBody> {
          return format::LogBody(format::PruneRecord{.checkpoint = checkpoint.seq});
        })
        .status();
  }

  Result<std::vector<Checkpoint>> choose(const StoreAccess& access) const {
    std::vector<Checkpoint> chosen;
    const auto state = access.state();
    if (!run_.empty()) {
      if (!state->runs().contains(run_)) {
        return not_found(
            fmt::format("no run \"{}\" in this store; caisson ls {} lists its runs", run_, store_));
      }
      for (const format::CommitSeq seq : checkpoints_to_prune(*state, run_, policy_)) {
        chosen.push_back(state->checkpoints().at(seq));
      }
      return chosen;
    }
    for (const std::string& name : names_) {
      CAISSON_ASSIGN_OR_RETURN(Checkpoint checkpoint, access.find(name));
      chosen.push_back(std::move(checkpoint));
    }
    return chosen;
  }

  void print(const std::vector<Checkpoint>& chosen, const Session& session) const {
    if (session.globals.json) {
      Json names = Json::array();
      for (const Checkpoint& checkpoint : chosen) names.push_back(checkpoint.name());
      print_json(
          {{"schema", "caisson.rm/1"}, {"dry_run", dry_run_}, {"removed", std::move(names)}});
    } else if (dry_run_) {
      for (const Checkpoint& checkpoint : chosen) fmt::print("{}\n", printable(checkpoint.name()));
    }
  }

  std::string store_;
  std::vector<std::string> names_;
  std::string run_;
  RetentionPolicy policy_;
  bool dry_run_ = false;
};

}  // namespace

std::unique_ptr<Command> make_rm() { return std::make_unique<RmCommand>(); }

}  // namespace caisson::cli

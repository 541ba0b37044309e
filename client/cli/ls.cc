// caisson ls: the checkpoints of a store, newest last.
#include <fmt/format.h>

#include <algorithm>

#include "caisson/store.h"
#include "client/cli/commands.h"
#include "client/cli/indexed.h"
#include "client/cli/text.h"

namespace caisson::cli {
namespace {

Json json_of(const CheckpointInfo& info) {
  return {{"name", info.name},
          {"run", info.run},
          {"step", info.step},
          {"epoch", info.epoch},
          {"commit_seq", info.commit_seq},
          {"latest", info.latest},
          {"rolled_back", info.rolled_back},
          {"created_unix_ns", info.created_unix_ns},
          {"tensors", info.tensors},
          {"ranks", info.ranks},
          {"raw_bytes", info.raw_bytes},
          {"stored_bytes", info.stored_bytes},
          {"problem", info.problem},
          {"metadata", metadata_json(info.metadata_json)}};
}

class LsCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("run", run_, "Only this run");
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    std::vector<CheckpointInfo> infos = list(access, session);
    if (!run_.empty() && infos.empty()) {
      return not_found(
          fmt::format("run \"{}\": no checkpoints; caisson ls {} lists all", run_, store_));
    }
    std::sort(infos.begin(), infos.end(), [](const CheckpointInfo& a, const CheckpointInfo& b) {
      return std::pair(a.run, a.commit_seq) < std::pair(b.run, b.commit_seq);
    });
    if (session.globals.json) {
      Json list = Json::array();
      for (const CheckpointInfo& info : infos) list.push_back(json_of(info));
      print_json({{"schema", "caisson.ls/1"}, {"checkpoints", std::move(list)}});
      return 0;
    }
    print(infos);
    return 0;
  }

 private:
  std::vector<CheckpointInfo> list(StoreAccess& access, const Session& session) const {
    const auto state = access.state();
    IndexedAnswers answers(access, session);
    std::vector<CheckpointInfo> infos;
    for (const auto& [seq, checkpoint] : state->checkpoints()) {
      if (!run_.empty() && checkpoint.run != run_) continue;
      const Checkpoint* latest = state->latest(checkpoint.run);
      CheckpointInfo info{.name = checkpoint.name(),
                          .run = checkpoint.run,
                          .step = checkpoint.step,
                          .epoch = checkpoint.epoch,
                          .commit_seq = seq,
                          .latest = latest != nullptr && latest->seq == seq,
                          .rolled_back = checkpoint.rolled_back};
      const Result<CatalogEntry> entry = answers.catalog(checkpoint);
      if (entry.status().code() == StatusCode::kFenced) continue;  // given up just now
      if (!entry.ok()) {
        info.problem = entry.status().to_string();  // and goes on: it must not hide the others
      } else {
        info.created_unix_ns = entry->created_unix_ns;
        info.tensors = entry->tensors;
        info.ranks = entry->ranks;
        info.raw_bytes = entry->raw_bytes;
        info.stored_bytes = entry->stored_bytes;
        info.metadata_json = entry->metadata_json;
      }
      infos.push_back(std::move(info));
    }
    return infos;
  }

  static std::string remark(const CheckpointInfo& info) {
    if (!info.problem.empty()) return "DAMAGED: " + printable(info.problem);
    if (info.latest) return "latest";
    return info.rolled_back ? "rolled back" : "";
  }

  static void print(const std::vector<CheckpointInfo>& infos) {
    if (infos.empty()) return;
    Table table({"NAME", "COMMITTED", "TENSORS", "RANKS", "SIZE", "STORED", ""},
                {false, false, true, true, true, true, false});
    for (const CheckpointInfo& info : infos) {
      table.add({printable(info.name), utc_time(info.created_unix_ns), std::to_string(info.tensors),
                 std::to_string(info.ranks), human_bytes(info.raw_bytes),
                 human_bytes(info.stored_bytes), remark(info)});
    }
    table.print();
  }

  std::string store_;
  std::string run_;
};

}  // namespace

std::unique_ptr<Command> make_ls() { return std::make_unique<LsCommand>(); }

}  // namespace caisson::cli

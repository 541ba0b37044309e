// caisson ls: the checkpoints of a store, newest last.
#include <fmt/format.h>

#include <algorithm>

#include "caisson/store.h"
#include "client/cli/commands.h"
#include "client/cli/text.h"

namespace caisson::cli {
namespace {

Json json_of(const CheckpointInfo& info) {
  Json metadata = Json::parse(info.metadata_json, nullptr, false);
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
          {"metadata", metadata.is_discarded() ? Json::object() : std::move(metadata)}};
}

class LsCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("run", run_, "Only this run");
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<Store> store,
                             Store::open(store_, session.store_options(false)));
    CAISSON_ASSIGN_OR_RETURN(std::vector<CheckpointInfo> infos, store->checkpoints());
    if (!run_.empty()) std::erase_if(infos, [this](const auto& info) { return info.run != run_; });
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
  static void print(const std::vector<CheckpointInfo>& infos) {
    if (infos.empty()) return;
    Table table({"NAME", "COMMITTED", "TENSORS", "RANKS", "SIZE", "STORED", ""},
                {false, false, true, true, true, true, false});
    for (const CheckpointInfo& info : infos) {
      table.add({printable(info.name), utc_time(info.created_unix_ns), std::to_string(info.tensors),
                 std::to_string(info.ranks), human_bytes(info.raw_bytes),
                 human_bytes(info.stored_bytes),
                 info.latest ? "latest" : (info.rolled_back ? "rolled back" : "")});
    }
    table.print();
  }

  std::string store_;
  std::string run_;
};

}  // namespace

std::unique_ptr<Command> make_ls() { return std::make_unique<LsCommand>(); }

}  // namespace caisson::cli

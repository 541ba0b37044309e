// caisson stat: where the bytes of a store are, and what sharing and coding saved.
#include <fmt/format.h>

#include "client/cli/commands.h"
#include "client/cli/text.h"
#include "client/cli/usage.h"

namespace caisson::cli {
namespace {

Json json_of(const GcCount& count) { return {{"objects", count.objects}, {"bytes", count.bytes}}; }

class StatCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    IndexedAnswers answers(access, session);
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, measure_usage(access, answers, session.stop));
    session.globals.json ? print_document(usage) : print(usage);
    return 0;
  }

 private:
  void print_document(const Usage& usage) const {
    Json runs = Json::array();
    for (const auto& [name, run] : usage.runs) {
      runs.push_back({{"run", name},
                      {"checkpoints", run.checkpoints},
                      {"logical_bytes", run.logical_bytes},
                      {"newly_stored_bytes", run.newly_stored_bytes},
                      {"own_packs", json_of(run.own_packs)},
                      {"shared_packs", json_of(run.shared_packs)}});
    }
    print_json({{"schema", "caisson.stat/1"},
                {"store", store_},
                {"checkpoints", usage.checkpoints},
                {"logical_bytes", usage.logical_bytes},
                {"chunks", usage.chunks},
                {"chunk_raw_bytes", usage.chunk_raw_bytes},
                {"chunk_stored_bytes", usage.chunk_stored_bytes},
                {"sharing_saves", usage.sharing_saves()},
                {"coding_saves", usage.coding_saves()},
                {"own_packs", json_of(usage.own_packs)},
                {"shared_packs", json_of(usage.shared_packs)},
                {"metadata", json_of(usage.metadata)},
                {"log", json_of(usage.log)},
                {"in_progress", json_of(usage.in_progress)},
                {"reclaimable", json_of(usage.reclaimable)},
                {"other", json_of(usage.other)},
                {"runs", std::move(runs)}});
  }

  static void print(const Usage& usage) {
    fmt::print("{} checkpoints hold {}; their packs hold {} in {} chunks, stored as {}\n",
               usage.checkpoints, human_bytes(usage.logical_bytes),
               human_bytes(usage.chunk_raw_bytes), usage.chunks,
               human_bytes(usage.chunk_stored_bytes));
    fmt::print(
        "sharing saves {} ({}), coding {} ({} of the rest)\n", human_bytes(usage.sharing_saves()),
        percent(usage.sharing_saves(), usage.logical_bytes), human_bytes(usage.coding_saves()),
        percent(usage.coding_saves(), usage.chunk_raw_bytes));
    Table where({"WHERE", "OBJECTS", "SIZE"}, {false, true, true});
    const auto add = [&where](const char* name, const GcCount& count) {
      if (count.objects == 0) return;
      where.add({name, std::to_string(count.objects), human_bytes(count.bytes)});
    };
    add("packs of one checkpoint", usage.own_packs);
    add("packs that checkpoints share", usage.shared_packs);
    add("metadata", usage.metadata);
    add("log", usage.log);
    add("saves in progress or interrupted", usage.in_progress);
    add("reclaimable by gc", usage.reclaimable);
    add("temporary and other", usage.other);
    where.print();
    if (usage.runs.empty()) return;
    Table runs({"RUN", "CHECKPOINTS", "SIZE", "STORED", "OWN PACKS", "SHARED WITH OTHER RUNS"},
               {false, true, true, true, true, true});
    for (const auto& [name, run] : usage.runs) {
      runs.add({printable(name), std::to_string(run.checkpoints), human_bytes(run.logical_bytes),
                human_bytes(run.newly_stored_bytes), human_bytes(run.own_packs.bytes),
                human_bytes(run.shared_packs.bytes)});
    }
    runs.print();
  }

  std::string store_;
};

}  // namespace

std::unique_ptr<Command> make_stat() { return std::make_unique<StatCommand>(); }

}  // namespace caisson::cli

#include "bench/rank_cases.h"

#include <algorithm>

#include "bench/rank_team.h"
#include "bench/workbench.h"

namespace caisson::bench {

namespace {

using Json = RankTeam::Json;

constexpr uint32_t kRanksMax = 4;

// Four ranks that hold equal parts of the state and have the store open; the parent commits.
class Team {
 public:
  Status start(Workbench& bench, const std::string& name) {
    bench_ = &bench;
    name_ = name;
    uint32_t ranks = kRanksMax;
    while (bench.tensor_bytes() % (ranks * kTensorBytes) != 0) ranks /= 2;
    CAISSON_ASSIGN_OR_RETURN(store_, bench.open_store(name));
    CAISSON_ASSIGN_OR_RETURN(team_, RankTeam::start(ranks, bench.options().stop));
    bytes_ = bench.tensor_bytes();
    const StoreOptions& store = bench.options().store;
    CAISSON_ASSIGN_OR_RETURN(const std::vector<Json> answers,
                             team_->ask({{"do", "set up"},
                                         {"ranks", ranks},
                                         {"bytes", bytes_ / ranks},
                                         {"store", bench.url_of(name)},
                                         {"io_engine", store.io_engine},
                                         {"memory_bytes_max", store.memory_bytes_max}}));
    saved_sum_ = sum_of(answers);
    return {};
  }

  // From begin to committed, by all ranks at once.
  Status save(const std::string& name, std::vector<Json>* answers) {
    CAISSON_ASSIGN_OR_RETURN(const std::string ticket, store_->begin_save(name));
    CAISSON_ASSIGN_OR_RETURN(*answers, team_->ask({{"do", "save"}, {"ticket", ticket}}));
    std::vector<SealedPart> parts;
    for (const Json& answer : *answers) parts.push_back({answer.at("token")});
    return store_->commit_save(ticket, team_->ranks(), parts).status();
  }

  static uint64_t sum_of(const std::vector<Json>& answers) {
    uint64_t sum = 0;
    for (const Json& answer : answers) sum += answer.at("sum").get<uint64_t>();
    return sum;
  }
  uint64_t saved_sum() const { return saved_sum_; }
  RankTeam& ranks() { return *team_; }
  uint64_t bytes() const { return bytes_; }
  const std::string& name() const { return name_; }

 private:
  Workbench* bench_ = nullptr;
  std::string name_;  // of the store
  std::unique_ptr<Store> store_;
  std::unique_ptr<RankTeam> team_;
  uint64_t bytes_ = 0;
  uint64_t saved_sum_ = 0;
};

double total(const std::vector<Json>& answers, const char* key) {
  double sum = 0;
  for (const Json& answer : answers) sum += answer.at(key).get<double>();
  return sum;
}

void add_usage(Workbench& bench, Round& round, uint64_t bytes, double own_cpu_seconds,
               const std::vector<Json>& answers) {
  add_cpu(round, bytes, own_cpu_seconds + total(answers, "cpu_seconds"));
  int64_t extra = 0;
  for (const Json& answer : answers) {
    extra = std::max(extra, answer.at("extra_bytes").get<int64_t>());
  }
  add_memory(round, bench.options(), extra);  // of the process that took most
}

class SaveRanksCase final : public Case {
 public:
  Status prepare(Workbench& bench) override { return team_.start(bench, "ranks-store"); }

  Status run(Workbench& bench, Round& round) override {
    CAISSON_RETURN_IF_ERROR(team_.ranks().ask({{"do", "change"}, {"seed", round.number}}).status());
    std::vector<Json> answers;
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed([&] {
      return team_.save("ranks/" + std::to_string(round.number), &answers);
    }));
    add_ratio(round, team_.bytes(), usage.seconds, round.limits.write, 0.88);
    add_rate(round, team_.bytes(), usage.seconds);
    add_usage(bench, round, team_.bytes(), usage.cpu_seconds, answers);
    return bench.discard_packs(team_.name());
  }

 private:
  Team team_;
};

// Rows were saved; every rank wants its columns of all of them, into touched memory.
class ReshardCase final : public Case {
 public:
  Status prepare(Workbench& bench) override {
    CAISSON_RETURN_IF_ERROR(team_.start(bench, "reshard-store"));
    std::vector<Json> ignored;
    CAISSON_RETURN_IF_ERROR(team_.save(kName, &ignored));
    return bench.settle();
  }

  Status run(Workbench& bench, Round& round) override {
    CAISSON_RETURN_IF_ERROR(team_.ranks().ask({{"do", "clear"}}).status());
    std::vector<Json> answers;
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed([&]() -> Status {
      CAISSON_ASSIGN_OR_RETURN(answers, team_.ranks().ask({{"do", "restore"}, {"name", kName}}));
      return {};
    }));
    CAISSON_ASSIGN_OR_RETURN(const std::vector<Json> sums, team_.ranks().ask({{"do", "sum"}}));
    if (Team::sum_of(sums) != team_.saved_sum()) {
      return corruption("bench: the restored tensors differ from the saved ones");
    }
    add_ratio(round, team_.bytes(), usage.seconds, round.limits.read, 0.85);
    add_rate(round, team_.bytes(), usage.seconds);
    round.add({.name = "read / needed", .unit = "x", .better = Better::kLower, .target = 1.05},
              total(answers, "read_bytes") / static_cast<double>(team_.bytes()));
    add_usage(bench, round, team_.bytes(), usage.cpu_seconds, answers);
    return {};
  }

 private:
  static constexpr const char* kName = "reshard/1";
  Team team_;
};

}  // namespace

std::unique_ptr<Case> make_save_ranks() { return std::make_unique<SaveRanksCase>(); }
std::unique_ptr<Case> make_reshard() { return std::make_unique<ReshardCase>(); }

}  // namespace caisson::bench

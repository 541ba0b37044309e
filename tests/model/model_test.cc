// Every state that a few processes on one log can reach, with the engine's own rules: no violation
// is found; and with any one rule taken out, one is. docs/commit.md, "The search", has the counts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "io/base/mutant.h"
#include "tests/model/world.h"

namespace caisson::model {
namespace {

struct Found {
  size_t states = 0;
  size_t logs = 0;
  std::string violation;
  std::vector<std::string> trace;
};

class Search {
 public:
  explicit Search(const Scenario& scenario) : world_(scenario) {}

  Found run() {
    visit(world_.start(), 0);
    for (size_t at = 0; at < states_.size(); ++at) {
      const State from = states_[at];
      for (const World::Step& step : world_.steps(from)) {
        if (!step.violation.empty()) return found(step.violation, at, step);
        if (!visit(step.to, at)) continue;
        const std::string wrong = world_.violation(step.to);
        if (!wrong.empty()) return found(wrong, at, step);
      }
    }
    return {states_.size(), world_.logs(), {}, {}};
  }

 private:
  struct Hash {
    size_t operator()(const State& state) const {
      return std::hash<std::string_view>()({reinterpret_cast<const char*>(&state), sizeof state});
    }
  };

  bool visit(const State& state, size_t parent) {
    if (!seen_.insert(state).second) return false;
    states_.push_back(state);
    parents_.push_back(static_cast<uint32_t>(parent));
    return true;
  }
  Found found(const std::string& violation, size_t at, const World::Step& last) {
    Found found{states_.size(), world_.logs(), violation, {world_.describe(last)}};
    for (; at != 0; at = parents_[at]) {
      for (const World::Step& step : world_.steps(states_[parents_[at]])) {
        if (!(step.to == states_[at])) continue;
        found.trace.push_back(world_.describe(step));
        break;
      }
    }
    std::reverse(found.trace.begin(), found.trace.end());
    return found;
  }

  World world_;
  std::vector<State> states_;
  std::vector<uint32_t> parents_;
  std::unordered_set<State, Hash> seen_;
};

std::vector<Scenario> scenarios() {
  using enum Kind;
  return {
      {.name = "takeover",
       .processes = {kBaseWriter, kPlainWriter, kTakeover},
       .steps = {20, 20, 20},
       .faults = 1},
      {.name = "two takeovers", .processes = {kTakeover, kTakeover, kPruner}, .steps = {20, 21}},
      {.name = "gc",
       .processes = {kBaseWriter, kIndexWriter, kPruner, kCollector},
       .steps = {20, 21}},
      {.name = "two collections",
       .processes = {kIndexWriter, kPruner, kCollector, kCollector},
       .steps = {20}},
      {.name = "crashes",
       .processes = {kBaseWriter, kPruner, kCollector},
       .steps = {20},
       .collections = 2,
       .faults = 1,
       .crashes = 1},
      {.name = "restores",
       .processes = {kBaseWriter, kPruner, kCollector, kRestorer},
       .steps = {20},
       .prunes = 2},
      {.name = "power loss",
       .processes = {kBaseWriter, kPruner, kCollector, kCollector},
       .steps = {20},
       .power_loss = true},
      {.name = "fenced beside gc",
       .processes = {kBaseWriter, kTakeover, kPruner, kCollector},
       .steps = {20, 20}},
      {.name = "two rewrites", .processes = {kRewriter, kRewriter, kPruner, kCollector}},
      {.name = "rewrite beside saves",
       .processes = {kRewriter, kBaseWriter, kCollector, kRestorer},
       .steps = {0, 20}},
      {.name = "rewrite, takeover",
       .processes = {kRewriter, kTakeover, kCollector},
       .steps = {0, 20},
       .faults = 1,
       .crashes = 1},
      {.name = "rewrite, power loss",
       .processes = {kRewriter, kPruner, kCollector, kRestorer},
       .power_loss = true},
      {.name = "three writers",
       .processes = {kBaseWriter, kIndexWriter, kTakeover, kCollector},
       .steps = {20, 21, 20}},
  };
}

struct Rule {
  const char* name;
  const char* says;
};
// Each is one CAISSON_MUTANT, in engine/log_state.cc or in tests/model/world.cc.
constexpr Rule kRules[] = {
    {"claim_fences", "a claim ends every open save of its run"},
    {"claim_needs_next_epoch", "a claim raises the epoch by one"},
    {"claim_sets_latest", "a claim says where the run continues"},
    {"open_needs_epoch", "a save opens in the run's present epoch"},
    {"open_needs_live_bases", "the bases of a save are live when it opens"},
    {"commit_needs_open_save", "only an open save commits"},
    {"commit_needs_free_name", "a name has one live checkpoint"},
    {"commit_checks_condemned", "a writer does not commit what needs a condemned pack"},
    {"prune_follows_the_line", "latest falls back along its own line"},
    {"gc_keeps_bases", "the bases of open saves are kept"},
    {"bases_as_opened", "they are kept as they were when the save opened"},
    {"replace_needs_open_save", "only an open save replaces a root"},
    {"replace_needs_current_root", "only who knows the present root replaces it"},
    {"readers_ask_again", "a reader that misses an object asks the log again"},
    {"gc_condemns_first", "gc deletes only what a record condemns"},
    {"gc_syncs_the_log", "gc makes the records it read durable before it deletes"},
    {"create_once", "appending never overwrites"},
    {"append_checks_again", "whoever loses a place looks at the record that took it"},
    {"nonce_is_compared", "after an unknown outcome the nonce decides whose record it is"},
    {"sync_before_ok", "a record's name is durable before its writer is told"},
};

TEST(ModelTest, NoStateBreaksAPromise) {
  size_t states = 0;
  for (const Scenario& scenario : scenarios()) {
    const Found found = Search(scenario).run();
    std::printf("  %-20s %8zu states, %6zu logs\n", scenario.name.c_str(), found.states,
                found.logs);
    std::string trace;
    for (const std::string& step : found.trace) trace += "\n    " + step;
    EXPECT_EQ(found.violation, "") << scenario.name << trace;
    states += found.states;
  }
  std::printf("  together             %8zu states\n", states);
}

TEST(ModelTest, EveryRuleIsNeeded) {
  for (const Rule& rule : kRules) {
    active_mutant() = rule.name;
    Found found;
    std::string where;
    for (const Scenario& scenario : scenarios()) {
      found = Search(scenario).run();
      where = scenario.name;
      if (!found.violation.empty()) break;
    }
    active_mutant() = nullptr;
    EXPECT_NE(found.violation, "") << "without \"" << rule.says << "\" nothing goes wrong";
    std::printf("  without \"%s\" (%s):\n    %s\n", rule.says, where.c_str(),
                found.violation.c_str());
    for (const std::string& step : found.trace) std::printf("      %s\n", step.c_str());
  }
}

}  // namespace
}  // namespace caisson::model

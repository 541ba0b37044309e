// The world that the search walks through: one log, the objects of a few saves, and processes that
// take one storage operation at a time. The rules are the engine's own (LogState, LiveObjects,
// next_condemn); the processes follow log.cc, commit.cc and gc.cc step by step.
//
// What may go wrong, within the scenario's budget: a process stops for good; the outcome of a put
// is not learned (it happened, it did not, or it happens later); a reader sees any earlier state of
// the log; a record is visible before its name is durable.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "engine/gc_plan.h"
#include "tests/model/log_tree.h"

namespace caisson::model {

inline constexpr size_t kProcesses = 5;
inline constexpr size_t kSaves = 8;  // 1 and 2 are there at the start, 3 on are the writers'

enum class Kind : uint8_t {
  kNone,
  kBaseWriter,   // dedups against the latest checkpoint, which its `open` names
  kIndexWriter,  // dedups against whatever it once saw, without naming it
  kPlainWriter,  // shares nothing
  kTakeover,     // claims the run, from any checkpoint, then saves like kBaseWriter
  kRewriter,     // gives a checkpoint another root: all of it anew, or but for one pack shared
  kPruner,
  kCollector,
  kRestorer,
};

struct Scenario {
  std::string name;
  std::array<Kind, kProcesses> processes{};
  std::array<uint8_t, kProcesses> steps{};  // what writers call their checkpoints
  uint8_t prunes = 1;                       // of each pruner
  uint8_t collections = 1;  // of each collector: run one after the other, stopped anywhere
  uint8_t faults = 0;       // puts whose outcome nobody learns
  uint8_t crashes = 0;
  bool power_loss = false;  // linking and syncing are two steps; power may fail between
};

struct Process {
  uint8_t pc = 0;
  uint8_t sub = 0;   // of an append: see world.cc
  uint8_t view = 0;  // records read
  uint8_t epoch = 0;
  uint8_t base = 0;  // seq; of restorers: what they read
  uint8_t rounds = 0;
  uint16_t listed = 0;  // objects that a collector saw
  uint8_t root = 0;     // the save whose root the base had when the process read or opened it
  uint8_t unused = 0;
  bool operator==(const Process&) const = default;
};

struct State {
  LogId log = 0;
  LogId pending = 0;                    // a log whose last record is still under way; 0: none
  uint16_t objects = 0;                 // bit 2s: the pack of save s; 2s + 1: its root
  uint16_t acked = 0;                   // saves whose writer was told that they are durable
  std::array<uint8_t, kSaves> needs{};  // packs that the root of save s lists, as bits
  uint8_t durable = 0;                  // records that no power loss can take
  uint8_t faults = 0;
  uint8_t crashes = 0;
  uint8_t unused = 0;
  std::array<Process, kProcesses> processes{};
  std::array<uint8_t, 2> padding{};
  bool operator==(const State&) const = default;
};
static_assert(std::has_unique_object_representations_v<State>);

class World {
 public:
  explicit World(const Scenario& scenario);

  State start();
  struct Step {
    State to;
    const char* what = "";  // with `how`: the line of a trace
    const char* how = "";
    uint8_t process = 0;
    std::string violation;  // found while stepping
  };
  std::vector<Step> steps(const State& state);
  std::string describe(const Step& step) const;
  // What no state may show; empty: nothing.
  std::string violation(const State& state);
  size_t logs() const { return tree_.size(); }

 private:
  friend class Stepper;
  uint8_t save_of(size_t process) const { return static_cast<uint8_t>(3 + process); }

  const Scenario scenario_;
  LogTree tree_;
};

}  // namespace caisson::model

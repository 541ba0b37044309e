#include "tests/model/world.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "io/base/mutant.h"
#include "tests/support/log_records.h"

namespace caisson::model {

using format::CommitSeq;
using format::LogBody;
using format::ObjectKind;
using format::ObjectRef;

namespace {

// A process decides what it wants (epoch, base) when it first reads, and is refused when that has
// become impossible; Log::append's callers look again, which only makes fewer things happen.
//
// Where a process is. Writers and rewriters: kRead, kClaim, kOpen, kWrite, kCommit; pruners: kRead,
// kPrune; collectors: kRead, kClose, kCondemn, kDelete; restorers: kRead, kFetch.
enum Pc : uint8_t {
  kRead,
  kClaim,
  kOpen,
  kWrite,
  kCommit,
  kPrune,
  kClose,
  kCondemn,
  kDelete,
  kFetch,
  kDone,
  kCrashed
};
// Where an append is: not tried, linked but not synced, tried without learning the outcome.
enum Sub : uint8_t { kReady, kLinked, kUnsure };

constexpr uint8_t kFirstEpoch = 1;
constexpr uint8_t kFirstStep = 10;

ObjectRef object_at(size_t bit) {
  return object_of(static_cast<uint8_t>(bit / 2),
                   bit % 2 == 0 ? ObjectKind::kPack : ObjectKind::kRoot);
}
size_t save_index(const Uuid& save) { return std::to_integer<size_t>(save.bytes.back()); }
uint8_t latest_in(const LogState& state) {
  const Checkpoint* latest = state.latest("r");
  return latest == nullptr ? uint8_t{0} : static_cast<uint8_t>(latest->seq);
}
uint8_t root_in(const LogState& state, CommitSeq checkpoint) {
  return static_cast<uint8_t>(save_index(state.checkpoints().at(checkpoint).save));
}
void look_at_base(const LogState& state, Process& process) {
  if (state.checkpoints().contains(process.base)) process.root = root_in(state, process.base);
}
uint16_t bit(size_t at) { return static_cast<uint16_t>(1u << at); }

}  // namespace

// The moves of one process from one state.
class Stepper {
 public:
  Stepper(World& world, const State& state, size_t index, std::vector<World::Step>& out)
      : world_(world), tree_(world.tree_), from_(state), index_(index), out_(out) {}

  void run() {
    const Process& me = from_.processes[index_];
    if (me.pc == kDone || me.pc == kCrashed || kind() == Kind::kNone) return;
    if (from_.crashes < world_.scenario_.crashes && is_writer() && me.pc != kRead) {
      State to = from_;
      ++to.crashes;
      to.processes[index_].pc = kCrashed;
      emit(to, "stops for good");
    }
    switch (me.pc) {
      case kRead:
        return read();
      case kClaim:
        return claim();
      case kOpen:
        return open();
      case kWrite:
        return write();
      case kCommit:
        return commit();
      case kPrune:
        return prune();
      case kClose:
        return close();
      case kCondemn:
        return condemn();
      case kDelete:
        return remove();
      case kFetch:
        return fetch();
      default:
        return;
    }
  }

 private:
  Kind kind() const { return world_.scenario_.processes[index_]; }
  bool is_writer() const { return kind() >= Kind::kBaseWriter && kind() <= Kind::kRewriter; }
  // A rewriter's save is called like the checkpoint that it is for.
  uint64_t step() const {
    if (kind() != Kind::kRewriter) return world_.scenario_.steps[index_];
    const CommitSeq base = from_.processes[index_].base;
    return tree_.state(tree_.prefix(from_.log, static_cast<uint32_t>(base)))
        .checkpoints()
        .at(base)
        .step;
  }
  uint8_t save() const { return world_.save_of(index_); }
  uint8_t length() const { return static_cast<uint8_t>(tree_.length(from_.log)); }
  const LogState& seen() const {
    return tree_.state(tree_.prefix(from_.log, from_.processes[index_].view));
  }
  void emit(const State& to, const char* what, const char* how = "", const char* violation = "") {
    out_.push_back({to, what, how, static_cast<uint8_t>(index_), violation});
  }

  // Sees any state of the log between what it saw and what is there.
  void read() {
    for (uint8_t view = from_.processes[index_].view; view <= length(); ++view) {
      State to = from_;
      Process& me = to.processes[index_];
      me.view = view;
      const LogState& state = tree_.state(tree_.prefix(from_.log, view));
      switch (kind()) {
        case Kind::kTakeover:
          me.epoch = static_cast<uint8_t>(state.runs().at("r").epoch + 1);
          me.pc = kClaim;
          break;
        case Kind::kPruner:
          me.pc = kPrune;
          break;
        case Kind::kCollector:
          me.pc = kClose;
          me.listed = from_.objects;
          break;
        case Kind::kRestorer:
          me.base = latest_in(state);
          look_at_base(state, me);
          me.pc = me.base == 0 ? kDone : kFetch;
          break;
        case Kind::kRewriter:
          me.epoch = static_cast<uint8_t>(state.runs().at("r").epoch);
          me.base = latest_in(state);
          look_at_base(state, me);
          me.pc = me.base == 0 ? kDone : kOpen;
          break;
        default:
          me.epoch = kFirstEpoch;
          me.base = kind() == Kind::kBaseWriter ? latest_in(state) : uint8_t{0};
          look_at_base(state, me);
          me.pc = kOpen;
      }
      emit(to, "reads", view < length() ? ": an old state" : "");
    }
  }

  // Log::append: `then` runs in the state in which the process knows that its record is in.
  void append(const std::optional<LogBody>& body, const char* what,
              const std::function<void(State&, Process&)>& then) {
    const Process& me = from_.processes[index_];
    const auto succeed = [&](State to, const char* how) {
      Process& mine = to.processes[index_];
      mine.sub = kReady;
      then(to, mine);
      emit(to, what, how);
    };
    if (me.sub == kLinked) {
      State to = from_;
      to.durable = length();  // a directory's sync takes every name in it
      return succeed(to, ": synced");
    }
    if (me.sub == kUnsure) return resolve(what, succeed);
    if (!body || !seen().check(*body).ok()) return refused(what);
    if (me.view < length() && !CAISSON_MUTANT(create_once)) return lose_race(what, succeed);
    State to = from_;
    Process& mine = to.processes[index_];
    LogId log = tree_.append(tree_.prefix(from_.log, me.view), *body, static_cast<uint8_t>(index_));
    for (uint32_t at = me.view + 2u; at <= length(); ++at) {  // only when overwriting
      const format::LogRecord& record = tree_.last(tree_.prefix(from_.log, at));
      log = tree_.append(log, record.body, static_cast<uint8_t>(record.writer.pid));
    }
    to.log = log;
    mine.view = static_cast<uint8_t>(me.view + 1);
    if (world_.scenario_.power_loss && !CAISSON_MUTANT(sync_before_ok)) {
      mine.sub = kLinked;
      emit(to, what, ": linked");
    } else {
      if (!world_.scenario_.power_loss) to.durable = static_cast<uint8_t>(tree_.length(log));
      succeed(to, ": appended");
    }
    if (from_.faults < world_.scenario_.faults) fail_put(log, what);
  }

  // The put gives an error: it happened, it did not, or it is still under way.
  void fail_put(LogId log, const char* what) {
    for (int outcome = 0; outcome < 3; ++outcome) {
      State to = from_;
      ++to.faults;
      to.processes[index_].sub = kUnsure;
      if (outcome == 0) {
        to.log = log;
        if (!world_.scenario_.power_loss) to.durable = static_cast<uint8_t>(tree_.length(log));
      }
      if (outcome == 2) {
        if (to.pending != 0) continue;
        to.pending = log;
      }
      static constexpr const char* kHow[] = {": error, though appended", ": error, not appended",
                                             ": error, still under way"};
      emit(to, what, kHow[outcome]);
    }
  }

  // After an unknown outcome: reads the record at that place and compares the nonce.
  void resolve(const char* what, const std::function<void(State, const char*)>& succeed) {
    const Process& me = from_.processes[index_];
    // The read may fail too, or see nothing: the writer is told that the outcome is unknown.
    State gone = from_;
    gone.processes[index_].pc = kDone;
    emit(gone, what, ": outcome unknown, gives up");
    if (me.view >= length()) return;
    const format::LogRecord& there = tree_.last(tree_.prefix(from_.log, me.view + 1u));
    State to = from_;
    ++to.processes[index_].view;
    if (!CAISSON_MUTANT(sync_before_ok)) to.durable = length();
    if (there.writer.pid == index_ || CAISSON_MUTANT(nonce_is_compared)) {
      return succeed(to, ": finds its record");
    }
    to.processes[index_].sub = kReady;
    emit(to, what, ": finds another's record");
  }

  // "Already exists": reads on, to any state that is there by now.
  void lose_race(const char* what, const std::function<void(State, const char*)>& succeed) {
    for (uint8_t view = from_.processes[index_].view + 1; view <= length(); ++view) {
      State to = from_;
      to.processes[index_].view = view;
      if (CAISSON_MUTANT(append_checks_again) && view == length()) {
        // Puts what it had made for the older state.
        to.log = tree_.append(from_.log, made_, static_cast<uint8_t>(index_));
        to.durable = static_cast<uint8_t>(tree_.length(to.log));
        ++to.processes[index_].view;
        succeed(to, ": appended without looking again");
        continue;
      }
      emit(to, what, ": place taken, reads on");
    }
  }
  void refused(const char* what) {
    State to = from_;
    to.processes[index_].pc = kDone;
    emit(to, what, ": refused");
  }

  void claim() {
    const LogState& state = seen();
    const Process& me = from_.processes[index_];
    // From nothing, or from any checkpoint; chosen when the record is made.
    std::vector<CommitSeq> bases;
    if (me.sub == kReady) {
      bases.push_back(0);
      for (const auto& [seq, checkpoint] : state.checkpoints()) bases.push_back(seq);
    } else {
      bases.push_back(0);  // not looked at
    }
    for (const CommitSeq base : bases) {
      made_ = claim_run(me.epoch, base);
      append(made_, base == 0 ? "claims, from nothing" : "claims, from a checkpoint",
             [&](State& to, Process& mine) {
               const LogState& then = tree_.state(tree_.prefix(to.log, mine.view));
               mine.base = latest_in(then);
               look_at_base(then, mine);
               mine.pc = kOpen;
             });
    }
  }

  void open() {
    const Process& me = from_.processes[index_];
    format::OpenRecord body = open_save(save(), step(), me.epoch);
    if (me.base != 0) body.bases.push_back(me.base);
    made_ = body;
    append(made_, "opens", [&](State& to, Process& mine) {
      mine.pc = kWrite;
      // What the base refers to in the state that the record follows is what is shared. Of a base
      // that is not live there, which no correct log lets pass, it is what was seen before.
      look_at_base(tree_.state(tree_.prefix(to.log, mine.view)), mine);
    });
  }

  // Packs and root, durable; decides what it refers to.
  void write() {
    const uint8_t own = static_cast<uint8_t>(bit(save()));
    const uint8_t shared = from_.needs[from_.processes[index_].root];  // of save 0: nothing
    if (kind() == Kind::kRewriter) {
      write_needing(own, "writes everything anew");
      // All but the first pack is kept.
      return write_needing(static_cast<uint8_t>(own | (shared & (shared - 1u))), "writes in part");
    }
    uint8_t needs = own | shared;
    if (kind() == Kind::kIndexWriter && !seen().is_condemned(object_at(4))) {
      needs |= static_cast<uint8_t>(bit(2));
    }
    write_needing(needs, needs == own ? "writes everything" : "writes, sharing chunks");
  }

  void write_needing(uint8_t needs, const char* what) {
    State to = from_;
    Process& me = to.processes[index_];
    to.needs[save()] = needs;
    to.objects |= static_cast<uint16_t>(bit(2u * save()) | bit(2u * save() + 1u));
    me.pc = kCommit;
    emit(to, what);
  }

  bool needs_condemned() const {
    for (size_t s = 0; s < kSaves; ++s) {
      if ((from_.needs[save()] & bit(s)) != 0 && seen().is_condemned(object_at(2 * s))) return true;
    }
    return false;
  }

  void commit() {
    const Process& me = from_.processes[index_];
    if (kind() == Kind::kRewriter) {
      made_ = format::ReplaceRecord{me.base, root_of(me.root), root_of(save())};
    } else {
      made_ = commit_save(save(), step(), me.epoch);
    }
    if (me.sub == kReady && !CAISSON_MUTANT(commit_checks_condemned) && needs_condemned()) {
      State to = from_;
      to.processes[index_].pc = kDone;
      const bool promised = me.base != 0 && seen().open_saves().contains(numbered_uuid(save()));
      return emit(
          to, "is refused: a pack it needs was condemned", "",
          promised ? "a save that nobody fenced lost the base that its open record names" : "");
    }
    const char* what = kind() == Kind::kRewriter ? "replaces the root" : "commits";
    append(made_, what, [&](State& to, Process& mine) {
      to.acked |= bit(save());
      mine.pc = kDone;
    });
  }

  void next_round(Process& me) const {
    ++me.rounds;
    const uint8_t rounds =
        kind() == Kind::kPruner ? world_.scenario_.prunes : world_.scenario_.collections;
    me.pc = me.rounds < rounds ? kRead : kDone;
  }

  void prune() {
    const Process& me = from_.processes[index_];
    std::vector<CommitSeq> choices;
    for (const auto& [seq, checkpoint] : seen().checkpoints()) choices.push_back(seq);
    if (me.sub != kReady) choices = {0};  // not looked at
    for (const CommitSeq seq : choices) {
      made_ = format::PruneRecord{seq};
      append(made_, "prunes", [&](State&, Process& mine) { next_round(mine); });
    }
    if (choices.empty()) refused("prunes");
  }

  // gc, step 1: saves of crashed writers.
  void close() {
    if (from_.processes[index_].sub != kReady) {
      return append({}, "closes a save", [](State&, Process&) {});
    }
    for (size_t i = 0; i < kProcesses; ++i) {
      const Uuid save = numbered_uuid(world_.save_of(i));
      if (from_.processes[i].pc != kCrashed || !seen().open_saves().contains(save)) continue;
      made_ = format::CloseRecord{save};
      return append(made_, "closes the save of a dead writer", [](State&, Process&) {});
    }
    State to = from_;
    to.processes[index_].pc = kCondemn;
    emit(to, "has nothing to close");
  }

  LiveObjects live_in(const LogState& state) const {
    LiveObjects live;
    for (const format::SealedRef& sealed : state.roots_to_keep()) {
      format::Root root;
      std::vector<format::SealedRef> packs;
      root.object = sealed.object;
      root.directory = sealed;
      for (size_t s = 0; s < kSaves; ++s) {
        if ((from_.needs[save_index(sealed.object.save)] & bit(s)) != 0) {
          packs.push_back({object_at(2 * s), 1, {}});
        }
      }
      live.add(sealed, root, packs);
    }
    return live;
  }
  std::vector<ObjectRef> listed() const {
    std::vector<ObjectRef> objects;
    for (size_t at = 0; at < 2 * kSaves; ++at) {
      if ((from_.processes[index_].listed & bit(at)) != 0) objects.push_back(object_at(at));
    }
    return objects;
  }

  // gc, steps 3 and 4.
  void condemn() {
    const Process& me = from_.processes[index_];
    const auto record = next_condemn(seen(), live_in(seen()), listed());
    const bool nothing = record.objects.empty() && record.saves.empty();
    if (me.sub == kReady && (nothing || CAISSON_MUTANT(gc_condemns_first))) {
      State to = from_;
      to.processes[index_].pc = kDelete;
      return emit(to, nothing ? "has nothing more to condemn" : "goes on to delete at once");
    }
    made_ = record;
    append(made_, "condemns", [](State&, Process&) {});
    if (me.sub != kReady) return;
    State to = from_;
    next_round(to.processes[index_]);
    emit(to, "stops before it condemns");
  }

  // gc, steps 5 and 6; or it stops before.
  void remove() {
    State stopped = from_;
    next_round(stopped.processes[index_]);
    emit(stopped, "stops before it deletes");
    State to = from_;
    if (!CAISSON_MUTANT(gc_syncs_the_log)) to.durable = length();
    const LiveObjects live = live_in(seen());
    const auto record = next_condemn(seen(), live, listed());
    const auto planned = [&](const ObjectRef& object) {
      return std::find(record.saves.begin(), record.saves.end(), object.save) !=
                 record.saves.end() ||
             std::find(record.objects.begin(), record.objects.end(), object) !=
                 record.objects.end();
    };
    for (size_t at = 0; at < 2 * kSaves; ++at) {
      if ((from_.processes[index_].listed & bit(at)) == 0) continue;
      const ObjectRef object = object_at(at);
      const bool condemned = fate_of(seen(), live, object) == Fate::kCondemned;
      if (condemned || (CAISSON_MUTANT(gc_condemns_first) && planned(object))) {
        to.objects &= static_cast<uint16_t>(~bit(at));
      }
    }
    next_round(to.processes[index_]);
    emit(to, "deletes");
  }

  // A reader that misses an object asks the log again: gone, or to be read through another root.
  void fetch() {
    State to = from_;
    Process& me = to.processes[index_];
    me.pc = kDone;
    const size_t wanted = me.root;
    bool whole = (from_.objects & bit(2 * wanted + 1)) != 0;
    for (size_t s = 0; s < kSaves; ++s) {
      if ((from_.needs[wanted] & bit(s)) != 0) whole = whole && (from_.objects & bit(2 * s)) != 0;
    }
    if (whole) return emit(to, "restores");
    const LogState& now = tree_.state(from_.log);
    if (!now.checkpoints().contains(me.base)) return emit(to, "finds its checkpoint gone");
    const uint8_t root = root_in(now, me.base);
    if (root == me.root || CAISSON_MUTANT(readers_ask_again)) {
      return emit(to, "misses an object", "", "a restore of a live checkpoint failed");
    }
    me.root = root;
    me.pc = kFetch;
    emit(to, "misses an object and finds another root");
  }

  World& world_;
  LogTree& tree_;
  const State from_;
  const size_t index_;
  std::vector<World::Step>& out_;
  LogBody made_;
};

World::World(const Scenario& scenario) : scenario_(scenario) {}

// Checkpoint r/10 is save 1; r/11 is save 2, which shares the pack of save 1.
State World::start() {
  State state;
  const LogBody prologue[] = {claim_run(kFirstEpoch), open_save(1, kFirstStep),
                              commit_save(1, kFirstStep), open_save(2, kFirstStep + 1, 1, {3}),
                              commit_save(2, kFirstStep + 1)};
  for (const LogBody& body : prologue) state.log = tree_.append(state.log, body, 0xff);
  state.durable = static_cast<uint8_t>(tree_.length(state.log));
  state.objects = static_cast<uint16_t>(bit(2) | bit(3) | bit(4) | bit(5));
  state.needs[1] = static_cast<uint8_t>(bit(1));
  state.needs[2] = static_cast<uint8_t>(bit(1) | bit(2));
  for (Process& process : state.processes) process.view = state.durable;
  return state;
}

std::vector<World::Step> World::steps(const State& state) {
  std::vector<Step> out;
  if (state.pending != 0) {
    State to = state;
    to.pending = 0;
    const uint32_t place = tree_.length(state.pending);
    // Create-once: it lands on the log that it was made for, or not at all.
    if (tree_.prefix(state.pending, place - 1) == state.log) {
      to.log = state.pending;
      if (!scenario_.power_loss) to.durable = static_cast<uint8_t>(place);
      out.push_back({to, "a put that was under way lands", "", kProcesses, {}});
    } else {
      out.push_back({to, "a put that was under way finds its place taken", "", kProcesses, {}});
    }
  }
  for (size_t i = 0; i < kProcesses; ++i) Stepper(*this, state, i, out).run();
  return out;
}

std::string World::describe(const Step& step) const {
  static constexpr const char* kNames[] = {"-",      "base writer", "index writer",
                                           "writer", "takeover",    "rewriter",
                                           "pruner", "gc",          "restorer"};
  static_assert(std::size(kNames) == static_cast<size_t>(Kind::kRestorer) + 1);
  std::string line;
  if (step.process < kProcesses) {
    line = kNames[static_cast<size_t>(scenario_.processes[step.process])];
    line += " " + std::to_string(step.process) + " ";
  }
  return line + step.what + step.how;
}

std::string World::violation(const State& state) {
  if (!tree_.fault(state.log).empty()) return tree_.fault(state.log);
  const uint32_t length = tree_.length(state.log);
  for (uint32_t end = state.durable; end <= length; ++end) {  // each may be what power loss leaves
    for (const auto& [seq, checkpoint] : tree_.state(tree_.prefix(state.log, end)).checkpoints()) {
      const size_t save = save_index(checkpoint.save);
      if ((state.objects & bit(2 * save + 1)) == 0) return checkpoint.name() + " lost its root";
      for (size_t s = 0; s < kSaves; ++s) {
        if ((state.needs[save] & bit(s)) == 0 || (state.objects & bit(2 * s)) != 0) continue;
        return checkpoint.name() + " refers to a deleted pack";
      }
    }
  }
  for (size_t i = 0; i < kProcesses; ++i) {
    const uint8_t save = save_of(i);
    if ((state.acked & bit(save)) == 0) continue;
    bool found = false;
    for (uint32_t at = 1; at <= state.durable && !found; ++at) {
      const LogId log = tree_.prefix(state.log, at);
      if (!tree_.last_had_effect(log)) continue;
      const LogBody& body = tree_.last(log).body;
      const auto* commit = std::get_if<format::CommitRecord>(&body);
      const auto* replace = std::get_if<format::ReplaceRecord>(&body);
      const bool is_its =
          (commit != nullptr && commit->save == numbered_uuid(save)) ||
          (replace != nullptr && replace->new_root.object.save == numbered_uuid(save));
      if (!is_its) continue;
      const uint64_t epoch = tree_.state(log).runs().at("r").epoch;
      if (epoch != state.processes[i].epoch) {
        return "a fenced writer was told that its save is committed";
      }
      found = true;
    }
    if (!found) return "a save was acknowledged that is not durably in the log";
  }
  return {};
}

}  // namespace caisson::model

// What a prefix of the log means: a pure fold over records, the same everywhere, without clocks or
// listings. docs/commit.md states the rules; tests/model searches them exhaustively.
// Thread-compatible. Copies cost what is alive, not what has been.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/format/log_record.h"
#include "engine/format/root.h"
#include "engine/uuid_set.h"

namespace caisson {

struct OpenSave {
  Uuid save;
  std::string run;
  uint64_t step = 0, epoch = 0;
  std::vector<format::CommitSeq> bases;
  // The roots of the bases when the save was opened: what they refer to stays, also when a base is
  // pruned or its root replaced before the save ends.
  std::vector<format::SealedRef> base_roots;
  uint64_t opened_seq = 0;
  format::WriterInfo writer;
};

struct Checkpoint {
  format::CommitSeq seq = 0;
  Uuid save;
  std::string run;
  uint64_t step = 0, epoch = 0;
  format::SealedRef root;
  format::WriterInfo writer;
  // The live checkpoint that the run stood at when this one was committed; 0: none.
  format::CommitSeq parent = 0;
  // A later claim continued from an older checkpoint: kept and readable by name, never `latest`.
  bool rolled_back = false;
  std::string name() const { return run + "/" + std::to_string(step); }
};

struct RunState {
  uint64_t epoch = 0;
  format::CommitSeq latest = 0;  // 0: none
  format::WriterInfo claimed_by;
};

class LogState {
 public:
  uint64_t seq() const { return seq_; }  // the last record folded in

  // kFenced / kAlreadyExists / kNotFound / kInvalidArgument when the record may not follow this
  // state: the one place where preconditions live. A writer checks before each attempt to append.
  Status check(const format::LogBody& body) const;
  // REQUIRES: record.seq == seq() + 1. A record that breaks its own precondition has no effect (a
  // correct writer never appends one); that too is decided here, identically for every reader.
  void apply(const format::LogRecord& record);

  const std::map<format::CommitSeq, Checkpoint>& checkpoints() const { return live_; }
  const std::map<std::string, RunState, std::less<>>& runs() const { return runs_; }
  const std::map<Uuid, OpenSave>& open_saves() const { return open_; }
  // Saves that are over and have no live checkpoint: closed, fenced, pruned or replaced. What no
  // root to keep refers to is garbage; gc condemns a save whole once nothing of it is needed.
  const std::set<Uuid>& ended_saves() const { return ended_; }
  // True when `save` committed and its checkpoint lives.
  bool is_committed(const Uuid& save) const { return committed_.contains(save); }
  // Every root whose objects must stay: of live checkpoints, and the bases of open saves as they
  // were when those opened. Each once, ordered by object.
  std::vector<format::SealedRef> roots_to_keep() const;

  // True for an object of its own record and for every object of a condemned save, for ever.
  bool is_condemned(const format::ObjectRef& object) const;
  bool is_save_condemned(const Uuid& save) const { return condemned_saves_.contains(save); }

  // "run/step" -> the live checkpoint of that name; there is never more than one.
  const Checkpoint* find(std::string_view run, uint64_t step) const;
  const Checkpoint* latest(std::string_view run) const;

  // A snapshot carries the state over the records up to seq(): equal states give equal bytes.
  ByteVector encode() const;
  // kCorruption on hostile bytes, kUnsupported for a newer snapshot.
  static Result<LogState> decode(uint64_t seq, Bytes bytes);

 private:
  using Name = std::pair<std::string, uint64_t>;

  Status check_record(const format::OpenRecord& open) const;
  Status check_record(const format::ClaimRecord& claim) const;
  Status check_record(const format::CommitRecord& commit) const;
  Status check_record(const format::PruneRecord& prune) const;
  Status check_record(const format::CondemnRecord& condemn) const;
  Status check_record(const format::CloseRecord& close) const;
  Status check_record(const format::ReplaceRecord& replace) const;
  void apply_record(const format::LogRecord& record, const format::OpenRecord& open);
  void apply_record(const format::LogRecord& record, const format::ClaimRecord& claim);
  void apply_record(const format::LogRecord& record, const format::CommitRecord& commit);
  void apply_record(const format::LogRecord& record, const format::PruneRecord& prune);
  void apply_record(const format::LogRecord& record, const format::CondemnRecord& condemn);
  void apply_record(const format::LogRecord& record, const format::CloseRecord& close);
  void apply_record(const format::LogRecord& record, const format::ReplaceRecord& replace);

  bool is_known(const Uuid& save) const;
  // Ok when the save is open; otherwise why not, for a person.
  Status check_open(const Uuid& save, std::string_view run) const;
  Status check_new_root(const format::SealedRef& root, const Uuid& save) const;
  // False when an object of the save is the root of a live checkpoint or of an open save's base.
  bool holds_root_to_keep(const Uuid& save) const;
  void mark_line_of(const std::string& run, format::CommitSeq base);
  void retire(format::CommitSeq seq);
  // After decoding: fills what follows from live_; false when the parts contradict each other.
  bool index_checkpoints();

  uint64_t seq_ = 0;
  std::map<std::string, RunState, std::less<>> runs_;
  std::map<format::CommitSeq, Checkpoint> live_;
  std::map<Name, format::CommitSeq> names_;      // of live_
  std::map<Uuid, format::CommitSeq> committed_;  // save -> its live checkpoint
  std::set<std::pair<format::CommitSeq, format::CommitSeq>> children_;  // of live_: (parent, child)
  std::map<Uuid, OpenSave> open_;
  std::set<Uuid> ended_;
  std::set<format::ObjectRef> condemned_;  // of saves that are not condemned whole
  UuidSet condemned_saves_;
};

}  // namespace caisson

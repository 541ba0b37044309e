// What a prefix of the log means: a pure fold over records, the same everywhere, without clocks or
// listings. docs/commit.md states the rules; tests/model searches them exhaustively.
// Thread-compatible.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/format/log_record.h"
#include "engine/format/root.h"

namespace caisson {

enum class SaveState : uint8_t { kOpen, kCommitted, kClosed, kFenced };

struct OpenSave {
  Uuid save;
  std::string run;
  uint64_t step = 0, epoch = 0;
  std::vector<format::CommitSeq> bases;
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
  const std::map<std::string, RunState>& runs() const { return runs_; }
  const std::map<Uuid, OpenSave>& open_saves() const { return open_; }
  // Saves that ended without a commit (closed or fenced) and are not condemned yet.
  const std::set<Uuid>& dead_saves() const { return dead_; }
  // Pruned or replaced roots that no condemn record covers yet: where gc looks for garbage.
  const std::vector<format::SealedRef>& pruned_roots() const { return pruned_roots_; }
  bool is_condemned(const format::ObjectRef& object) const;
  // "run/step" -> the live checkpoint of that name (the lineage's own before a rolled-back one).
  const Checkpoint* find(std::string_view run, uint64_t step) const;
  const Checkpoint* latest(std::string_view run) const;

  // A snapshot carries the state over the records up to seq(). kCorruption on hostile bytes.
  ByteVector encode() const;
  static Result<LogState> decode(uint64_t seq, Bytes bytes);

 private:
  uint64_t seq_ = 0;
  std::map<std::string, RunState> runs_;
  std::map<format::CommitSeq, Checkpoint> live_;
  std::map<Uuid, OpenSave> open_;
  std::set<Uuid> dead_;
  std::vector<format::SealedRef> pruned_roots_;
  std::set<format::ObjectRef> condemned_;
  std::set<Uuid> condemned_saves_;
};

}  // namespace caisson

// Stage 7 of the save path: sealed rank parts become a checkpoint. commit.cc opens with the
// protocol. Called by client/, and by rewrite.cc for the root that takes another one's place; by
// one process per save.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "caisson/trace.h"
#include "engine/format/root.h"
#include "engine/log.h"
#include "io/base/clock.h"

namespace caisson {

// The save that is to be committed, as its open record says.
struct CommitPlan {
  Uuid save;
  std::string run;
  uint64_t step = 0;
  uint64_t epoch = 0;
  uint32_t ranks = 1;      // parts of ranks 0 .. ranks - 1 are needed, each exactly once
  bool overwrite = false;  // a live checkpoint of the same name is pruned by the same record
  std::string metadata_json = "{}";
  std::optional<int64_t> created_unix_ns{};  // nothing: now
  Trace* trace = nullptr;                    // may be null
};

// A root that is durable, and that no record names yet.
struct WrittenRoot {
  format::Root root;
  format::PackTables tables;
  format::SealedRef sealed;
};
// Steps 1 to 5. kInvalidArgument as commit_checkpoint. The save stays open.
Result<WrittenRoot> write_root(ObjectStore& objects, UuidSource& uuids, Clock& clock,
                               const CommitPlan& plan, std::span<const format::SealedRef> parts);

// Ends an open save without a commit: its objects are garbage from then on.
Status close_save(Log& log, const Uuid& save);

struct CommitOutcome {
  format::CommitSeq seq = 0;
  uint64_t tensors = 0;
  uint64_t entries = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;
};

// Ok means durable and committed. kInvalidArgument names rank, tensor and box of a part that is
// missing, foreign, contradictory or does not cover; kFenced, kAlreadyExists as LogState::check.
// After any error the checkpoint does not exist, unless the outcome of the very last step stayed
// unknown (kIoError from the log): then a look at the log tells.
Result<CommitOutcome> commit_checkpoint(ObjectStore& objects, Log& log, UuidSource& uuids,
                                        Clock& clock, const CommitPlan& plan,
                                        std::span<const format::SealedRef> parts);

}  // namespace caisson

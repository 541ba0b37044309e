// Rewriting: a live checkpoint gets new objects with the same content, and a `replace` record in
// the log makes it be read through them. Afterwards it shares nothing with other saves, so that gc
// frees what only its old root needed; it is stored with the codec that was asked for, and was read
// and verified whole. Called by the command line; one checkpoint a call. rewrite.cc has the steps.
//
// Safe beside saves, restores, prunes, collections and other rewrites, and when it is stopped at
// any point: the checkpoint stands with its old root until the record is in, and with the new one
// from then on. Thread-compatible.
#pragma once

#include <string>

#include "caisson/options.h"
#include "engine/log.h"
#include "io/base/buffer.h"
#include "io/base/clock.h"

namespace caisson {

struct RewriteOptions {
  std::string codec = "auto";
  uint32_t workers = 1;
  // Raw bytes that are read, and then written, at a time. This memory is not part of the budget; no
  // more is held than this or one piece (16 MiB at most), and less for a small checkpoint.
  uint64_t batch_bytes_max = 64ull << 20;
  ProgressFn progress{};
  std::stop_token stop{};
};

struct RewriteReport {
  uint64_t tensors = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;  // newly stored now
  uint64_t packs_before = 0;
  uint64_t foreign_packs_before = 0;  // of them, of other saves
  uint64_t packs = 0;
};

// Ok means durable: every reader that looks at the log from now on uses the new root.
//   kCorruption    an object of the checkpoint is damaged, named; nothing was replaced
//   kFenced        the checkpoint was pruned or overwritten, its run claimed, or another rewrite
//                  came first; nothing was replaced
// After any error the new objects are garbage for gc, unless the outcome of the very last step
// stayed unknown (kIoError from the log): then a look at the log tells.
Result<RewriteReport> rewrite_checkpoint(ObjectStore& objects, Log& log, MemoryBudget& budget,
                                         UuidSource& uuids, Clock& clock,
                                         const Checkpoint& checkpoint,
                                         const RewriteOptions& options);

}  // namespace caisson

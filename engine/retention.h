// Which checkpoints of a run to give up, and giving them up. Used by `caisson rm --keep-last`.
// Thread-safe as far as the Log is.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/log.h"

namespace caisson {

struct RetentionPolicy {
  uint64_t keep_last = 1;   // newest checkpoints of the run that stay; at least 1
  uint64_t keep_every = 0;  // steps that are multiples of this stay too; 0: none
};

// Pure: the commits of `run` that the policy gives up, oldest first. A checkpoint that was rolled
// back is given up as soon as keep_last newer ones of the run's own line exist; `latest` always
// stays.
std::vector<format::CommitSeq> checkpoints_to_prune(const LogState& state, std::string_view run,
                                                    const RetentionPolicy& policy);

// Appends the prune records for them, oldest first; what was given up. The policy is asked again in
// the very state that each record follows: a claim meanwhile may have gone back to a checkpoint
// that was one too many before, and such a one stays.
Result<std::vector<Checkpoint>> prune_by_policy(Log& log, std::string_view run,
                                                const RetentionPolicy& policy);

}  // namespace caisson

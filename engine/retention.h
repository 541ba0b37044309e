// Which checkpoints of a run to give up. Pure policy: the caller appends the prune records. Used by
// `caisson rm --keep-last`.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine/log_state.h"

namespace caisson {

struct RetentionPolicy {
  uint64_t keep_last = 1;   // newest checkpoints of the run that stay; at least 1
  uint64_t keep_every = 0;  // steps that are multiples of this stay too; 0: none
};

// The commits of `run` that the policy gives up, oldest first. A checkpoint that was rolled back is
// given up as soon as keep_last newer ones of the run's own line exist; `latest` always stays.
std::vector<format::CommitSeq> checkpoints_to_prune(const LogState& state, std::string_view run,
                                                    const RetentionPolicy& policy);

}  // namespace caisson

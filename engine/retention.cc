// See retention.h.
#include "engine/retention.h"

#include <algorithm>

namespace caisson {

std::vector<format::CommitSeq> checkpoints_to_prune(const LogState& state, std::string_view run,
                                                    const RetentionPolicy& policy) {
  std::vector<const Checkpoint*> newest_first;
  for (const auto& [seq, checkpoint] : state.checkpoints()) {
    if (checkpoint.run == run) newest_first.push_back(&checkpoint);
  }
  std::reverse(newest_first.begin(), newest_first.end());

  const uint64_t keep_last = std::max<uint64_t>(1, policy.keep_last);
  uint64_t own_line = 0;  // seen so far of those that were not rolled back
  std::vector<format::CommitSeq> pruned;
  for (const Checkpoint* checkpoint : newest_first) {
    const bool recent = own_line < keep_last;
    if (!checkpoint->rolled_back) ++own_line;
    const bool milestone = policy.keep_every > 0 && checkpoint->step % policy.keep_every == 0 &&
                           !checkpoint->rolled_back;
    if (!recent && !milestone) pruned.push_back(checkpoint->seq);
  }
  std::reverse(pruned.begin(), pruned.end());
  return pruned;
}

}  // namespace caisson

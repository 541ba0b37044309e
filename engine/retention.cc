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

Result<std::vector<Checkpoint>> prune_by_policy(Log& log, std::string_view run,
                                                const RetentionPolicy& policy) {
  std::vector<Checkpoint> pruned;
  CAISSON_ASSIGN_OR_RETURN(const auto before, log.refresh());
  for (const format::CommitSeq seq : checkpoints_to_prune(*before, run, policy)) {
    bool stays = false;
    const auto appended = log.append([&](const LogState& state) -> Result<format::LogBody> {
      const auto now = checkpoints_to_prune(state, run, policy);
      stays = std::find(now.begin(), now.end(), seq) == now.end();
      if (stays) return cancelled("the policy keeps it now");
      return format::LogBody(format::PruneRecord{.checkpoint = seq});
    });
    if (stays) continue;
    const Checkpoint& given_up = before->checkpoints().at(seq);
    CAISSON_RETURN_IF_ERROR(appended.status().with_context(given_up.name()));
    pruned.push_back(given_up);
  }
  return pruned;
}

}  // namespace caisson

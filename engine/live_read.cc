#include "engine/live_read.h"

#include <string>

namespace caisson {

Result<Checkpoint> after_failed_read(Log& log, const Checkpoint& read, const Status& failure) {
  // What a missing object may look like; the other failures are the reader's own.
  const StatusCode code = failure.code();
  if (code != StatusCode::kCorruption && code != StatusCode::kNotFound &&
      code != StatusCode::kIoError) {
    return failure;
  }
  const auto now = log.refresh();
  if (!now.ok()) return failure;  // the first failure tells more
  const auto found = (*now)->checkpoints().find(read.seq);
  if (found != (*now)->checkpoints().end()) {
    if (found->second.root == read.root) return failure;
    return found->second;
  }
  const Checkpoint* const heir = (*now)->find(read.run, read.step);
  const std::string how = heir == nullptr ? "pruned"
                                          : "replaced by another save, committed by log record " +
                                                std::to_string(heir->seq);
  return fenced(read.name() + " was " + how + " while it was read; nothing is damaged by that. " +
                "Next: caisson ls STORE " + read.run + " shows what there is");
}

}  // namespace caisson

// Reading a checkpoint that may be given up and collected, or have its root replaced, at any moment
// of the reading. Nothing holds a checkpoint for its readers; instead a reader that fails asks the
// log what has become of it. Used by the Store and by the verbs that look inside. Thread-safe as
// far as the Log is.
#pragma once

#include "engine/log.h"

namespace caisson {

// What a reader does after `failure`, which it met while reading `read`; the log is read again.
//   ok        the checkpoint stands, with another root: read it again through that one
//   kFenced   it was pruned or overwritten meanwhile: nothing is damaged, and it is gone
//   failure   the log knows no reason: it stands as it was
Result<Checkpoint> after_failed_read(Log& log, const Checkpoint& read, const Status& failure);

// `read(checkpoint)`, a Status or a Result, with those answers.
template <typename Read>
auto read_live(Log& log, Checkpoint checkpoint, const Read& read) -> decltype(read(checkpoint)) {
  for (;;) {
    auto outcome = read(checkpoint);
    if (outcome.ok()) return outcome;
    Status failure;
    if constexpr (requires { outcome.status(); }) {
      failure = outcome.status();
    } else {
      failure = outcome;
    }
    CAISSON_ASSIGN_OR_RETURN(checkpoint, after_failed_read(log, checkpoint, failure));
  }
}

}  // namespace caisson

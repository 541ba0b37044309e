// Stage 1 of restore: from names to pieces. Looks every target up in the manifest, refuses all that
// do not fit in one message, and keeps of each tensor what the restore needs. Called by
// restore_pipeline.cc. Thread-compatible.
#pragma once

#include <span>
#include <vector>

#include "engine/copy_box.h"
#include "engine/manifest.h"
#include "engine/restore_plan.h"

namespace caisson {

struct RestoreRequest {
  std::vector<WantedTensor> tensors;
  std::vector<WantedBox> targets;  // as given, in order
  std::vector<PieceUse> uses;      // sorted by part and entry
  uint64_t raw_bytes = 0;          // of the targets
};

// kNotFound when only names are missing, kInvalidArgument when a box does not fit either; the
// message lists every such target (the first 20 in full).
Result<RestoreRequest> resolve_targets(Manifest& manifest, std::span<const TensorTarget> targets);

}  // namespace caisson

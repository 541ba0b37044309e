// The reading half of a Store: what restore() and read_blob() do once the checkpoint's manifest is
// open. Called by store.cc. Thread-safe.
#pragma once

#include <span>
#include <string>

#include "caisson/options.h"
#include "engine/manifest.h"
#include "io/base/buffer.h"

namespace caisson {

// Fills every target, or fails before it reads when one cannot be filled; see Store::restore.
Status restore_targets(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                       std::span<const TensorTarget> targets, const RestoreOptions& options,
                       Trace* trace = nullptr, Metrics* metrics = nullptr);

// kNotFound when there is no such blob, kInvalidArgument when it is a tensor.
Result<ByteVector> read_blob(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                             const std::string& blob);

}  // namespace caisson

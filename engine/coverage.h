// Proves that the shards of a checkpoint hold every element of every tensor exactly once (replicas:
// every piece of a replicated box exactly once). The committer calls it before the commit record.
// Pure; about n log n in the number of shards.
#pragma once

#include <span>
#include <string_view>

#include "engine/format/directory.h"

namespace caisson {

// kInvalidArgument naming tensor, missing or doubly held box, and the ranks concerned
// (rank_of_part maps ShardRecord::part to the rank shown in the message).
Status check_coverage(const TensorRecord& tensor, std::span<const uint32_t> rank_of_part);

}  // namespace caisson

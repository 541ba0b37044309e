// Finds, among the shards of one put, the bf16 tensors that are the rounding of fp32 ones: a weight
// and its master. By content, never by name. Used by save_plan.cc. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/save_plan.h"

namespace caisson {

// For each shard the index of the shard whose twin it is to be, which has the same box, the same
// pieces, and at some dozens of places the same values, rounded in one of the ways that codec 4
// knows. A proposal: every piece is compared when it is encoded. No shard is the base of two.
std::vector<std::optional<uint32_t>> find_twin_bases(std::span<const PlannedShard> shards);
// False where that finds nothing for certain.
bool may_have_twins(std::span<const SaveItem> items);

}  // namespace caisson

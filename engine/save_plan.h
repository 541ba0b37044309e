// Stage 1 of the save path, for whole shards: checks what a caller handed over and lays the piece
// grid over it. Used by save_pipeline.cc. Pure but for the parent's tile shapes.
#pragma once

#include "engine/copy_box.h"
#include "engine/save_pipeline.h"
#include "engine/tiling.h"

namespace caisson {

struct PlannedShard {
  const SaveItem* item = nullptr;
  BoxMemory memory;
  TensorRecord record;      // as the part's directory will hold it: one shard, or an alias
  uint64_t first_work = 0;  // its pieces are [first_work, first_work + pieces) of the put
  uint64_t raw_bytes = 0;   // of the pieces that this rank stores

  const ShardRecord& shard() const { return record.shards.front(); }
  // The box of piece `work` of the put. REQUIRES: it is one of this shard's.
  Box piece(uint64_t work) const {
    return piece_at(shard().grid, shard().box, shard().first_piece + (work - first_work));
  }
  uint64_t pieces() const { return record.shards.empty() ? 0 : shard().pieces; }
};

struct SavePlan {
  std::vector<PlannedShard> shards;
  uint64_t pieces = 0;
  uint64_t raw_bytes = 0;
};

// kInvalidArgument naming the tensor. `first_entry`: how many entries the part has already.
Result<SavePlan> plan_save(std::span<const SaveItem> items, ParentDedup& parent,
                           uint64_t first_entry);

}  // namespace caisson

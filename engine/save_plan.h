// Stage 1 of the save path, for whole shards: checks what a caller handed over, lays the piece grid
// over it and says in which order the pieces are saved. Used by save_pipeline.cc. Pure but for the
// parent's tile shapes.
#pragma once

#include <optional>

#include "engine/copy_box.h"
#include "engine/save_pipeline.h"
#include "engine/tiling.h"

namespace caisson {

// What stage 1 found out about an item, and no more: a save may have a million of small tensors,
// all of which are planned before the last is saved.
struct PlannedShard {
  const SaveItem* item = nullptr;
  Shape tile;
  PieceGrid grid;
  uint64_t first_piece = 0, pieces = 0, first_entry = 0;  // as ShardRecord; none of an alias
  ParentShard parent;
  uint64_t raw_bytes = 0;     // of the pieces that this rank stores
  bool is_one_piece = false;  // the box is

  const TensorSpec& spec() const { return item->shard.tensor; }
  const Box& box() const { return item->shard.box; }
  // The box of the i-th piece that this rank stores.
  Box piece(uint64_t i) const {
    return is_one_piece ? box() : piece_at(grid, box(), first_piece + i);
  }
  BoxMemory memory() const;
  ShardRecord shard() const;
  // As the part's directory will hold it: one shard, or an alias.
  TensorRecord record() const;
};

// Units of work that follow each other: the pieces of a shard, and with each, where the shard has a
// twin, the twin's piece of the same box, so that both come to lie in one pack.
struct PlannedRun {
  uint32_t shard = 0;
  std::optional<uint32_t> twin;
  uint64_t first_unit = 0;
  uint64_t units = 0;
};

// Of a put, or of some of its items: a put of many is planned as it is saved.
struct SavePlan {
  std::vector<PlannedShard> shards;  // in the order of the items
  std::vector<PlannedRun> runs;
  uint64_t units = 0;
  uint64_t pieces = 0;
  uint64_t first_entry = 0;  // in the part
  uint64_t raw_bytes = 0;
  std::vector<uint64_t> marks;  // of each piece: what its memory was like when it was read
};

// kInvalidArgument naming the tensor. `first_entry`: how many entries the part has already.
// `twins`: look for them.
Result<SavePlan> plan_save(std::span<const SaveItem> items, ParentDedup& parent,
                           uint64_t first_entry, bool twins);

}  // namespace caisson

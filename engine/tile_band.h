// A band: tiles of a shard that lie side by side in its memory. They are read in one sweep when the
// first of them is wanted; what was found out is kept for the others. Tile by tile the same memory
// would be read in runs of a few KiB far apart: 10 GB/s where a sweep hashes 29. Used by
// save_worker.cc alone. Thread-compatible.
//
// Invariant: the pieces of a band are taken in their order, and no other between them; any other
// piece ends the band.
#pragma once

#include <array>
#include <cstdint>

#include "engine/copy_box.h"
#include "engine/save_plan.h"

namespace caisson {

class TileBand {
 public:
  static constexpr size_t kTilesMax = 16;

  // The tiles from `first` on, at most `tiles_max` and of one size, that lie side by side. Gives
  // their number, at least 1; nothing is read.
  size_t begin(const PlannedShard& shard, uint64_t first, uint64_t tiles_max);
  void end() { tiles_ = 0; }
  // Packs them one behind the other into `to` and hashes them; where `to` is empty only hashes.
  void sweep(MutableBytes to);

  const Box& box(size_t tile) const { return boxes_[tile]; }
  // Whether a sweep took the piece, and did it pack it?
  bool holds(const PlannedShard& shard, uint64_t index) const {
    return swept_ && shard_ == &shard && index >= first_ && index - first_ < tiles_;
  }
  bool holds_packed(const PlannedShard& shard, uint64_t index) const {
    return holds(shard, index) && !packed_.empty();
  }
  // REQUIRES: it holds the piece, packed for bytes().
  const Digest& digest(uint64_t index) const { return digests_[index - first_]; }
  Bytes bytes(uint64_t index) const {
    const size_t size = packed_.size() / tiles_;
    return packed_.subspan((index - first_) * size, size);
  }

 private:
  const PlannedShard* shard_ = nullptr;
  BoxMemory memory_;  // its
  uint64_t first_ = 0;
  size_t tiles_ = 0;
  bool swept_ = false;
  Bytes packed_;
  std::array<Box, kTilesMax> boxes_;
  std::array<Digest, kTilesMax> digests_;
};

}  // namespace caisson

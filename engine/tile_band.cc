#include "engine/tile_band.h"

#include <algorithm>
#include <span>

namespace caisson {

size_t TileBand::begin(const PlannedShard& shard, uint64_t first, uint64_t tiles_max) {
  shard_ = &shard;
  memory_ = shard.memory();
  first_ = first;
  swept_ = false;
  packed_ = {};
  const uint64_t there = shard.pieces - first;
  const uint64_t most = std::clamp<uint64_t>(std::min(tiles_max, there), 1, kTilesMax);
  boxes_[0] = shard.piece(first);
  size_t alike = 1;
  for (; alike < most; ++alike) {
    boxes_[alike] = shard.piece(first + alike);
    if (boxes_[alike].elements() != boxes_[0].elements()) break;
  }
  tiles_ = count_side_by_side(memory_, std::span(boxes_).first(alike), shard.spec().dtype);
  return tiles_;
}

void TileBand::sweep(MutableBytes to) {
  gather_side_by_side(memory_, std::span(boxes_).first(tiles_), shard_->spec().dtype, to,
                      CopyStores::kPastCaches, std::span(digests_).first(tiles_));
  packed_ = to;
  swept_ = true;
}

}  // namespace caisson

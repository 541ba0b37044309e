// From shapes to tiles, and from a rank's shard to the pieces that it stores. Pure functions; the
// rules are stated in docs/format.md ("Tiling") and docs/architecture.md. A checkpoint stores the
// grids that were chosen, so a reader never needs the rules.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "caisson/tensor.h"

namespace caisson {

// A regular grid of cells laid over a tensor from `origin`; the pieces of a box are the cells
// clipped to it, in row-major order of cells. The tensor's tile grid has origin zero and the tile
// shape as cell; a shard that would cut the tile grid too finely lays its own grid from its own
// corner instead.
struct PieceGrid {
  int rank = 0;
  std::array<uint64_t, kRankMax> origin{};
  std::array<uint64_t, kRankMax> cell{};
  bool operator==(const PieceGrid&) const = default;
};

// The tile shape of a tensor, from its shape and element type alone (so that every rank and every
// save of a run agrees): about 512 Ki elements; edge 1 along a leading dimension whose slice has
// 256 KiB or more; other dimensions divided, preferably by dim/2, /4, /8, /16, while a tile keeps
// 256 KiB. Sub-byte types never cut a byte. REQUIRES: element_count(shape).ok().
Shape choose_tile(const Shape& shape, DType dtype);

// Which grid the pieces of `box` follow: the tile grid where the cut pieces stay large enough, else
// a grid of the box's own contiguous runs of up to 512 KiB.
PieceGrid choose_pieces(const Shape& shape, DType dtype, const Shape& tile, const Box& box);

// kInvalidArgument unless the box lies within the tensor and cuts no byte of a sub-byte type.
Status check_box(const TensorSpec& tensor, const Box& box);

uint64_t piece_count(const PieceGrid& grid, const Box& box);
// REQUIRES: index < piece_count(grid, box).
Box piece_at(const PieceGrid& grid, const Box& box, uint64_t index);
// The index of the piece that is exactly `piece`, if there is one.
std::optional<uint64_t> find_piece(const PieceGrid& grid, const Box& box, const Box& piece);
// Indices, ascending, of the pieces of `box` that meet `wanted`.
std::vector<uint64_t> pieces_meeting(const PieceGrid& grid, const Box& box, const Box& wanted);

// The part [first, first + count) of `pieces` pieces that replica `index` of `count` stores.
struct PieceRange {
  uint64_t first = 0;
  uint64_t count = 0;
};
PieceRange pieces_of_replica(uint64_t pieces, Replica replica);

// Row-major memory layout helpers used by save (gather) and restore (scatter).
// Strides in bytes of a contiguous box; REQUIRES whole bytes.
std::vector<int64_t> contiguous_strides(const Box& box, DType dtype);

}  // namespace caisson

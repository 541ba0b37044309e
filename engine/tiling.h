// From shapes to tiles, and from a rank's shard to the pieces that it stores. Pure functions; the
// rules are stated in docs/format.md ("Tiling") and docs/architecture.md. A checkpoint stores the
// grids that were chosen, so a reader never needs the rules.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
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

// The tile shape of a tensor, from its shape and element type alone, so that every rank and every
// save of a run agrees; all types of 8 to 64 bits get the same one. At most 512 Ki elements (256 Ki
// if wider), at least 128 Ki where the tensor has them. REQUIRES: element_count(shape).ok().
Shape choose_tile(const Shape& shape, DType dtype);

// Which grid the pieces of `box` follow: the tile grid where the cut pieces stay large enough, else
// a grid of the box's own contiguous runs. REQUIRES: check_box and a tile without zero edges.
PieceGrid choose_pieces(const Shape& shape, DType dtype, const Shape& tile, const Box& box);

// Where boxes of these extents may be cut without cutting a byte: `axis` is cut at multiples of
// `step`, axes before it anywhere, axes after it nowhere. Types of whole bytes: the last axis, step
// 1. nullopt when all elements together are not whole bytes.
struct ByteCut {
  int axis = -1;
  uint64_t step = 1;
};
std::optional<ByteCut> byte_cut(std::span<const uint64_t> extents, DType dtype);

// kInvalidArgument unless the box lies within the tensor and cuts no byte of a sub-byte type.
Status check_box(const TensorSpec& tensor, const Box& box);
// kInvalidArgument unless `grid` cuts the box (REQUIRES: check_box) into pieces of whole bytes,
// each of at most format::kChunkRawBytesMax: what a decoder asks before it uses a stored grid.
Status check_grid(const TensorSpec& tensor, const Box& box, const PieceGrid& grid);

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

// Strides in bytes of a contiguous row-major box. Of a sub-byte type only the axes before its
// byte_cut have one; the others get 0 and are read by nobody.
std::vector<int64_t> contiguous_strides(const Box& box, DType dtype);

}  // namespace caisson

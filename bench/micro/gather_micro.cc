// Tile gather: a tile copied out of tensor memory into a segment buffer, in the layouts that differ
// in speed. The argument is the length of the contiguous runs in bytes; a run as long as the tile
// is a plain copy. Bytes a second, memory that no cache holds.
#include <benchmark/benchmark.h>

#include <array>

#include "engine/copy_box.h"
#include "io/base/buffer.h"

namespace caisson {
namespace {

constexpr uint64_t kTensorBytes = 256u << 20;
constexpr uint64_t kTileBytes = 512u << 10;
constexpr DType kDType{DTypeCode::kBfloat, 16};
constexpr uint64_t kElementBytes = 2;

Box box_of(uint64_t row, uint64_t column, uint64_t rows, uint64_t columns) {
  const std::array<uint64_t, 2> extents{rows, columns};
  Box box = Box::whole(Shape::of(extents));
  box.offset[0] = row;
  box.offset[1] = column;
  return box;
}

struct Memories {
  AlignedBuffer tensor, tile;
};
Result<Memories> make_memories() {
  Memories memories;
  CAISSON_ASSIGN_OR_RETURN(memories.tensor, AlignedBuffer::allocate(kTensorBytes, true));
  CAISSON_ASSIGN_OR_RETURN(memories.tile, AlignedBuffer::allocate(kTileBytes, true));
  return memories;
}

// Tiles of `run` bytes wide, side by side, of a tensor eight runs wide.
void gather_runs(benchmark::State& state) {
  const auto run = static_cast<uint64_t>(state.range(0));
  auto memories = make_memories();
  if (!memories.ok()) return state.SkipWithError("no memory");
  const uint64_t columns = 8 * run / kElementBytes;
  const uint64_t rows = kTensorBytes / (columns * kElementBytes);
  const uint64_t tile_rows = kTileBytes / run;
  const BoxMemory from{.box = box_of(0, 0, rows, columns),
                       .data = memories->tensor.data(),
                       .strides_bytes = {static_cast<int64_t>(columns * kElementBytes),
                                         static_cast<int64_t>(kElementBytes)}};
  const uint64_t tiles = 8 * (rows / tile_rows);
  uint64_t tile = 0;
  for (auto _ : state) {
    const Box piece = box_of(tile / 8 * tile_rows, tile % 8 * run / kElementBytes, tile_rows,
                             run / kElementBytes);
    gather(from, piece, kDType, memories->tile.bytes());
    tile = (tile + 1) % tiles;
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kTileBytes));
}

// A transposed tensor: the memory's rows are the box's columns.
void gather_transposed(benchmark::State& state) {
  auto memories = make_memories();
  if (!memories.ok()) return state.SkipWithError("no memory");
  constexpr uint64_t kEdge = 8192, kTileRows = 256, kTileColumns = 1024;
  const BoxMemory from{.box = box_of(0, 0, kEdge, kEdge),
                       .data = memories->tensor.data(),
                       .strides_bytes = {static_cast<int64_t>(kElementBytes),
                                         static_cast<int64_t>(kEdge * kElementBytes)}};
  uint64_t row = 0;
  for (auto _ : state) {
    gather(from, box_of(row, 0, kTileRows, kTileColumns), kDType, memories->tile.bytes());
    row = (row + kTileRows) % kEdge;
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kTileBytes));
}

BENCHMARK(gather_runs)->Arg(64)->Arg(1 << 10)->Arg(2 << 10)->Arg(16 << 10)->Arg(512 << 10);
BENCHMARK(gather_transposed);

}  // namespace
}  // namespace caisson

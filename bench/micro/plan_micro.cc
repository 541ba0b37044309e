// What a save does for every shard before it reads a byte, what a restore does for every piece, and
// the look-up of a chunk among those of the save. The argument is the number of items.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "engine/dedup.h"
#include "engine/save_plan.h"
#include "engine/tiling.h"

namespace caisson {
namespace {

Digest fake_id(uint64_t number) {
  Digest id;
  store_le(id.bytes.data(), number * 0x9e3779b97f4a7c15);
  store_le(id.bytes.data() + 8, number);
  return id;
}

void save_plan(benchmark::State& state) {
  static const std::array<std::byte, 64> bytes{};
  const std::array<uint64_t, 1> dims{32};
  std::vector<SaveItem> items(static_cast<size_t>(state.range(0)));
  for (size_t i = 0; i < items.size(); ++i) {
    TensorShard& shard = items[i].shard;
    shard.tensor = {"layers." + std::to_string(i), {DTypeCode::kBfloat, 16}, Shape::of(dims)};
    shard.box = Box::whole(shard.tensor.shape);
    shard.data = bytes.data();
  }
  for (auto _ : state) {
    ParentDedup parent;
    auto plan = plan_save(items, parent, 0, false);
    if (!plan.ok()) return state.SkipWithError("no plan");
    benchmark::DoNotOptimize(plan->pieces);
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

// Columns wanted of a tensor that was saved by rows: the pieces that they meet.
void restore_pieces(benchmark::State& state) {
  const std::array<uint64_t, 2> dims{static_cast<uint64_t>(state.range(0)) * 64, 8192};
  const Shape shape = Shape::of(dims);
  const DType dtype{DTypeCode::kBfloat, 16};
  const Box whole = Box::whole(shape);
  const PieceGrid grid = choose_pieces(shape, dtype, choose_tile(shape, dtype), whole);
  Box wanted = whole;
  wanted.extent[1] /= 4;
  size_t pieces = 0;
  for (auto _ : state) {
    pieces = pieces_meeting(grid, whole, wanted).size();
    benchmark::DoNotOptimize(pieces);
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(pieces));
}

void dedup_lookup(benchmark::State& state) {
  const auto known = std::max<uint64_t>(1, static_cast<uint64_t>(state.range(0)));
  SaveChunks chunks;
  for (uint64_t i = 0; i < known; ++i) {
    PlacedChunk chunk;
    chunk.entry.id = fake_id(i);
    chunk.entry.raw_bytes = 1 << 20;
    chunks.add(chunk);
  }
  uint64_t number = 0;
  for (auto _ : state) {  // every other one is there
    benchmark::DoNotOptimize(chunks.find(fake_id(number * 7919 % (2 * known)), 1 << 20));
    ++number;
  }
  state.SetItemsProcessed(state.iterations());
}

BENCHMARK(save_plan)->Arg(1000)->Arg(100'000);
BENCHMARK(restore_pieces)->Arg(16)->Arg(4096);
BENCHMARK(dedup_lookup)->Arg(1000)->Arg(100'000);

}  // namespace
}  // namespace caisson

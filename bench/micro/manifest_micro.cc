// Encoding of what a checkpoint says about itself: the dense table's blocks and the directory.
#include <benchmark/benchmark.h>

#include <array>
#include <string>
#include <vector>

#include "engine/format/directory.h"
#include "engine/format/part.h"

namespace caisson {
namespace {

std::vector<format::ChunkEntry> entries_of_block() {
  std::vector<format::ChunkEntry> entries(format::kEntriesPerBlock);
  for (size_t i = 0; i < entries.size(); ++i) {
    store_le(entries[i].id.bytes.data(), uint64_t{i} * 0x9e3779b97f4a7c15);
    entries[i].raw_bytes = entries[i].stored_bytes = 1 << 20;
    entries[i].offset_units = static_cast<uint32_t>(i << 14);
    entries[i].pack = 0;
  }
  return entries;
}

void encode_table_block(benchmark::State& state) {
  const std::vector<format::ChunkEntry> entries = entries_of_block();
  std::array<std::byte, 4096> block{};
  const Uuid part = system_uuids().next();
  uint64_t index = 0;
  for (auto _ : state) {
    format::encode_entry_block(part, index++, entries, block);
    benchmark::DoNotOptimize(block.data());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(entries.size()));
}

void decode_table_block(benchmark::State& state) {
  std::array<std::byte, 4096> block{};
  const Uuid part = system_uuids().next();
  format::encode_entry_block(part, 0, entries_of_block(), block);
  for (auto _ : state) {
    auto entries = format::decode_entry_block(part, 0, block, "block");
    if (!entries.ok()) return state.SkipWithError("not decoded");
    benchmark::DoNotOptimize(entries->data());
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(format::kEntriesPerBlock));
}

void encode_directory(benchmark::State& state) {
  const std::array<uint64_t, 2> dims{4096, 8192};
  std::vector<TensorRecord> records(static_cast<size_t>(state.range(0)));
  for (size_t i = 0; i < records.size(); ++i) {
    records[i].spec = {"layers." + std::to_string(i), {DTypeCode::kBfloat, 16}, Shape::of(dims)};
    records[i].tile = choose_tile(records[i].spec.shape, records[i].spec.dtype);
    const Box box = Box::whole(records[i].spec.shape);
    ShardRecord shard;
    shard.box = box;
    shard.grid = choose_pieces(records[i].spec.shape, records[i].spec.dtype, records[i].tile, box);
    shard.pieces = piece_count(shard.grid, box);
    shard.first_entry = i * shard.pieces;
    records[i].shards.push_back(shard);
  }
  const Uuid salt = system_uuids().next();
  for (auto _ : state) {
    format::DirectoryEncoder encoder(salt);
    for (const TensorRecord& record : records) encoder.add(record);
    benchmark::DoNotOptimize(encoder.finish().data());
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}

BENCHMARK(encode_table_block);
BENCHMARK(decode_table_block);
BENCHMARK(encode_directory)->Arg(1000)->Arg(100'000);

}  // namespace
}  // namespace caisson

// Plans compared with brute force: every element of a wanted box comes from one piece, every chunk
// is read once, reads are large and waste little.
#include "engine/restore_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "tests/support/boxes.h"

namespace caisson {
namespace {

constexpr DType kByte{.code = DTypeCode::kUInt, .bits = 8};

PieceGrid grid_of(int rank, uint64_t cell) {
  PieceGrid grid;
  grid.rank = rank;
  for (int d = 0; d < rank; ++d) grid.cell[static_cast<size_t>(d)] = cell;
  return grid;
}

// Calls visit(index of an element in row-major order) for every element of the box.
template <typename Visit>
void each_element(const Shape& shape, const Box& box, const Visit& visit) {
  if (box.elements() == 0) return;
  std::array<uint64_t, kRankMax> at = box.offset;
  for (;;) {
    uint64_t index = 0;
    for (int d = 0; d < shape.rank; ++d) {
      index = index * shape.dims[static_cast<size_t>(d)] + at[static_cast<size_t>(d)];
    }
    visit(index);
    int d = shape.rank - 1;
    for (; d >= 0; --d) {
      const auto i = static_cast<size_t>(d);
      if (++at[i] < box.offset[i] + box.extent[i]) break;
      at[i] = box.offset[i];
    }
    if (d < 0) return;
  }
}

class RandomTensor {
 public:
  explicit RandomTensor(uint64_t seed) : random_(seed) {
    shape_.rank = static_cast<int>(below(4));
    for (int d = 0; d < shape_.rank; ++d) shape_.dims[static_cast<size_t>(d)] = 1 + below(9);
    split(Box::whole(shape_), 0);
    std::shuffle(shards_.begin(), shards_.end(), random_);
  }

  uint64_t below(uint64_t bound) { return random_() % bound; }
  const Shape& shape() const { return shape_; }
  const std::vector<ShardRecord>& shards() const { return shards_; }
  Box random_box() {
    Box box = Box::whole(shape_);
    for (int d = 0; d < shape_.rank; ++d) {
      const auto i = static_cast<size_t>(d);
      box.offset[i] = below(shape_.dims[i]);
      box.extent[i] = below(shape_.dims[i] - box.offset[i] + 1);
    }
    return box;
  }

 private:
  // Guillotine cuts: boxes that cover the tensor once, each divided among a few replicas.
  void split(const Box& box, int depth) {
    const auto d = static_cast<size_t>(below(static_cast<uint64_t>(std::max(shape_.rank, 1))));
    if (depth < 4 && shape_.rank > 0 && box.extent[d] > 1 && below(3) > 0) {
      const uint64_t cut = 1 + below(box.extent[d] - 1);
      Box left = box, right = box;
      left.extent[d] = cut;
      right.offset[d] += cut;
      right.extent[d] -= cut;
      split(left, depth + 1);
      split(right, depth + 1);
      return;
    }
    ShardRecord shard;
    shard.box = box;
    shard.grid = grid_of(shape_.rank, 1 + below(4));
    if (below(2) == 0) shard.grid.origin = box.offset;
    const uint64_t pieces = piece_count(shard.grid, box);
    const auto replicas = static_cast<uint32_t>(1 + below(3));
    for (uint32_t r = 0; r < replicas; ++r) {
      const PieceRange range = pieces_of_replica(pieces, {.index = r, .count = replicas});
      shard.part = static_cast<uint32_t>(below(3));
      shard.first_piece = range.first;
      shard.pieces = range.count;
      shard.first_entry = next_entry_[shard.part];
      next_entry_[shard.part] += range.count;
      shards_.push_back(shard);
    }
  }

  std::mt19937_64 random_;
  Shape shape_;
  std::vector<ShardRecord> shards_;
  uint64_t next_entry_[3] = {};
};

TEST(ShardIndex, HoldsEveryElementOfAWantedBoxOnce) {
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomTensor tensor(seed);
    const ShardIndex index(tensor.shards());
    for (int round = 0; round < 5; ++round) {
      const Box wanted = tensor.random_box();
      const auto pieces = index.pieces_of(wanted);
      ASSERT_TRUE(pieces.ok()) << pieces.status().to_string();
      std::map<uint64_t, int> held;
      for (const ShardIndex::PieceRef& ref : *pieces) {
        const ShardRecord& shard = tensor.shards()[ref.shard];
        ASSERT_GE(ref.piece, shard.first_piece);
        ASSERT_LT(ref.piece, shard.first_piece + shard.pieces);
        const Box piece = intersect(piece_at(shard.grid, shard.box, ref.piece), wanted);
        ASSERT_GT(piece.elements(), 0u) << "a piece that is not needed";
        each_element(tensor.shape(), piece, [&](uint64_t element) { ++held[element]; });
      }
      ASSERT_EQ(held.size(), wanted.elements());
      for (const auto& [element, times] : held) ASSERT_EQ(times, 1) << "element " << element;
    }
  }
}

TEST(ShardIndex, TakesOneOfTwoShardsThatBothStoreAPiece) {
  ShardRecord shard;
  shard.box = box_between({{0, 8}});
  shard.grid = grid_of(1, 2);
  shard.pieces = 4;
  std::vector<ShardRecord> shards(3, shard);
  shards[1].first_piece = 1;
  shards[1].pieces = 2;
  const auto pieces = ShardIndex(shards).pieces_of(box_between({{1, 7}}));
  ASSERT_TRUE(pieces.ok()) << pieces.status().to_string();
  EXPECT_EQ(pieces->size(), 4u);
}

TEST(ShardIndex, RefusesHoles) {
  RandomTensor tensor(7);
  for (uint64_t seed = 1; tensor.shards().size() < 3 || tensor.shards()[0].pieces == 0; ++seed) {
    tensor = RandomTensor(seed);
  }
  std::vector<ShardRecord> shards = tensor.shards();
  shards.erase(shards.begin());
  const auto pieces = ShardIndex(shards).pieces_of(Box::whole(tensor.shape()));
  ASSERT_FALSE(pieces.ok());
  EXPECT_EQ(pieces.status().code(), StatusCode::kCorruption);
}

TEST(ShardIndex, FindsOneShardOfVeryManyWithoutLookingAtAll) {
  std::vector<ShardRecord> shards(20000);
  for (uint64_t i = 0; i < shards.size(); ++i) {
    shards[i].box = box_between({{i * 4, i * 4 + 4}, {0, 4}});
    shards[i].grid = grid_of(2, 4);
    shards[i].pieces = 1;
  }
  const ShardIndex index(shards);
  for (uint64_t i = 0; i < shards.size(); ++i) {  // quadratic would be 4 * 10^8 intersections
    const auto pieces = index.pieces_of(box_between({{i * 4 + 1, i * 4 + 3}, {1, 2}}));
    ASSERT_TRUE(pieces.ok());
    ASSERT_EQ(pieces->size(), 1u);
    ASSERT_EQ(pieces->front().shard, i);
  }
}

TEST(EntryRanges, AreFewAndServeEveryUse) {
  std::mt19937_64 random(11);
  std::vector<PieceUse> uses;
  for (uint32_t part = 0; part < 3; ++part) {
    uint64_t entry = 0;
    for (int i = 0; i < 300; ++i) {
      uses.push_back({.part = part, .target = 0, .entry = entry, .shard = 0, .piece = 0});
      entry += random() % 3 == 0 ? 0 : random() % 10 == 0 ? 5000 : 1;
    }
  }
  size_t next = 0;
  for (const EntryRange& range : entry_ranges(uses)) {
    ASSERT_EQ(range.first_use, next);
    ASSERT_LT(range.first_use, range.end_use);
    for (size_t i = range.first_use; i < range.end_use; ++i) {
      ASSERT_EQ(uses[i].part, range.part);
      ASSERT_GE(uses[i].entry, range.first);
      ASSERT_LT(uses[i].entry, range.first + range.count);
    }
    ASSERT_EQ(uses[range.end_use - 1].entry, range.first + range.count - 1);
    next = range.end_use;
  }
  EXPECT_EQ(next, uses.size());
}

// One part, two packs, a tensor of one dimension whose pieces have the sizes that a test wants.
class PlanTest : public testing::Test {
 protected:
  PlanTest() {
    root_.parts.resize(1);
    root_.parts[0].part.bytes = 1 << 20;
    root_.parts[0].packs = 2;
    root_.parts[0].inline_offset = 4096;
    format::PackTables tables{.packs = {2, {.bytes = 64 << 20}}, .of_parts = {0, 1}};
    tables.packs[1].object.number = 1;
    packs_.emplace(root_, std::move(tables));
    builder_.emplace(root_, *packs_);
  }

  Status add(const format::ChunkEntry& entry, uint32_t target = 0, std::byte* memory = nullptr,
             bool hugepages = true) {
    WantedTensor tensor;
    tensor.spec.dtype = kByte;
    tensor.spec.shape = Shape::of(std::vector<uint64_t>{entry.raw_bytes});
    ShardRecord shard;
    shard.box = Box::whole(tensor.spec.shape);
    shard.grid = grid_of(1, entry.raw_bytes);
    tensor.shards = {shard};
    const WantedBox wanted{.tensor = 0,
                           .memory = {.box = shard.box, .data = memory, .strides_bytes = {1}},
                           .hugepages = hugepages};
    return builder_->add({.part = 0, .target = target, .entry = 0, .shard = 0, .piece = 0}, tensor,
                         wanted, entry);
  }
  static format::ChunkEntry entry_at(uint16_t pack, uint64_t offset, uint32_t bytes) {
    format::ChunkEntry entry;
    entry.id = digest_of(as_bytes(std::to_string(pack) + "/" + std::to_string(offset)));
    entry.pack = pack;
    entry.offset_units =
        static_cast<uint32_t>(pack == format::kPackInline ? offset : offset / format::kOffsetUnit);
    entry.raw_bytes = entry.stored_bytes = bytes;
    return entry;
  }

  format::Root root_;
  std::optional<RootPacks> packs_;
  std::optional<PlanBuilder> builder_;
};

TEST_F(PlanTest, ReadsEveryChunkOnceInLargeReadsThatWasteLittle) {
  std::mt19937_64 random(3);
  std::set<std::pair<uint16_t, uint64_t>> places;
  std::vector<std::pair<format::ChunkEntry, uint32_t>> adds;
  for (uint16_t pack = 0; pack < 2; ++pack) {
    uint64_t offset = 4096;
    while (offset < (60u << 20)) {
      const auto bytes = static_cast<uint32_t>(1 + random() % (random() % 4 == 0 ? 900000 : 5000));
      if (random() % 3 > 0) {
        places.insert({pack, offset});
        for (uint64_t uses = 1 + random() % 2; uses > 0; --uses) {
          adds.push_back({entry_at(pack, offset, bytes), static_cast<uint32_t>(adds.size())});
        }
      }
      offset = align_up(offset + bytes, format::kOffsetUnit);
    }
  }
  std::shuffle(adds.begin(), adds.end(), random);
  for (const auto& [entry, target] : adds) ASSERT_TRUE(add(entry, target).ok());
  const RestorePlan plan = std::move(*builder_).finish();

  EXPECT_EQ(plan.chunks.size(), places.size());
  std::set<uint32_t> placed;
  size_t next_chunk = 0;
  uint64_t last_end = 0;
  uint32_t last_object = 0;
  for (const PlannedRead& read : plan.reads) {
    ASSERT_EQ(read.first_chunk, next_chunk);
    ASSERT_EQ(read.offset % kReadAlignment, 0u);
    ASSERT_EQ(read.bytes % kReadAlignment, 0u);
    ASSERT_LE(read.bytes, kReadBytesMax);
    if (read.object == last_object) {
      ASSERT_GE(read.offset + kReadAlignment, last_end);
    }
    last_end = read.offset + read.bytes;
    last_object = read.object;
    for (; next_chunk < read.first_chunk + read.chunks; ++next_chunk) {
      const PlannedChunk& chunk = plan.chunks[next_chunk];
      ASSERT_EQ(chunk.object, read.object);
      ASSERT_GE(chunk.offset, read.offset);
      ASSERT_LE(chunk.offset + chunk.stored_bytes, read.offset + read.bytes);
      for (uint32_t i = 0; i < chunk.placements; ++i) {
        const uint32_t target = plan.placements[chunk.first_placement + i].target;
        EXPECT_TRUE(placed.insert(target).second) << "target placed twice";
        for (const auto& [entry, added] : adds) {
          if (added == target) {
            ASSERT_EQ(entry.id, chunk.id);
          }
        }
      }
    }
  }
  EXPECT_EQ(next_chunk, plan.chunks.size());
  EXPECT_EQ(placed.size(), adds.size());
  EXPECT_LE(plan.read_bytes,
            plan.stored_bytes + plan.stored_bytes / 20 + plan.reads.size() * 2 * kReadAlignment);
}

TEST_F(PlanTest, JoinsNeighboursUpTo4MiB) {
  constexpr uint32_t kTile = 1 << 20;
  for (uint64_t i = 0; i < 9; ++i) {
    // A directory block before every fourth tile, as segments have.
    ASSERT_TRUE(add(entry_at(0, 4096 + i * kTile + i / 4 * 4096, kTile)).ok());
  }
  const RestorePlan plan = std::move(*builder_).finish();
  ASSERT_EQ(plan.reads.size(), 3u);
  EXPECT_EQ(plan.reads[0].bytes, 4u * kTile);
  EXPECT_EQ(plan.reads[1].bytes, 4u * kTile);
  EXPECT_EQ(plan.reads[2].bytes, 1u * kTile);
  EXPECT_EQ(plan.read_bytes, plan.stored_bytes);
}

TEST_F(PlanTest, ReadsIntoPlaceWhereObjectAndMemoryGoOnTogether) {
  constexpr uint32_t kTile = 1 << 20;
  auto* const memory = reinterpret_cast<std::byte*>(uintptr_t{1} << 32);
  // Five neighbours in the object; in memory the third lies apart.
  for (uint64_t i = 0; i < 5; ++i) {
    std::byte* const place = memory + i * kTile + (i >= 2 ? 4096 : 0);
    ASSERT_TRUE(add(entry_at(0, 4096 + i * kTile, kTile), static_cast<uint32_t>(i), place).ok());
  }
  const RestorePlan plan = std::move(*builder_).finish();
  ASSERT_EQ(plan.reads.size(), 2u);
  EXPECT_EQ(plan.reads[0].in_place, memory);
  EXPECT_EQ(plan.reads[0].bytes, 2u * kTile);
  EXPECT_EQ(plan.reads[1].in_place, memory + 2 * kTile + 4096);
  EXPECT_EQ(plan.reads[1].bytes, 3u * kTile);
  EXPECT_EQ(plan.staged_bytes, 0u);
}

TEST_F(PlanTest, WhatNoDeviceCanPlaceGoesThroughABuffer) {
  constexpr uint32_t kTile = 1 << 20;
  auto* const memory = reinterpret_cast<std::byte*>(uintptr_t{1} << 32);
  const auto apart = [](uint64_t i) { return 4096 + i * 3 * kTile; };
  format::ChunkEntry coded = entry_at(0, apart(4), kTile);
  coded.codec = static_cast<uint8_t>(CodecId::kZstd);
  ASSERT_TRUE(add(entry_at(0, apart(0), kTile), 0, memory + 64).ok());    // memory
  ASSERT_TRUE(add(entry_at(0, apart(1) + 64, kTile), 1, memory).ok());    // offset
  ASSERT_TRUE(add(entry_at(0, apart(2), kTile - 512), 2, memory).ok());   // length
  ASSERT_TRUE(add(entry_at(0, apart(3), kTile), 3, memory, false).ok());  // 4 KiB pages
  ASSERT_TRUE(add(coded, 4, memory).ok());                                // codec
  ASSERT_TRUE(add(entry_at(0, apart(5), kTile), 5, memory).ok());         // wanted twice
  ASSERT_TRUE(add(entry_at(0, apart(5), kTile), 6, memory + kTile).ok());
  ASSERT_TRUE(add(entry_at(0, apart(6), 4096), 7, memory).ok());  // small
  const RestorePlan plan = std::move(*builder_).finish();
  ASSERT_EQ(plan.reads.size(), 7u);
  for (const PlannedRead& read : plan.reads) EXPECT_EQ(read.in_place, nullptr) << read.offset;
  EXPECT_EQ(plan.staged_bytes, plan.read_bytes);
  EXPECT_EQ(plan.decode_bytes_max, 0u) << "decoded into place";
}

TEST_F(PlanTest, AChunkLargerThanAReadIsOneRead) {
  ASSERT_TRUE(add(entry_at(0, 4096 + 64, 9u << 20)).ok());
  ASSERT_TRUE(add(entry_at(0, 4096 + 64 + (9u << 20), 100)).ok());
  const RestorePlan plan = std::move(*builder_).finish();
  ASSERT_GE(plan.reads.size(), 1u);
  EXPECT_EQ(plan.reads[0].bytes, (9u << 20) + kReadAlignment);
  EXPECT_EQ(plan.read_bytes_max, plan.reads[0].bytes);
}

TEST_F(PlanTest, ATwinIsReadWithTheBaseBeforeIt) {
  constexpr uint32_t kBase = 100'000, kTwin = 110'000;
  const auto plan_with = [this](uint64_t base_at, uint64_t twin_at) {
    builder_.emplace(root_, *packs_);
    // So much of the read is full that the twin alone would be the next one's.
    EXPECT_TRUE(add(entry_at(0, 4096, kReadBytesMax - 256 * 1024)).ok());
    format::ChunkEntry base = entry_at(0, base_at, kBase), twin = entry_at(0, twin_at, kTwin);
    base.codec = static_cast<uint8_t>(CodecId::kBitPlanes);
    base.raw_bytes = 2 * kBase;
    twin.codec = static_cast<uint8_t>(CodecId::kTwin);
    twin.flags = format::kFlagHasBase;
    twin.raw_bytes = 4 * kBase;
    EXPECT_TRUE(add(base).ok());
    EXPECT_TRUE(add(twin).ok());
    return std::move(*builder_).finish();
  };
  constexpr uint64_t kBegin = 4096 + (4 << 20);
  constexpr uint64_t kEnd = (kBegin + kBase + 63) / 64 * 64;
  const auto together = [](const RestorePlan& plan) {
    return plan.chunks.size() == 3 && plan.chunks[1].has_twin && plan.reads.size() == 2 &&
           plan.reads[1].chunks == 2;
  };
  EXPECT_TRUE(together(plan_with(kBegin, kEnd)));
  // The base ends its segment, the twin is the first of the next one, behind the directory.
  constexpr uint64_t kNextSegment = (kBegin + kBase + 4095) / 4096 * 4096;
  EXPECT_TRUE(together(plan_with(kBegin, kNextSegment + format::kBlockBytes)));
  const RestorePlan apart = plan_with(kBegin, kNextSegment + 2 * format::kBlockBytes);
  EXPECT_FALSE(apart.chunks[1].has_twin);
}

TEST_F(PlanTest, InlineChunksComeFromTheirPart) {
  ASSERT_TRUE(add(entry_at(format::kPackInline, 10, 4)).ok());
  ASSERT_TRUE(add(entry_at(format::kPackInline, 14, 5000)).ok());
  const RestorePlan plan = std::move(*builder_).finish();
  ASSERT_EQ(plan.reads.size(), 1u);
  EXPECT_EQ(plan.reads[0].object, 2u) << "after the two packs";
  EXPECT_EQ(&object_of(root_, *packs_, 2), &root_.parts[0].part);
  EXPECT_EQ(plan.chunks[0].offset, 4096u + 10);
  EXPECT_EQ(plan.reads[0].bytes, 8192u);
}

TEST_F(PlanTest, TwoDescriptionsOfOnePlaceAreBothChecked) {
  // The same place described in two ways: one of them is wrong, and both must be checked.
  format::ChunkEntry a = entry_at(0, 4096, 100), b = a;
  b.id = digest_of({});
  ASSERT_TRUE(add(a, 0).ok());
  ASSERT_TRUE(add(b, 1).ok());
  const RestorePlan plan = std::move(*builder_).finish();
  EXPECT_EQ(plan.chunks.size(), 2u);
  EXPECT_EQ(plan.reads.size(), 1u);
}

TEST_F(PlanTest, RefusesAnEntryOfAnotherSize) {
  WantedTensor tensor;
  tensor.spec = {.name = "w", .dtype = kByte, .shape = Shape::of(std::vector<uint64_t>{8})};
  ShardRecord shard;
  shard.box = Box::whole(tensor.spec.shape);
  shard.grid = grid_of(1, 8);
  tensor.shards = {shard};
  const Status status = builder_->add({}, tensor, {}, entry_at(0, 4096, 9));
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_NE(status.message().find("tensor \"w\""), std::string_view::npos);
}

}  // namespace
}  // namespace caisson

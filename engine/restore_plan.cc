#include "engine/restore_plan.h"

#include <algorithm>
#include <tuple>

namespace caisson {

namespace {

// Reading over a gap of this many entries (eight blocks) costs less than another read.
constexpr uint64_t kEntryGapMax = 8 * format::kEntriesPerBlock;
constexpr uint64_t kEntryRangeMax = 256 * format::kEntriesPerBlock;  // 1 MiB of blocks
// One part in 20 of a read may be bytes that nobody asked for.
constexpr uint64_t kGapDivisor = 20;

auto grid_key(const ShardRecord& shard) {
  return std::tie(shard.box.offset, shard.box.extent, shard.grid.origin, shard.grid.cell);
}

// The dimension with the most distinct offsets: where sorting tells shards apart best.
int most_divided_axis(std::span<const ShardRecord> shards) {
  int best = 0;
  size_t best_count = 0;
  std::vector<uint64_t> offsets;
  for (int d = 0; !shards.empty() && d < shards.front().box.rank; ++d) {
    offsets.clear();
    for (const ShardRecord& shard : shards) offsets.push_back(shard.box.offset[d]);
    std::sort(offsets.begin(), offsets.end());
    const auto end = std::unique(offsets.begin(), offsets.end());
    const auto count = static_cast<size_t>(end - offsets.begin());
    if (count > best_count) {
      best = d;
      best_count = count;
    }
  }
  return best;
}

// Appends chunks, sorted by object and offset, to the last read where that stays small enough and
// wastes little, else opens the next.
class ReadCoalescer {
 public:
  explicit ReadCoalescer(std::vector<PlannedRead>& reads) : reads_(reads) {}

  // `stored_end`: of the chunk, or of the twin that must be in the same read.
  void add(const PlannedChunk& chunk, uint32_t index, uint64_t stored_end, uint64_t object_bytes) {
    const uint64_t begin = chunk.offset / kReadAlignment * kReadAlignment;
    const uint64_t end = std::min(align_up(stored_end, kReadAlignment), object_bytes);
    const bool in_place = goes_in_place(chunk);
    if (!(in_place ? continues_in_place(chunk) : joins(chunk, begin, end))) {
      needed_ = gaps_ = 0;
      reads_.push_back({.offset = begin,
                        .bytes = 0,
                        .object = chunk.object,
                        .first_chunk = index,
                        .chunks = 0,
                        .in_place = in_place ? chunk.in_place : nullptr});
    }
    PlannedRead& read = reads_.back();
    gaps_ += gap_before(begin);
    needed_ += chunk.stored_bytes;
    read.bytes = std::max(read.bytes, static_cast<uint32_t>(end - read.offset));
    ++read.chunks;
  }

 private:
  static bool goes_in_place(const PlannedChunk& chunk) {
    return chunk.in_place != nullptr && chunk.hugepages && chunk.is_stored_raw() &&
           !chunk.has_twin && chunk.stored_bytes == chunk.raw_bytes &&
           chunk.stored_bytes >= kInPlaceBytesMin && chunk.offset % kReadAlignment == 0 &&
           chunk.stored_bytes % kReadAlignment == 0 &&
           reinterpret_cast<uintptr_t>(chunk.in_place) % kInPlaceAlignment == 0;
  }
  // Adjacent to the last read, both in the object and in memory.
  bool continues_in_place(const PlannedChunk& chunk) const {
    if (reads_.empty() || reads_.back().object != chunk.object) return false;
    const PlannedRead& last = reads_.back();
    return last.in_place != nullptr && last.offset + last.bytes == chunk.offset &&
           last.in_place + last.bytes == chunk.in_place &&
           last.bytes + chunk.stored_bytes <= kReadBytesMax;
  }
  // Blocks between the end of the last read and `begin`.
  uint64_t gap_before(uint64_t begin) const {
    const uint64_t last_end = reads_.back().offset + reads_.back().bytes;
    return begin > last_end ? begin - last_end : 0;
  }
  bool joins(const PlannedChunk& chunk, uint64_t begin, uint64_t end) const {
    if (reads_.empty() || reads_.back().object != chunk.object) return false;
    const PlannedRead& last = reads_.back();
    if (last.in_place != nullptr) return false;
    if (end <= last.offset + last.bytes) return true;
    return end - last.offset <= kReadBytesMax &&
           (gaps_ + gap_before(begin)) * kGapDivisor <= needed_ + chunk.stored_bytes;
  }

  std::vector<PlannedRead>& reads_;
  uint64_t needed_ = 0, gaps_ = 0;  // of the last read
};

constexpr uint32_t kNoTarget = UINT32_MAX;  // of a base that is wanted for its twin alone

bool is_twin(const PlannedChunk& chunk) {
  return chunk.codec == static_cast<uint8_t>(CodecId::kTwin);
}

// Right behind it, or the one the last of its segment, the other the first of the next: that starts
// with a directory block.
bool follows(const PlannedChunk& before, const PlannedChunk& chunk) {
  const uint64_t end = before.offset + before.stored_bytes;
  return before.object == chunk.object &&
         (align_up(end, format::kOffsetUnit) == chunk.offset ||
          align_up(end, format::kBlockBytes) + format::kBlockBytes == chunk.offset);
}

// As far as places and sizes tell: what it was encoded against stands in the twin itself.
bool is_base_of(const PlannedChunk& base, const PlannedChunk& twin) {
  return follows(base, twin) && uint64_t{base.raw_bytes} * 2 == twin.raw_bytes &&
         (base.flags & format::kFlagHasBase) == 0;
}

}  // namespace

ShardIndex::ShardIndex(std::span<const ShardRecord> shards)
    : shards_(shards), axis_(most_divided_axis(shards)) {
  build_groups();
}

void ShardIndex::build_groups() {
  std::vector<uint32_t> order;
  order.reserve(shards_.size());
  for (uint32_t i = 0; i < shards_.size(); ++i) {
    if (shards_[i].pieces > 0) order.push_back(i);
  }
  const auto along = [this](uint32_t i) { return shards_[i].box.offset[axis_]; };
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    const uint64_t at_a = along(a), at_b = along(b);
    if (at_a != at_b) return at_a < at_b;
    const auto key_a = grid_key(shards_[a]), key_b = grid_key(shards_[b]);
    if (key_a != key_b) return key_a < key_b;
    return std::tie(shards_[a].first_piece, a) < std::tie(shards_[b].first_piece, b);
  });
  for (const uint32_t i : order) {
    const ShardRecord& shard = shards_[i];
    if (groups_.empty() || grid_key(shards_[groups_.back().shard]) != grid_key(shard)) {
      const uint64_t end = shard.box.offset[axis_] + shard.box.extent[axis_];
      const uint64_t reach = groups_.empty() ? end : std::max(end, groups_.back().reach);
      groups_.push_back({.shard = i,
                         .first_holder = holders_.size(),
                         .end_holder = holders_.size(),
                         .reach = reach});
    }
    holders_.push_back(
        {.first = shard.first_piece, .end = shard.first_piece + shard.pieces, .shard = i});
    groups_.back().end_holder = holders_.size();
  }
}

Result<std::vector<ShardIndex::PieceRef>> ShardIndex::pieces_of(const Box& wanted) const {
  std::vector<PieceRef> found;
  const uint64_t elements = wanted.elements();
  if (elements == 0) return found;
  const uint64_t begin = wanted.rank == 0 ? 0 : wanted.offset[axis_];
  const uint64_t end = wanted.rank == 0 ? 1 : begin + wanted.extent[axis_];
  // A scalar has no axis: every group starts at 0 and reaches 0.
  auto group = wanted.rank == 0
                   ? groups_.begin()
                   : std::partition_point(groups_.begin(), groups_.end(),
                                          [&](const Group& g) { return g.reach <= begin; });
  uint64_t held = 0;
  for (; group != groups_.end(); ++group) {
    const ShardRecord& shape = shards_[group->shard];
    if (shape.box.offset[axis_] >= end) break;
    if (intersect(shape.box, wanted).elements() == 0) continue;
    auto holder = holders_.begin() + static_cast<ptrdiff_t>(group->first_holder);
    const auto holder_end = holders_.begin() + static_cast<ptrdiff_t>(group->end_holder);
    for (const uint64_t piece : pieces_meeting(shape.grid, shape.box, wanted)) {
      while (holder != holder_end && holder->end <= piece) ++holder;
      if (holder == holder_end) break;
      if (piece < holder->first) continue;
      found.push_back({.shard = holder->shard, .piece = piece});
      held += intersect(piece_at(shape.grid, shape.box, piece), wanted).elements();
    }
  }
  if (held != elements) {
    return corruption("the shards hold " + std::to_string(held) + " of the " +
                      std::to_string(elements) + " elements of box " + to_string(wanted));
  }
  return found;
}

std::vector<EntryRange> entry_ranges(std::span<const PieceUse> uses) {
  std::vector<EntryRange> ranges;
  for (size_t i = 0; i < uses.size(); ++i) {
    const PieceUse& use = uses[i];
    if (!ranges.empty() && ranges.back().part == use.part) {
      EntryRange& last = ranges.back();
      const uint64_t end = last.first + last.count;
      if (use.entry < end + kEntryGapMax && use.entry - last.first < kEntryRangeMax) {
        last.count = std::max(last.count, use.entry - last.first + 1);
        last.end_use = i + 1;
        continue;
      }
    }
    ranges.push_back(
        {.part = use.part, .first = use.entry, .count = 1, .first_use = i, .end_use = i + 1});
  }
  return ranges;
}

const format::SealedRef& object_of(const format::Root& root, const RootPacks& packs,
                                   uint32_t object) {
  return object < packs.size() ? packs.at(object) : root.parts[object - packs.size()].part;
}

Status PlanBuilder::add(const PieceUse& use, const WantedTensor& tensor, const WantedBox& target,
                        const format::ChunkEntry& entry) {
  const ShardRecord& shard = tensor.shards[use.shard];
  const Box piece = piece_at(shard.grid, shard.box, use.piece);
  CAISSON_ASSIGN_OR_RETURN(const uint64_t raw_bytes,
                           packed_bytes(piece.elements(), tensor.spec.dtype));
  const format::RootPart& part = root_.parts[use.part];
  if (entry.raw_bytes != raw_bytes) {
    return corruption(part.part.object.key() + " at offset " +
                      std::to_string(use.entry / format::kEntriesPerBlock * format::kBlockBytes) +
                      ": entry " + std::to_string(use.entry) + " describes " +
                      std::to_string(entry.raw_bytes) + " bytes, but piece " + to_string(piece) +
                      " of tensor \"" + tensor.spec.name + "\" has " + std::to_string(raw_bytes));
  }
  const bool in_part = entry.pack == format::kPackInline;
  const auto packs = static_cast<uint32_t>(packs_.size());
  items_.push_back(
      {.chunk = {.id = entry.id,
                 .offset = entry.offset_bytes() + (in_part ? part.inline_offset : 0),
                 .object = in_part ? packs + use.part : packs_.index_of(use.part, entry.pack),
                 .stored_bytes = entry.stored_bytes,
                 .raw_bytes = entry.raw_bytes,
                 .codec = entry.codec,
                 .flags = entry.flags,
                 .element = {.code = static_cast<uint8_t>(tensor.spec.dtype.code),
                             .bits = tensor.spec.dtype.bits},
                 .in_place = contiguous_place(target.memory, piece, tensor.spec.dtype),
                 .hugepages = target.hugepages},
       .placement = {.target = use.target, .shard = use.shard, .piece = use.piece}});
  return ok_status();
}

// The element's code is left out: a stored form decodes by itself, and the id covers the width.
bool PlanBuilder::same_chunk(const PlannedChunk& a, const PlannedChunk& b) {
  return a.object == b.object && a.offset == b.offset && a.stored_bytes == b.stored_bytes &&
         a.raw_bytes == b.raw_bytes && a.id == b.id && a.codec == b.codec && a.flags == b.flags &&
         a.element.bits == b.element.bits;
}

void PlanBuilder::sort() {
  std::sort(items_.begin(), items_.end(), [](const Item& a, const Item& b) {
    const auto key = [](const Item& i) {
      return std::tie(i.chunk.object, i.chunk.offset, i.chunk.stored_bytes, i.chunk.raw_bytes,
                      i.chunk.id, i.chunk.codec, i.chunk.flags, i.chunk.element.bits,
                      i.placement.target, i.placement.piece);
    };
    return key(a) < key(b);
  });
}

std::vector<PlanBuilder::LoneTwin> PlanBuilder::lone_twins() {
  sort();
  std::vector<LoneTwin> lone;
  for (size_t i = 0; i < items_.size(); ++i) {
    const PlannedChunk& chunk = items_[i].chunk;
    if (!is_twin(chunk)) continue;
    size_t before = i;  // the same chunk may be wanted several times
    while (before > 0 && same_chunk(items_[before - 1].chunk, chunk)) --before;
    if (before > 0 && is_base_of(items_[before - 1].chunk, chunk)) continue;
    if (before == i) lone.push_back({chunk.object, chunk.offset, chunk.raw_bytes});
  }
  return lone;
}

void PlanBuilder::add_base(uint32_t object, const format::ChunkEntry& base) {
  items_.push_back(
      {.chunk = {.id = base.id,
                 .offset = base.offset_bytes(),
                 .object = object,
                 .stored_bytes = base.stored_bytes,
                 .raw_bytes = base.raw_bytes,
                 .codec = base.codec,
                 .flags = base.flags,
                 .element = {.code = static_cast<uint8_t>(DTypeCode::kBfloat), .bits = 16}},
       .placement = {.target = kNoTarget}});
}

RestorePlan PlanBuilder::finish() && {
  sort();
  RestorePlan plan;
  plan.placements.reserve(items_.size());
  for (const Item& item : items_) {
    if (item.placement.target == kNoTarget) {
      plan.chunks.push_back(item.chunk);
      plan.chunks.back().first_placement = static_cast<uint32_t>(plan.placements.size());
      continue;
    }
    plan.placements.push_back(item.placement);
    if (!plan.chunks.empty() && same_chunk(plan.chunks.back(), item.chunk)) {
      ++plan.chunks.back().placements;
      plan.chunks.back().in_place = nullptr;
      continue;
    }
    plan.chunks.push_back(item.chunk);
    PlannedChunk& chunk = plan.chunks.back();
    chunk.first_placement = static_cast<uint32_t>(plan.placements.size() - 1);
    chunk.placements = 1;
  }
  for (size_t i = 1; i < plan.chunks.size(); ++i) {
    if (!is_twin(plan.chunks[i])) continue;
    plan.chunks[i - 1].has_twin = is_base_of(plan.chunks[i - 1], plan.chunks[i]);
  }
  ReadCoalescer coalescer(plan.reads);
  for (uint32_t i = 0; i < plan.chunks.size(); ++i) {
    const PlannedChunk& chunk = plan.chunks[i];
    const PlannedChunk& last = chunk.has_twin ? plan.chunks[i + 1] : chunk;
    coalescer.add(chunk, i, last.offset + last.stored_bytes,
                  object_of(root_, packs_, chunk.object).bytes);
    plan.stored_bytes += chunk.stored_bytes;
    plan.has_bases = plan.has_bases || (chunk.flags & format::kFlagHasBase) != 0;
    if (!chunk.is_stored_raw() && chunk.in_place == nullptr) {
      plan.decode_bytes_max = std::max(plan.decode_bytes_max, chunk.raw_bytes);
    }
  }
  for (const PlannedRead& read : plan.reads) {
    plan.read_bytes += read.bytes;
    if (read.in_place == nullptr) plan.staged_bytes += read.bytes;
    plan.read_bytes_max = std::max(plan.read_bytes_max, read.bytes);
  }
  return plan;
}

}  // namespace caisson

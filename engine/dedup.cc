#include "engine/dedup.h"

#include <algorithm>
#include <utility>

#include "compression/codec.h"
#include "io/base/check.h"

namespace caisson {

namespace {

// Entries fetched at once: from 128 KiB of the table at first to a MiB of it while they are asked
// for in order. Every such read waits behind the writes in flight, and the writer with it.
constexpr uint64_t kWindowEntriesMin = 32 * format::kEntriesPerBlock;
constexpr uint64_t kWindowEntriesMax = 256 * format::kEntriesPerBlock;

bool meets(const Box& a, const Box& b) {
  const Box both = intersect(a, b);
  return both.elements() > 0;
}

}  // namespace

bool is_whole_in_its_pack(const format::ChunkEntry& entry) {
  return (entry.flags & format::kFlagHasBase) == 0 ||
         entry.codec == static_cast<uint8_t>(CodecId::kTwin);
}

ParentDedup::ParentDedup(ObjectStore& objects, std::shared_ptr<Manifest> parent)
    : parent_(std::move(parent)) {
  if (parent_ == nullptr) return;
  reads_.emplace(objects);
  chunks_.emplace(*reads_, parent_->packs());
}

const TensorRecord* ParentDedup::record_of(const TensorSpec& tensor) {
  if (parent_ == nullptr || !error_.ok()) return nullptr;
  if (!selected_known_ || !(selected_ == tensor)) {
    selected_ = tensor;
    selected_known_ = true;
    record_.reset();
    auto found = parent_->find(tensor.name);
    if (!found.ok()) {
      error_ = found.status();
      return nullptr;
    }
    record_ = std::move(found).value();
    if (record_ && (record_->kind == TensorKind::kAlias || !(record_->spec == tensor))) {
      record_.reset();
    }
  }
  return record_.get();
}

std::optional<Shape> ParentDedup::tile_of(const TensorSpec& tensor) {
  const TensorRecord* record = record_of(tensor);
  if (record == nullptr) return std::nullopt;
  return record->tile;
}

void ParentDedup::select(const TensorSpec& tensor, const Box& box) {
  near_.clear();
  hint_ = 0;
  const TensorRecord* record = record_of(tensor);
  if (record == nullptr) return;
  for (const ShardRecord& shard : record->shards) {
    if (shard.pieces > 0 && meets(shard.box, box)) near_.push_back(&shard);
  }
}

ParentShard ParentDedup::shard_of(const TensorSpec& tensor, const ShardRecord& shard) {
  const TensorRecord* record = record_of(tensor);
  if (record == nullptr) return {.match = ParentShard::Match::kNone};
  for (const ShardRecord& theirs : record->shards) {
    if (theirs.pieces == 0 || theirs.box != shard.box || theirs.grid != shard.grid) continue;
    // Of several replicas another one may have stored what this one does.
    if (theirs.first_piece > shard.first_piece ||
        shard.first_piece + shard.pieces > theirs.first_piece + theirs.pieces) {
      continue;
    }
    return {.match = ParentShard::Match::kSame,
            .part = theirs.part,
            .first_piece = theirs.first_piece,
            .pieces = theirs.pieces,
            .first_entry = theirs.first_entry};
  }
  return {};
}

std::optional<PlacedChunk> ParentDedup::find(const ParentShard& shard, uint64_t piece) {
  CAISSON_CHECK(piece >= shard.first_piece && piece - shard.first_piece < shard.pieces);
  return chunk_at(shard.part, shard.first_entry + (piece - shard.first_piece));
}

std::optional<PlacedChunk> ParentDedup::find(const Box& piece) {
  for (size_t tried = 0; tried < near_.size(); ++tried) {
    const size_t candidate = (hint_ + tried) % near_.size();
    const ShardRecord& shard = *near_[candidate];
    if (!contains(shard.box, piece)) continue;
    const std::optional<uint64_t> index = find_piece(shard.grid, shard.box, piece);
    if (!index || *index < shard.first_piece || *index - shard.first_piece >= shard.pieces)
      continue;
    hint_ = candidate;
    return chunk_at(shard.part, shard.first_entry + (*index - shard.first_piece));
  }
  return std::nullopt;
}

std::optional<PlacedChunk> ParentDedup::chunk_at(uint32_t part, uint64_t wanted) {
  const format::ChunkEntry* entry = entry_at(part, wanted);
  if (entry == nullptr || entry->pack == format::kPackInline) return std::nullopt;
  PlacedChunk chunk{.entry = *entry,
                    .parent_pack = &parent_->pack_of(part, *entry),
                    .own_pack = {},
                    .source = ChunkSource::kParent};
  if (is_whole_in_its_pack(*entry)) return chunk;
  const auto base = base_of_delta(chunk);
  if (!base.ok()) {
    error_ = base.status();
    near_.clear();
    return std::nullopt;
  }
  chunk.base_pack = base->pack;
  return chunk;
}

Result<ParentDedup::Anchor> ParentDedup::base_of_delta(const PlacedChunk& delta) {
  ByteVector stored(format::kBaseRefBytes);
  if (delta.entry.stored_bytes < stored.size()) return corruption("a delta without its base");
  CAISSON_RETURN_IF_ERROR(reads_->read(*delta.parent_pack, delta.entry.offset_bytes(), stored));
  Anchor base;
  CAISSON_ASSIGN_OR_RETURN(base.ref,
                           format::decode_base_ref(stored, delta.parent_pack->object.key()));
  CAISSON_ASSIGN_OR_RETURN(base.pack, parent_->packs().find(base.ref.pack));
  if (base.pack != nullptr) return base;
  return corruption(delta.parent_pack->object.key() + " needs " + base.ref.pack.key() +
                    ", which the root does not list");
}

std::optional<ParentDedup::Anchor> ParentDedup::anchor_of(const PlacedChunk& chunk) {
  const format::ChunkEntry& entry = chunk.entry;
  if (chunk.base_pack != nullptr) {
    auto base = base_of_delta(chunk);
    return base.ok() ? std::optional(std::move(base).value()) : std::nullopt;
  }
  if (chunk.parent_pack == nullptr || (entry.flags & format::kFlagHasBase) != 0)
    return std::nullopt;
  return Anchor{.ref = {.id = entry.id,
                        .raw_bytes = entry.raw_bytes,
                        .stored_bytes = entry.stored_bytes,
                        .offset_units = entry.offset_units,
                        .codec = entry.codec,
                        .pack = chunk.parent_pack->object},
                .pack = chunk.parent_pack};
}

Result<Bytes> ParentDedup::read_anchor(const Anchor& anchor) {
  return chunks_->read_base(anchor.ref);
}

const format::ChunkEntry* ParentDedup::entry_at(uint32_t part, uint64_t wanted) {
  if (parent_ == nullptr || !error_.ok()) return nullptr;
  const bool held =
      window_part_ == part && wanted >= window_first_ && wanted - window_first_ < window_.size();
  if (!held) {
    const bool in_order = window_part_ == part && wanted == window_first_ + window_.size();
    const uint64_t count =
        in_order ? std::clamp<uint64_t>(2 * window_.size(), kWindowEntriesMin, kWindowEntriesMax)
                 : kWindowEntriesMin;
    window_.clear();
    // Beyond this shard's own: a part's tensors come back in the order in which they were put.
    const auto& parts = parent_->root().parts;
    const uint64_t end = part < parts.size() ? parts[part].entries : 0;
    if (wanted >= end) return nullptr;
    auto entries = parent_->entries(part, wanted, std::min(count, end - wanted));
    if (!entries.ok()) {
      error_ = entries.status();
      near_.clear();
      return nullptr;
    }
    window_ = std::move(entries).value();
    window_part_ = part;
    window_first_ = wanted;
    if (window_.empty()) return nullptr;
  }
  return &window_[wanted - window_first_];
}

SaveChunks::Slot& SaveChunks::slot_of(const Digest& id) {
  const auto where = load_le<uint64_t>(id.bytes.data());
  const auto tag = static_cast<uint32_t>(where >> 32);
  for (size_t at = where & (slots_.size() - 1);; at = (at + 1) & (slots_.size() - 1)) {
    Slot& slot = slots_[at];
    if (slot.chunk == 0) return slot;
    if (slot.tag == tag && chunks_[slot.chunk - 1].entry.id == id) return slot;
  }
}

void SaveChunks::grow() {
  constexpr size_t kSlotsMin = 1024;
  if (2 * (chunks_.size() + 1) <= slots_.size()) return;
  slots_.assign(std::max(kSlotsMin, 2 * slots_.size()), {});
  for (uint32_t i = 0; i < chunks_.size(); ++i) {
    const Digest& id = chunks_[i].entry.id;
    slot_of(id) = {.tag = static_cast<uint32_t>(load_le<uint64_t>(id.bytes.data()) >> 32),
                   .chunk = i + 1};
  }
}

std::optional<PlacedChunk> SaveChunks::find(const Digest& id, uint32_t raw_bytes) {
  MutexLock lock(mutex_);
  if (slots_.empty()) return std::nullopt;
  const Slot& slot = slot_of(id);
  if (slot.chunk == 0) return std::nullopt;
  const Stored& stored = chunks_[slot.chunk - 1];
  if (stored.entry.raw_bytes != raw_bytes) return std::nullopt;
  return PlacedChunk{.entry = stored.entry,
                     .parent_pack = nullptr,
                     .own_pack = packs_[stored.pack],
                     .base_pack = stored.base_pack,
                     .source = ChunkSource::kSave};
}

void SaveChunks::add(const PlacedChunk& chunk) {
  CAISSON_CHECK(chunk.parent_pack == nullptr);
  MutexLock lock(mutex_);
  if (chunks_.size() >= kChunksMax) return;
  grow();
  Slot& slot = slot_of(chunk.entry.id);
  if (slot.chunk != 0) return;
  // Of the pack that is being filled, or of another worker's.
  size_t pack = packs_.size();
  while (pack > 0 && packs_[pack - 1] != chunk.own_pack) --pack;
  if (pack == 0) {
    packs_.push_back(chunk.own_pack);
    pack = packs_.size();
  }
  chunks_.push_back({.entry = chunk.entry,
                     .pack = static_cast<uint32_t>(pack - 1),
                     .base_pack = chunk.base_pack});
  slot = {.tag = static_cast<uint32_t>(load_le<uint64_t>(chunk.entry.id.bytes.data()) >> 32),
          .chunk = static_cast<uint32_t>(chunks_.size())};
}

}  // namespace caisson

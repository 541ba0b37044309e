#include "engine/dedup.h"

#include <algorithm>
#include <utility>

namespace caisson {

namespace {

// Entries fetched at once: ten blocks of the table.
constexpr uint64_t kWindowEntries = 10 * format::kEntriesPerBlock;

bool meets(const Box& a, const Box& b) {
  const Box both = intersect(a, b);
  return both.elements() > 0;
}

}  // namespace

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
  return record_ ? &*record_ : nullptr;
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

std::optional<PlacedChunk> ParentDedup::find(const Box& piece) {
  for (size_t tried = 0; tried < near_.size(); ++tried) {
    const size_t candidate = (hint_ + tried) % near_.size();
    const ShardRecord& shard = *near_[candidate];
    if (!contains(shard.box, piece)) continue;
    const std::optional<uint64_t> index = find_piece(shard.grid, shard.box, piece);
    if (!index || *index < shard.first_piece || *index - shard.first_piece >= shard.pieces)
      continue;
    hint_ = candidate;
    const format::ChunkEntry* entry = entry_at(shard, *index - shard.first_piece);
    if (entry == nullptr) return std::nullopt;
    const bool has_base = (entry->flags & format::kFlagHasBase) != 0;
    if (entry->pack == format::kPackInline || has_base) return std::nullopt;
    return PlacedChunk{.entry = *entry,
                       .parent_pack = &parent_->pack_of(shard.part, *entry),
                       .own_pack = {},
                       .source = ChunkSource::kParent};
  }
  return std::nullopt;
}

const format::ChunkEntry* ParentDedup::entry_at(const ShardRecord& shard, uint64_t piece) {
  if (!error_.ok()) return nullptr;
  const uint64_t wanted = shard.first_entry + piece;
  const bool held = window_part_ == shard.part && wanted >= window_first_ &&
                    wanted - window_first_ < window_.size();
  if (!held) {
    window_.clear();
    // Beyond this shard's own: a part's tensors come back in the order in which they were put.
    const auto& parts = parent_->root().parts;
    const uint64_t end = shard.part < parts.size() ? parts[shard.part].entries : 0;
    if (wanted >= end) return nullptr;
    auto entries = parent_->entries(shard.part, wanted, std::min(kWindowEntries, end - wanted));
    if (!entries.ok()) {
      error_ = entries.status();
      near_.clear();
      return nullptr;
    }
    window_ = std::move(entries).value();
    window_part_ = shard.part;
    window_first_ = wanted;
    if (window_.empty()) return nullptr;
  }
  return &window_[wanted - window_first_];
}

std::optional<PlacedChunk> SaveChunks::find(const Digest& id, uint32_t raw_bytes) {
  MutexLock lock(mutex_);
  const auto found = chunks_.find(id);
  if (found == chunks_.end() || found->second.entry.raw_bytes != raw_bytes) return std::nullopt;
  PlacedChunk chunk = found->second;
  chunk.source = ChunkSource::kSave;
  return chunk;
}

void SaveChunks::add(const PlacedChunk& chunk) {
  MutexLock lock(mutex_);
  if (chunks_.size() < kChunksMax) chunks_.emplace(chunk.entry.id, chunk);
}

}  // namespace caisson

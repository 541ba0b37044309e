// Stage 3 of the save path: is a piece stored already? By position, in the checkpoint that the save
// is compared with (ParentDedup), and by content, among what this save stored (SaveChunks). No
// database: the parent's part tables are read a few blocks at a time.
//
// A parent's chunk may be referred to when tensor name, element type and shape are equal, a shard
// of the parent has a piece with exactly the same box, and the content ids are equal. Never reused:
// inline chunks (they live in the parent's part, not in a pack; they are tiny and stored again) and
// chunks with a base of their own (whose base's pack the entry does not show).
#pragma once

#include <memory>
#include <optional>
#include <unordered_map>

#include "engine/manifest.h"
#include "io/base/sync.h"

namespace caisson {

// Where a chunk of a save comes from.
enum class ChunkSource : uint8_t {
  kNew,     // stored by this piece
  kInline,  // in the part table
  kParent,  // the same place of the checkpoint that the save is compared with
  kSave,    // stored before by the same save
  kStore,   // found through the index
};

// A chunk and the pack that holds it. Exactly one of the two packs is meant: `parent_pack` when not
// null (it points into the parent's manifest), else `own_pack`.
struct PlacedChunk {
  format::ChunkEntry entry;
  const format::SealedRef* parent_pack = nullptr;
  format::ObjectRef own_pack;
  ChunkSource source = ChunkSource::kNew;
};

// One worker's view of the parent checkpoint. Thread-compatible. A parent that cannot be read never
// fails a save: from the first error on nothing is found, and error() says why.
class ParentDedup {
 public:
  explicit ParentDedup(std::shared_ptr<Manifest> parent) : parent_(std::move(parent)) {}

  // The tile shape that the parent used for this tensor, to be inherited.
  std::optional<Shape> tile_of(const TensorSpec& tensor);
  // Turns to the pieces of `box` of `tensor`.
  void select(const TensorSpec& tensor, const Box& box);
  // The parent's chunk of exactly this piece.
  std::optional<PlacedChunk> find(const Box& piece);
  const Status& error() const { return error_; }

 private:
  const TensorRecord* record_of(const TensorSpec& tensor);
  const format::ChunkEntry* entry_at(const ShardRecord& shard, uint64_t piece);

  std::shared_ptr<Manifest> parent_;
  Status error_;
  std::optional<TensorRecord> record_;  // of the tensor looked up last
  TensorSpec selected_;
  bool selected_known_ = false;
  std::vector<const ShardRecord*> near_;  // the record's shards that meet the selected box
  size_t hint_ = 0;                       // the one that held the last piece
  uint32_t window_part_ = 0;              // entries of this part's table from window_first_ on
  uint64_t window_first_ = 0;
  std::vector<format::ChunkEntry> window_;
};

// What this save stored in its own packs, by content. Thread-safe. Bounded: the first
// kChunksMax chunks are remembered, which is some 100 GB of tiles.
class SaveChunks {
 public:
  static constexpr size_t kChunksMax = 1u << 17;
  std::optional<PlacedChunk> find(const Digest& id, uint32_t raw_bytes) CAISSON_EXCLUDES(mutex_);
  void add(const PlacedChunk& chunk) CAISSON_EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  std::unordered_map<Digest, PlacedChunk, DigestHash> chunks_ CAISSON_GUARDED_BY(mutex_);
};

}  // namespace caisson

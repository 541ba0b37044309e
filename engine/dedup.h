// Stage 3 of the save path: is a piece stored already? By position, in the checkpoint that the save
// is compared with (ParentDedup), and by content, among what this save stored (SaveChunks). No
// database: the parent's part tables are read a few blocks at a time.
//
// A parent's chunk may be referred to when tensor name, element type and shape are equal, a shard
// of the parent has a piece with exactly the same box, and the content ids are equal. Never reused:
// inline chunks (they live in the parent's part, not in a pack; they are tiny and stored again).
// The pack of a delta's base, which the entry does not show, is read from the delta.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "engine/chunk_reader.h"
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
  // Of a delta: the other pack that its readers need, in the parent's manifest.
  const format::SealedRef* base_pack = nullptr;
  ChunkSource source = ChunkSource::kNew;
};

// Whether the pack of a chunk is all that its readers need beside the entry: the base of a twin
// lies in the twin's own.
bool is_whole_in_its_pack(const format::ChunkEntry& entry);

// What the plan of a save found out about a shard in the parent, so that its pieces need not look
// for it again.
struct ParentShard {
  enum class Match : uint8_t {
    kOther,  // piece by piece, among the tensor's shards
    kNone,   // the parent does not have the tensor
    kSame,   // a shard of the same box and grid, with these pieces and entries
  };
  Match match = Match::kOther;
  uint32_t part = 0;
  uint64_t first_piece = 0, pieces = 0;
  uint64_t first_entry = 0;
};

// One worker's view of the parent checkpoint. Thread-compatible. A parent that cannot be read never
// fails a save: from the first error on nothing is found, and error() says why.
class ParentDedup {
 public:
  ParentDedup() = default;  // without a parent nothing is found
  // `objects` outlives it.
  ParentDedup(ObjectStore& objects, std::shared_ptr<Manifest> parent);

  // The tile shape that the parent used for this tensor, to be inherited.
  std::optional<Shape> tile_of(const TensorSpec& tensor);
  ParentShard shard_of(const TensorSpec& tensor, const ShardRecord& shard);
  // Turns to the pieces of `box` of `tensor`.
  void select(const TensorSpec& tensor, const Box& box);
  // The parent's chunk of exactly this piece.
  std::optional<PlacedChunk> find(const Box& piece);
  // The same of a shard that it has, kSame. REQUIRES: it has that piece of the box.
  std::optional<PlacedChunk> find(const ParentShard& shard, uint64_t piece);
  // What a delta against that chunk is to have as its base: the chunk itself, or the base that it
  // has, so that no base is a delta. Nothing where it cannot serve as one.
  struct Anchor {
    format::BaseRef ref;
    const format::SealedRef* pack = nullptr;
  };
  std::optional<Anchor> anchor_of(const PlacedChunk& chunk);
  // The anchor's raw bytes, read, decoded and verified; they stay until the next call.
  Result<Bytes> read_anchor(const Anchor& anchor);
  const Status& error() const { return error_; }

 private:
  const TensorRecord* record_of(const TensorSpec& tensor);
  const format::ChunkEntry* entry_at(uint32_t part, uint64_t wanted);
  std::optional<PlacedChunk> chunk_at(uint32_t part, uint64_t entry);

  Result<Anchor> base_of_delta(const PlacedChunk& delta);

  std::shared_ptr<Manifest> parent_;
  std::optional<ObjectReads> reads_;  // of deltas and anchors; null without a parent
  std::optional<ChunkReader> chunks_;
  Status error_;
  std::shared_ptr<const TensorRecord> record_;  // of the tensor looked up last; null: none
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
  // A small piece asks for less time than a node of a hash map costs: so they lie in one array, and
  // what is no hit is known from an eight-byte slot.
  struct Stored {
    format::ChunkEntry entry;
    uint32_t pack = 0;  // in packs_
    const format::SealedRef* base_pack = nullptr;
  };
  struct Slot {
    uint32_t tag = 0;    // of the id, beside the bits that lead here
    uint32_t chunk = 0;  // in chunks_, from 1 on; 0: free
  };
  // The slot of that id, or the free one where it would be. REQUIRES: slots_ is not full.
  Slot& slot_of(const Digest& id) CAISSON_REQUIRES(mutex_);
  void grow() CAISSON_REQUIRES(mutex_);

  Mutex mutex_;
  std::vector<Stored> chunks_ CAISSON_GUARDED_BY(mutex_);
  std::vector<Slot> slots_ CAISSON_GUARDED_BY(mutex_);  // a power of two, half of it free
  std::vector<format::ObjectRef> packs_ CAISSON_GUARDED_BY(mutex_);
};

}  // namespace caisson

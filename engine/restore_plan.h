// Stage 2 of restore: from wanted boxes to few large reads. First which pieces hold a box
// (ShardIndex), then, once their entries are known, which chunks to read from where, in the order
// of the device, each once (PlanBuilder). Used by restore_request.cc and restore_pipeline.cc. Pure;
// thread-compatible.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compression/codec.h"
#include "engine/copy_box.h"
#include "engine/format/directory.h"
#include "engine/format/root.h"
#include "engine/root_packs.h"

namespace caisson {

// Finds the shards that meet a box without looking at all of them: a reshard to as many boxes as
// there are shards must not be quadratic. Keeps a reference to `shards`.
class ShardIndex {
 public:
  explicit ShardIndex(std::span<const ShardRecord> shards);

  struct PieceRef {
    uint32_t shard = 0;  // index into the shards
    uint64_t piece = 0;  // of that shard's box and grid
    bool operator==(const PieceRef&) const = default;
  };
  // The pieces that together hold every element of `wanted` once. kCorruption naming the box when
  // they do not: no committed checkpoint has holes or overlaps.
  Result<std::vector<PieceRef>> pieces_of(const Box& wanted) const;

 private:
  // Pieces [first, end) of a group are stored by `shard`; ascending by first. Where two shards
  // store a piece, the first that still reaches it is taken.
  struct Holder {
    uint64_t first = 0, end = 0;
    uint32_t shard = 0;
  };
  // Shards of the same box and grid: replicas, which divide the pieces among them.
  struct Group {
    uint32_t shard = 0;  // any of them, for box and grid
    size_t first_holder = 0, end_holder = 0;
    uint64_t reach = 0;  // the largest end along axis_ of this group and all before it
  };
  void build_groups();

  std::span<const ShardRecord> shards_;
  int axis_ = 0;               // the dimension along which the shards differ most
  std::vector<Group> groups_;  // by offset along axis_
  std::vector<Holder> holders_;
};

// One piece of one target: which entry describes it, and which box it is.
struct PieceUse {
  uint32_t part = 0;
  uint32_t target = 0;
  uint64_t entry = 0;
  uint32_t shard = 0;  // index into the wanted tensor's shards
  uint64_t piece = 0;
};

// Entries [first, first + count) of a part serve uses [first_use, end_use).
struct EntryRange {
  uint32_t part = 0;
  uint64_t first = 0, count = 0;
  size_t first_use = 0, end_use = 0;
};
// Few large ranges. REQUIRES: `uses` sorted by part, then entry.
std::vector<EntryRange> entry_ranges(std::span<const PieceUse> uses);

// What a restore needs of one tensor: of its shards only those that are read, since a rank of a
// thousand must not hold the shards of all others.
struct WantedTensor {
  TensorSpec spec;
  std::vector<ShardRecord> shards;
};

struct WantedBox {
  uint32_t tensor = 0;  // index into the restore's tensors
  BoxMemory memory;
  bool hugepages = false;  // the memory is there, in hugepages
};

struct Placement {
  uint32_t target = 0;
  uint32_t shard = 0;  // of the target's tensor
  uint64_t piece = 0;
};

struct PlannedChunk {
  Digest id;
  uint64_t offset = 0;  // in the object
  uint32_t object = 0;  // see object_of
  uint32_t stored_bytes = 0;
  uint32_t raw_bytes = 0;
  uint32_t first_placement = 0;
  uint32_t placements = 0;  // none: only a base that others are decoded with
  uint8_t codec = 0;
  uint8_t flags = 0;
  ElementFormat element;
  // The next chunk is probably its twin: both are in one read, so that this one's raw bytes are at
  // hand when that one is decoded.
  bool has_twin = false;
  // Where all of its raw bytes are wanted, packed; null where they go to several places, in part,
  // or strided.
  std::byte* in_place = nullptr;
  bool hugepages = false;  // in_place lies in them

  bool is_stored_raw() const {
    return codec == static_cast<uint8_t>(CodecId::kRaw) && (flags & format::kFlagHasBase) == 0;
  }
};

struct PlannedRead {
  uint64_t offset = 0;  // a multiple of kReadAlignment
  uint32_t bytes = 0;   // likewise, unless the object ends before
  uint32_t object = 0;
  uint32_t first_chunk = 0;
  uint32_t chunks = 0;
  // Where all of it is wanted, gapless, for the device to write there. Null: through a buffer,
  // which costs a copy in the pass that hashes, but less than pinning 4 KiB pages does.
  std::byte* in_place = nullptr;
};

inline constexpr uint32_t kReadAlignment = 4096;
inline constexpr uint32_t kReadBytesMax = 4u << 20;  // but a larger chunk is one read
// Reads into place start at multiples of this in memory. A device that asks for more gets them
// through a buffer.
inline constexpr uint32_t kInPlaceAlignment = 512;
// Smaller chunks go through a buffer, many with one read.
inline constexpr uint32_t kInPlaceBytesMin = 64u << 10;

struct RestorePlan {
  std::vector<PlannedRead> reads;  // by object and offset
  std::vector<PlannedChunk> chunks;
  std::vector<Placement> placements;
  uint32_t read_bytes_max = 0;    // of one read
  uint64_t staged_bytes = 0;      // of the reads through a buffer
  uint32_t decode_bytes_max = 0;  // of the largest chunk that is neither stored raw nor in place
  bool has_bases = false;         // some chunk is decoded with a base
  uint64_t stored_bytes = 0;      // of the chunks
  uint64_t read_bytes = 0;        // of the reads
};

// Objects are numbered: first the root's packs, then its parts (inline chunks lie in those).
// REQUIRES: `object` comes from a plan over entries that a Manifest of this root gave.
const format::SealedRef& object_of(const format::Root& root, const RootPacks& packs,
                                   uint32_t object);

class PlanBuilder {
 public:
  PlanBuilder(const format::Root& root, const RootPacks& packs) : root_(root), packs_(packs) {}
  // `entry` is what the part's table says of `use`, whose piece is one of `tensor` and wanted in
  // `target`. kCorruption when the entry does not fit the piece.
  Status add(const PieceUse& use, const WantedTensor& tensor, const WantedBox& target,
             const format::ChunkEntry& entry);

  // After the last add: which twins do not have the chunk that writers put before a twin, its base,
  // right before them here, by object and offset.
  struct LoneTwin {
    uint32_t object = 0;
    uint64_t offset = 0;
    uint32_t raw_bytes = 0;
  };
  std::vector<LoneTwin> lone_twins();
  // The base of one of them, to be read along with it.
  void add_base(uint32_t object, const format::ChunkEntry& base);

  RestorePlan finish() &&;

 private:
  struct Item {
    PlannedChunk chunk;
    Placement placement;
  };
  static bool same_chunk(const PlannedChunk& a, const PlannedChunk& b);
  void sort();

  const format::Root& root_;
  const RootPacks& packs_;
  std::vector<Item> items_;
};

}  // namespace caisson

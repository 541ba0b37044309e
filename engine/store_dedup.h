// Stage 3 of the save path for writers that own the store's index: is the chunk stored anywhere in
// the store? The index gives hints only. A hint counts when the footer of the pack that it names,
// read and checked here, lists the chunk at that place: a wrong or stale index costs space and
// never a byte. A pack that gc condemns meanwhile is found by the commit, which then refuses.
//
// Used by save_pipeline.cc for `import`; a training job dedups by position (dedup.h). Thread-safe.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "engine/dedup.h"
#include "engine/format/pack.h"
#include "io/base/sync.h"
#include "io/object_store.h"

namespace caisson {

// A pack in which the chunk may lie, and where.
struct ChunkHint {
  format::ObjectRef pack;
  uint32_t offset_units = 0;
};

class ChunkHints {
 public:
  virtual ~ChunkHints() = default;
  // Thread-compatible: StoreDedup asks under its own lock.
  virtual std::vector<ChunkHint> hints(const Digest& id, uint32_t raw_bytes) = 0;
};

class StoreDedup {
 public:
  // Footers of this many packs are kept, some 20 KiB each; then no further pack is looked into.
  static constexpr size_t kPacksMax = 4096;

  // Both outlive this.
  StoreDedup(ObjectStore& objects, ChunkHints& hints) : objects_(objects), hints_(hints) {}

  // PlacedChunk::parent_pack points into this object.
  std::optional<PlacedChunk> find(const Digest& id, uint32_t raw_bytes) CAISSON_EXCLUDES(mutex_);

 private:
  struct KnownPack {
    format::SealedRef sealed;
    std::unordered_map<uint32_t, format::ChunkEntry> by_offset;  // of those whole in the pack
  };
  // Null for a pack whose footer could not be read or is not sound.
  const KnownPack* look_into(const format::ObjectRef& pack) CAISSON_REQUIRES(mutex_);
  Result<KnownPack> read_footer(const format::ObjectRef& pack);

  ObjectStore& objects_;
  Mutex mutex_;
  ChunkHints& hints_ CAISSON_GUARDED_BY(mutex_);
  std::map<format::ObjectRef, std::unique_ptr<KnownPack>> packs_ CAISSON_GUARDED_BY(mutex_);
};

}  // namespace caisson

// Packs read as a whole: their footers (kept in a small cache) and their segments one after the
// other through a queue. Used by scrub.cc, the footers by restore_pipeline.cc. Thread-compatible.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <span>
#include <stop_token>

#include "engine/chunk_reader.h"
#include "engine/format/pack.h"
#include "engine/object_reads.h"
#include "io/base/buffer.h"

namespace caisson {

class PackFooters {
 public:
  explicit PackFooters(ObjectReads& reads) : reads_(reads) {}
  // kCorruption when the pack is missing, has another length, or its footer is not the one that
  // `pack` vouches for.
  Result<std::shared_ptr<const format::PackFooter>> get(const format::SealedRef& pack);

 private:
  struct Kept {
    format::ObjectRef pack;
    std::shared_ptr<const format::PackFooter> footer;
  };
  ObjectReads& reads_;
  std::list<Kept> kept_;  // most recently used first
};

// The chunk of a footer that starts at `offset`, or null.
const format::ChunkEntry* find_chunk(const format::PackFooter& footer, uint64_t offset);

// The one before it in the pack, or null.
const format::ChunkEntry* chunk_before(const format::PackFooter& footer, uint64_t offset);

struct PackScanOptions {
  bool decode = false;  // compare content with ids, not only stored bytes with checksums
  std::stop_token stop;
};

// What a scan tells: one call for each thing that is wrong, `id` null where no chunk is concerned.
struct PackScanEvents {
  std::function<void(const format::SealedRef& pack, uint64_t offset, const Digest* id,
                     std::string_view what)>
      damage;
  std::function<void(uint64_t bytes, uint64_t chunks)> progress;
};

// Reads every segment of `packs`, in order, several reads in flight. An error says that the scan
// could not go on; damage is an event. `root_packs` lists the packs and those of their bases.
Status scan_packs(ObjectStore& objects, MemoryBudget& budget, PackFooters& footers,
                  ObjectReads& reads, RootPacks& root_packs,
                  std::span<const format::SealedRef> packs, const PackScanOptions& options,
                  const PackScanEvents& events);

}  // namespace caisson

// A checkpoint's manifest, opened for reading: the root's head in memory; packs, directory pages
// and entry blocks fetched when asked for. Used by restore, dedup against a parent, diff, verify
// and gc. Every byte is checked against the digest or checksum that vouches for it. Thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "engine/format/directory.h"
#include "engine/format/part.h"
#include "engine/format/root.h"
#include "engine/root_packs.h"
#include "io/object_store.h"

namespace caisson {

// One rank part, sealed but not necessarily committed: what the committer checks and merges.
class PartReader {
 public:
  static Result<std::unique_ptr<PartReader>> open(ObjectStore& objects,
                                                  const format::SealedRef& part);
  virtual ~PartReader() = default;
  virtual const format::PartTrailer& trailer() const = 0;
  virtual Result<std::vector<format::SealedRef>> packs() = 0;
  // Every record, in the order of puts, with its encoded form; both live as long as the call. Stops
  // at the first Status that is not ok.
  virtual Status for_each(
      const std::function<Status(const TensorRecord&, Bytes encoded)>& visit) = 0;
};

// A root with the complete list of its packs.
struct WholeRoot {
  format::Root root;
  format::PackTables tables;
};
// All that gc needs. kCorruption when it is not what `root` vouches for.
Result<WholeRoot> read_root(ObjectStore& objects, const format::SealedRef& root);

class Manifest {
 public:
  // kCorruption when the root's head or its directory index is not what `root` vouches for.
  static Result<std::shared_ptr<Manifest>> open(ObjectStore& objects,
                                                const format::SealedRef& root);
  virtual ~Manifest() = default;

  virtual const format::Root& root() const = 0;
  virtual RootPacks& packs() = 0;
  // One page read (cached) at most.
  virtual Result<std::shared_ptr<const TensorRecord>> find(std::string_view name) = 0;
  // All records by name.
  virtual Status for_each(const std::function<Status(const TensorRecord&)>& visit) = 0;
  // Entries [first, first + count) of a part's table; reads whole 4 KiB blocks, few and large.
  virtual Result<std::vector<format::ChunkEntry>> entries(uint32_t part, uint64_t first,
                                                          uint64_t count) = 0;
  // The raw bytes of an inline entry, verified against its id. `element_bits` seeds the id.
  virtual Result<ByteVector> inline_bytes(uint32_t part, const format::ChunkEntry& entry,
                                          uint32_t element_bits) = 0;
  // Index into the root's packs, and that pack.
  // REQUIRES: entry.pack is a pack index (not inline) and was given by entries(part, ...).
  virtual uint32_t pack_index(uint32_t part, const format::ChunkEntry& entry) const = 0;
  virtual const format::SealedRef& pack_of(uint32_t part,
                                           const format::ChunkEntry& entry) const = 0;
};

}  // namespace caisson

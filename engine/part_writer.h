// Writes one rank part: streams chunk entries through 4 KiB blocks, then inline data, directory,
// pack list and trailer, into one object (docs/format.md, "Part"). The save pipeline feeds it in
// the order of the pieces; the metadata benchmark feeds it without any payload.
//
// Memory is bounded: a part whose table stays under kTableBytesHeld (some 400,000 tiles) is written
// with one exact reservation at the end; beyond that the table goes out as it grows. Inline data is
// held up to kInlineBytesHeld, small chunks beyond that belong into packs.
//
// try_reserve_inline is thread-safe; everything else is thread-compatible. The first failure
// poisons the writer.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <vector>

#include "engine/format/directory.h"
#include "engine/format/part.h"
#include "io/object_store.h"

namespace caisson {

inline constexpr uint64_t kTableBytesHeld = 16u << 20;
inline constexpr uint64_t kInlineBytesHeld = 16u << 20;
static_assert(kInlineBytesHeld <= format::kInlineSectionBytesMax);

class PartWriter {
 public:
  PartWriter(ObjectStore& objects, const format::ObjectRef& part, uint32_t rank);

  const format::ObjectRef& part() const { return trailer_.part; }
  // How many entries were added: where the next shard's entries start.
  uint64_t entries() const { return trailer_.entries; }

  // The index of a pack in this part's list, for ChunkEntry::pack. A pack that this part's own save
  // is writing is named first and vouched for later, through seal().
  Result<uint16_t> pack_index(const format::ObjectRef& pack);
  // The same for a pack that is sealed already, of an earlier checkpoint.
  Result<uint16_t> pack_index(const format::SealedRef& pack);

  // True when `bytes` of inline data fit; they must then be given to add_inline.
  bool try_reserve_inline(uint64_t bytes);
  // REQUIRES: entry.pack came from pack_index.
  Status add(const format::ChunkEntry& entry);
  // An entry whose raw bytes lie in the part: fills in place and checksum.
  Status add_inline(format::ChunkEntry entry, Bytes raw);
  // `record` with part index 0 and first_entry counted from the part's first entry.
  void add_record(const TensorRecord& record);
  // What the part newly stored in packs, for the trailer; inline data is counted by itself.
  void add_stored_bytes(uint64_t bytes) { trailer_.stored_bytes += bytes; }

  // Writes the rest and makes the part durable. `packs` are those of this save, sealed. Call once.
  Result<format::SealedRef> seal(std::span<const format::SealedRef> packs);
  const format::PartTrailer& trailer() const { return trailer_; }

 private:
  void close_block();
  Status spill();
  Status append(Bytes bytes);
  Result<ByteVector> finish_pack_list(std::span<const format::SealedRef> sealed);

  ObjectStore& objects_;
  format::PartTrailer trailer_;
  Status error_;

  std::vector<format::ChunkEntry> block_;  // of the table, not full yet
  uint64_t blocks_ = 0;
  ByteVector table_;  // finished blocks that are not written yet
  std::atomic<uint64_t> inline_reserved_ = 0;
  std::vector<ByteVector> inline_;  // in pieces of about 1 MiB, so that growing copies little
  uint64_t inline_bytes_ = 0;
  format::DirectoryEncoder directory_;
  std::vector<ByteVector> pages_;

  std::vector<format::SealedRef> packs_;  // bytes == 0: not sealed yet
  std::map<format::ObjectRef, uint16_t> pack_indices_;
  format::ObjectRef last_pack_{};  // most entries lie in the pack of the one before
  uint16_t last_pack_index_ = format::kPackInline;

  std::unique_ptr<ObjectWriter> object_;
  uint64_t written_ = 0;
  DigestStream body_;
};

}  // namespace caisson

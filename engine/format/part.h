// A rank part: dense blocks of chunk entries, inline data, a directory, the pack list and a trailer
// block. docs/format.md, "Part". Pure; I/O is part_writer.cc and manifest.cc.
#pragma once

#include <span>
#include <vector>

#include "engine/format/chunk.h"
#include "engine/format/pack.h"

namespace caisson::format {

inline constexpr size_t kEntriesPerBlock = 102;    // (4096 - 16) / 40
inline constexpr uint32_t kInlineBytesMax = 4096;  // a chunk of up to this many raw bytes
inline constexpr uint64_t kInlineSectionBytesMax = 64u << 20;
inline constexpr uint32_t kPacksMax = 65000;  // of one part

// Block `index` of the entry table, salted with the part's writer `part`; `entries` has 1 to
// kEntriesPerBlock items, all but the last block are full.
void encode_entry_block(const Uuid& part, uint64_t index, std::span<const ChunkEntry> entries,
                        MutableBytes block);
Result<std::vector<ChunkEntry>> decode_entry_block(const Uuid& part, uint64_t index, Bytes block,
                                                   std::string_view what);

// Pack list: the packs that entries refer to by index. `part` is the part's writer.
ByteVector encode_pack_list(const Uuid& part, std::span<const SealedRef> packs);
Result<std::vector<SealedRef>> decode_pack_list(const Uuid& part, Bytes bytes,
                                                std::string_view what);

// The last kBlockBytes of a part. Its digest (digest_of the block) is what the root quotes; it
// covers the whole part through body_digest.
struct PartTrailer {
  ObjectRef part;
  uint32_t rank = 0;
  uint64_t entries = 0;  // table: blocks from offset 0
  uint64_t inline_offset = 0, inline_bytes = 0;
  uint64_t directory_offset = 0, directory_index_offset = 0, directory_bytes = 0;
  uint64_t tensors = 0;
  uint64_t packs_offset = 0, packs_bytes = 0;
  uint64_t raw_bytes = 0;     // of the entries
  uint64_t stored_bytes = 0;  // newly stored by this part: payloads and inline
  Digest body_digest;         // of everything before the trailer
};
ByteVector encode_part_trailer(const PartTrailer& trailer);
Result<PartTrailer> decode_part_trailer(const ObjectRef& part, uint64_t part_bytes, Bytes block,
                                        std::string_view what);

}  // namespace caisson::format

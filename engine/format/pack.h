// A pack: header block, segments of up to about 4 MiB that start with a directory block, and a
// footer that repeats the directories. docs/format.md, "Pack". Pure; I/O is pack_writer.cc and
// chunk_reader.cc.
#pragma once

#include <span>
#include <vector>

#include "engine/format/chunk.h"

namespace caisson::format {

inline constexpr uint64_t kBlockBytes = 4096;
inline constexpr uint64_t kSegmentBytesMax = (4u << 20) + kBlockBytes;  // directory included
inline constexpr uint32_t kSegmentEntriesMax = 100;                     // (4096 - 96) / 40
inline constexpr uint64_t kPackBytesMax = 256u << 20;  // what writers aim for; readers take more
inline constexpr uint32_t kRawAlignedBytesMin = 256u << 10;  // raw payloads from here on: 4 KiB

// Salt of everything in a pack: a stale sector of another pack or another place never passes.
uint64_t pack_salt(const ObjectRef& pack, uint64_t offset);

// Block 0 of a pack: names itself, so that a file can be told without its name.
ByteVector encode_pack_header(const ObjectRef& pack);  // kBlockBytes
Status check_pack_header(const ObjectRef& pack, Bytes block);

struct Segment {
  uint64_t offset = 0;  // of its directory block in the pack
  uint64_t bytes = 0;   // directory, payloads and padding, whole blocks: the next segment or the
                        // footer follows
  std::vector<ChunkEntry> entries;  // pack == kPackSelf, offsets from the start of the pack
};
// Writes the directory block (kBlockBytes) of a segment. REQUIRES: entries fit and lie inside.
void encode_segment_directory(const ObjectRef& pack, const Segment& segment, MutableBytes block);
Result<Segment> decode_segment_directory(const ObjectRef& pack, uint64_t offset, Bytes block);

// The footer: all directory blocks again, then one trailer block. A pack's digest, as roots quote
// it, is digest_of(footer), which covers every content id and every stored checksum.
ByteVector encode_pack_footer(const ObjectRef& pack, uint64_t footer_offset,
                              std::span<const Segment> segments);
struct PackFooter {
  uint64_t footer_offset = 0;
  std::vector<Segment> segments;
  Digest digest;
};
// From the last block of a pack: where the footer starts, so that it can be read.
Result<uint64_t> footer_offset_of(const ObjectRef& pack, uint64_t pack_bytes, Bytes trailer);
// `footer` is everything from footer_offset to the end.
Result<PackFooter> decode_pack_footer(const ObjectRef& pack, uint64_t pack_bytes, Bytes footer);

}  // namespace caisson::format

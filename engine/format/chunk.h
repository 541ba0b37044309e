// The 40-byte entry that describes one stored chunk, in pack segment directories and in part
// tables, and the base reference that opens the stored form of a twin or delta. docs/format.md,
// "Chunk entry". Pure.
#pragma once

#include <cstdint>
#include <string_view>

#include "caisson/result.h"
#include "engine/format/names.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson::format {

inline constexpr size_t kEntryBytes = 40;
inline constexpr uint32_t kOffsetUnit = 64;  // payloads start at multiples of this
inline constexpr uint32_t kChunkRawBytesMax = 16u << 20;
inline constexpr uint16_t kPackInline = 0xffff;  // the bytes lie in the part's inline section
inline constexpr uint16_t kPackSelf = 0xfffe;    // in a segment directory: this pack

// Why a chunk has the codec that it has: told by show, never acted upon. A later version may know
// more of them.
enum class CodecReason : uint8_t {
  kNotTold,      // inline chunks, and what earlier writers stored
  kAsked,        // SaveOptions::codec names it
  kLook,         // a look at the bytes decided alone
  kDevicePaces,  // coded, the save is as fast as the device lets it be, or faster than raw
  kDeviceBusy,   // the device's queue is full: there is time for a smaller form
  kDeviceIdles,  // the device takes raw bytes faster than they can be coded
  kCpuSpent,     // SaveOptions::codec_cpu is used up
  kBase,         // it is nearly told by another chunk
  kNotSmaller,   // it was encoded, and did not get smaller
};
inline constexpr size_t kCodecReasons = 9;
inline constexpr uint8_t kCodecReasonMax = 15;
std::string_view to_string(CodecReason reason);

struct ChunkEntry {
  Digest id;  // content id of the raw bytes
  uint64_t stored_checksum =
      0;  // checksum64 of the stored bytes, salt_of(pack writer uuid ^ number, offset)
  uint32_t raw_bytes = 0;     // 1 .. kChunkRawBytesMax
  uint32_t stored_bytes = 0;  // 1 .. raw_bytes + 64
  uint32_t offset_units = 0;  // of kOffsetUnit bytes; for inline: bytes from the section's start
  uint16_t pack = kPackSelf;  // index into the part's pack list, or one of the constants above
  uint8_t codec = 0;          // CodecId
  uint8_t flags = 0;          // bit 0: the stored form starts with a BaseRef
  CodecReason reason = CodecReason::kNotTold;
  bool operator==(const ChunkEntry&) const = default;
  uint64_t offset_bytes() const {
    return pack == kPackInline ? offset_units : uint64_t{offset_units} * kOffsetUnit;
  }
};
inline constexpr uint8_t kFlagHasBase = 1;

void store_entry(std::byte* to, const ChunkEntry& entry);  // kEntryBytes
// kCorruption when a field is out of its range.
Result<ChunkEntry> load_entry(const std::byte* from, std::string_view what);

// Opens the stored form of a chunk with kFlagHasBase: the base's content id is the truth, its place
// a hint. 80 bytes.
struct BaseRef {
  Digest id;
  uint32_t raw_bytes = 0;
  uint32_t stored_bytes = 0;
  uint32_t offset_units = 0;
  uint8_t codec = 0;  // always one without a base of its own
  ObjectRef pack;
};
inline constexpr size_t kBaseRefBytes = 80;
void put_base_ref(ByteWriter& out, const BaseRef& base);
Result<BaseRef> decode_base_ref(Bytes stored, std::string_view what);

}  // namespace caisson::format

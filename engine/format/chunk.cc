// The chunk entry:
//
//    0 16  content id
//   16  8  stored checksum
//   24  4  raw bytes
//   28  4  stored bytes
//   32  4  offset, in units of 64 bytes (inline: in bytes)
//   36  2  pack
//   38  1  codec
//   39  1  flags in the low four bits, why this codec in the high ones
//
// The base reference:
//
//    0 16  content id of the base
//   16  4  raw bytes
//   20  4  stored bytes
//   24  4  offset, in units of 64 bytes
//   28  1  codec
//   29  3  zero
//   32 37  the base's pack
//   69 11  zero
#include "engine/format/chunk.h"

#include <algorithm>
#include <array>
#include <string>

#include "engine/format/record.h"
#include "io/base/check.h"
#include "io/base/zeros.h"

namespace caisson::format {
namespace {

constexpr uint8_t kCodecRaw = 0;
constexpr uint8_t kFlagBits = 4;
constexpr uint32_t kStoredBytesOverRaw = 64;  // what a stored form may be larger than raw
constexpr size_t kBaseReserved1 = 3;
constexpr size_t kBaseReserved2 = 11;
static_assert(sizeof(Digest) + 8 + 3 * 4 + 2 + 1 + 1 == kEntryBytes);
static_assert(sizeof(Digest) + 3 * 4 + 1 + kBaseReserved1 + kObjectRefBytes + kBaseReserved2 ==
              kBaseRefBytes);

// What is wrong with it; empty: nothing.
std::string_view fault_of(const ChunkEntry& entry) {
  if (entry.raw_bytes == 0 || entry.raw_bytes > kChunkRawBytesMax) {
    return "a chunk has 1 byte to 16 MiB";
  }
  if (entry.stored_bytes == 0 || entry.stored_bytes > entry.raw_bytes + kStoredBytesOverRaw) {
    return "a chunk's stored form has at least 1 byte and at most 64 more than the raw";
  }
  const bool has_base = (entry.flags & kFlagHasBase) != 0;
  if ((entry.flags & ~kFlagHasBase) != 0) return "unknown chunk flags";
  if (static_cast<uint8_t>(entry.reason) > kCodecReasonMax) return "no such reason for a codec";
  if (has_base && (entry.codec == kCodecRaw || entry.stored_bytes < kBaseRefBytes)) {
    return "a chunk with a base is never raw and holds a base reference";
  }
  if (entry.codec == kCodecRaw && entry.stored_bytes != entry.raw_bytes) {
    return "a chunk that is stored raw has as many stored bytes as raw ones";
  }
  if (entry.pack == kPackInline && entry.codec != kCodecRaw) return "inline chunks are stored raw";
  return {};
}

std::string_view fault_of(const BaseRef& base) {
  if (base.raw_bytes == 0 || base.raw_bytes > kChunkRawBytesMax) {
    return "a base has 1 byte to 16 MiB";
  }
  if (base.stored_bytes == 0 || base.stored_bytes > base.raw_bytes + kStoredBytesOverRaw) {
    return "a base's stored form has at least 1 byte and at most 64 more than the raw";
  }
  if (base.codec == kCodecRaw && base.stored_bytes != base.raw_bytes) {
    return "a base that is stored raw has as many stored bytes as raw ones";
  }
  if (base.pack.kind != ObjectKind::kPack) return "a base lies in a pack";
  return {};
}

}  // namespace

std::string_view to_string(CodecReason reason) {
  constexpr std::array<std::string_view, kCodecReasons> kNames = {
      "not told",     "asked for",       "look at the bytes", "device paces", "device busy",
      "device idles", "codec_cpu spent", "base beside",       "not smaller"};
  const auto code = static_cast<size_t>(reason);
  return code < kNames.size() ? kNames[code] : "a reason of a newer version";
}

void store_entry(std::byte* to, const ChunkEntry& entry) {
  CAISSON_CHECK(fault_of(entry).empty());
  std::memcpy(to, entry.id.bytes.data(), entry.id.bytes.size());
  store_le(to + 16, entry.stored_checksum);
  store_le(to + 24, entry.raw_bytes);
  store_le(to + 28, entry.stored_bytes);
  store_le(to + 32, entry.offset_units);
  store_le(to + 36, entry.pack);
  store_le(to + 38, entry.codec);
  store_le(to + 39,
           static_cast<uint8_t>(entry.flags | static_cast<uint8_t>(entry.reason) << kFlagBits));
}

Result<ChunkEntry> load_entry(const std::byte* from, std::string_view what) {
  ChunkEntry entry;
  std::memcpy(entry.id.bytes.data(), from, entry.id.bytes.size());
  entry.stored_checksum = load_le<uint64_t>(from + 16);
  entry.raw_bytes = load_le<uint32_t>(from + 24);
  entry.stored_bytes = load_le<uint32_t>(from + 28);
  entry.offset_units = load_le<uint32_t>(from + 32);
  entry.pack = load_le<uint16_t>(from + 36);
  entry.codec = load_le<uint8_t>(from + 38);
  const auto flags_and_reason = load_le<uint8_t>(from + 39);
  entry.flags = flags_and_reason & ((1u << kFlagBits) - 1);
  entry.reason = static_cast<CodecReason>(flags_and_reason >> kFlagBits);
  const std::string_view fault = fault_of(entry);
  if (fault.empty()) return entry;
  return corruption(std::string(what) + ": entry of chunk " + to_hex(entry.id) + ": " +
                    std::string(fault));
}

void put_base_ref(ByteWriter& out, const BaseRef& base) {
  CAISSON_CHECK(fault_of(base).empty());
  const size_t begin = out.size();
  out.put_bytes(base.id.bytes);
  out.put<uint32_t>(base.raw_bytes);
  out.put<uint32_t>(base.stored_bytes);
  out.put<uint32_t>(base.offset_units);
  out.put<uint8_t>(base.codec);
  out.put_zeros(kBaseReserved1);
  put_ref(out, base.pack);
  out.put_zeros(kBaseReserved2);
  CAISSON_CHECK(out.size() - begin == kBaseRefBytes);
}

Result<BaseRef> decode_base_ref(Bytes stored, std::string_view what) {
  ByteReader in(stored);
  BaseRef base;
  base.id = get_digest(in);
  base.raw_bytes = in.get<uint32_t>();
  base.stored_bytes = in.get<uint32_t>();
  base.offset_units = in.get<uint32_t>();
  base.codec = in.get<uint8_t>();
  bool zeros = is_zero(in.get_bytes(kBaseReserved1));
  base.pack = get_ref(in);
  zeros = is_zero(in.get_bytes(kBaseReserved2)) && zeros;
  std::string_view fault = fault_of(base);
  if (!zeros) fault = "reserved bytes are not zero";
  if (!in.ok()) fault = "it is cut short or names no object";
  if (fault.empty()) return base;
  return corruption(std::string(what) + ": base reference: " + std::string(fault));
}

}  // namespace caisson::format

// The segment directory block:
//
//    0  8  magic "CSN_SEGM"
//    8  8  checksum of bytes 16 to 4095, salted with pack_salt(pack, offset)
//   16 37  the pack
//   53  3  zero
//   56  8  offset of this block in the pack
//   64  8  bytes of the segment
//   72  4  entries
//   76 20  zero
//   96     entries of 40 bytes, then zeros
//
// A footer holds the same blocks, byte for byte: a checksum is salted with the place of the
// segment, not with the place of the copy.
#include "engine/format/pack.h"

#include <algorithm>
#include <string>

#include "engine/format/record.h"
#include "io/base/check.h"
#include "io/base/mutant.h"
#include "io/base/zeros.h"

namespace caisson::format {
namespace {

constexpr std::string_view kHeaderMagic = "CSN_PACK";
constexpr std::string_view kSegmentMagic = "CSN_SEGM";
constexpr std::string_view kTrailerMagic = "CSN_PEND";

constexpr size_t kChecksumAt = 8;
constexpr size_t kCheckedAt = 16;
constexpr size_t kReserved1 = 3;
constexpr size_t kReserved2 = 20;
constexpr size_t kEntriesAt = 96;
static_assert(kCheckedAt + kObjectRefBytes + kReserved1 + 8 + 8 + 4 + kReserved2 == kEntriesAt);
static_assert(kEntriesAt + kSegmentEntriesMax * kEntryBytes <= kBlockBytes);

// What is wrong with it; empty: nothing. The same for what is written and what is read.
std::string_view fault_of(const Segment& segment) {
  if (segment.offset < kBlockBytes || segment.offset % kBlockBytes != 0 ||
      segment.offset > uint64_t{UINT32_MAX} * kOffsetUnit) {
    return "a segment starts at a block after the first";
  }
  if (segment.bytes < kBlockBytes || segment.bytes % kBlockBytes != 0 ||
      segment.bytes > kSegmentBytesMax) {
    return "a segment has 1 to 1025 whole blocks";
  }
  if (segment.entries.empty() || segment.entries.size() > kSegmentEntriesMax) {
    return "a segment has 1 to 100 chunks";
  }
  uint64_t end = segment.offset + kBlockBytes;
  for (const ChunkEntry& entry : segment.entries) {
    if (entry.pack != kPackSelf) return "an entry refers to another pack";
    if (entry.offset_bytes() < end) return "chunks overlap or are out of order";
    end = entry.offset_bytes() + entry.stored_bytes;
  }
  if (end > segment.offset + segment.bytes) return "a chunk does not lie inside its segment";
  return {};
}

bool get_zeros(ByteReader& in, size_t count) { return is_zero(in.get_bytes(count)); }

struct Trailer {
  uint64_t footer_offset = 0;
  uint64_t segments = 0;
};

Result<Trailer> decode_trailer(const ObjectRef& pack, uint64_t pack_bytes, Bytes block) {
  const std::string what = pack.key();
  const uint64_t at = pack_bytes < kBlockBytes ? 0 : pack_bytes - kBlockBytes;
  if (pack_bytes < 2 * kBlockBytes || block.size() != kBlockBytes) {
    return corrupt_at(what, at, "too short for a pack");
  }
  const std::string where = what + " at offset " + std::to_string(at);
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope,
                           decode_envelope_block(kTrailerMagic, block, where));
  ByteReader in(envelope.payload);
  const ObjectRef self = get_ref(in);
  Trailer trailer;
  trailer.footer_offset = in.get<uint64_t>();
  trailer.segments = in.get<uint64_t>();
  if (!in.ok() || in.remaining() != 0) return corrupt_at(what, at, "the trailer is malformed");
  if (self != pack || envelope.salt != pack.writer) {
    return corrupt_at(what, at, "the trailer is of " + self.key());
  }
  // Written so that nothing overflows: the trailer takes one block, each segment's copy another.
  const uint64_t blocks = pack_bytes / kBlockBytes;
  if (pack_bytes % kBlockBytes != 0 || trailer.segments > blocks - 2 ||
      trailer.footer_offset != (blocks - 1 - trailer.segments) * kBlockBytes) {
    return corrupt_at(what, at, "the footer does not end where the pack does");
  }
  return trailer;
}

}  // namespace

uint64_t pack_salt(const ObjectRef& pack, uint64_t offset) {
  // The number goes into the last four bytes, so that packs of one writer differ.
  Uuid uuid = pack.writer;
  std::byte* const last = uuid.bytes.data() + uuid.bytes.size() - sizeof(uint32_t);
  store_le(last, load_le<uint32_t>(last) ^ pack.number);
  return salt_of(uuid, offset);
}

ByteVector encode_pack_header(const ObjectRef& pack) {
  CAISSON_CHECK(pack.kind == ObjectKind::kPack);
  ByteWriter out;
  put_ref(out, pack);
  return encode_envelope_block(kHeaderMagic, pack.writer, out.bytes(), kBlockBytes);
}

Status check_pack_header(const ObjectRef& pack, Bytes block) {
  const std::string what = pack.key();
  if (block.size() != kBlockBytes) return corrupt_at(what, 0, "the header is not one block");
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope,
                           decode_envelope_block(kHeaderMagic, block, what));
  ByteReader in(envelope.payload);
  const ObjectRef self = get_ref(in);
  if (!in.ok() || in.remaining() != 0) return corrupt_at(what, 0, "the header is malformed");
  if (self != pack || envelope.salt != pack.writer) {
    return corrupt_at(what, 0, "the header is of " + self.key());
  }
  return ok_status();
}

void encode_segment_directory(const ObjectRef& pack, const Segment& segment, MutableBytes block) {
  CAISSON_CHECK(pack.kind == ObjectKind::kPack && block.size() == kBlockBytes);
  CAISSON_CHECK(fault_of(segment).empty());
  ByteWriter out;
  out.put_bytes(as_bytes(kSegmentMagic));
  out.put<uint64_t>(0);  // the checksum, below
  put_ref(out, pack);
  out.put_zeros(kReserved1);
  out.put<uint64_t>(segment.offset);
  out.put<uint64_t>(segment.bytes);
  out.put<uint32_t>(static_cast<uint32_t>(segment.entries.size()));
  out.put_zeros(kReserved2);
  CAISSON_CHECK(out.size() == kEntriesAt);
  std::fill(block.begin(), block.end(), std::byte{0});
  std::copy(out.bytes().begin(), out.bytes().end(), block.begin());
  std::byte* to = block.data() + kEntriesAt;
  for (const ChunkEntry& entry : segment.entries) {
    store_entry(to, entry);
    to += kEntryBytes;
  }
  store_le(block.data() + kChecksumAt,
           checksum64(block.subspan(kCheckedAt), pack_salt(pack, segment.offset)));
}

Result<Segment> decode_segment_directory(const ObjectRef& pack, uint64_t offset, Bytes block) {
  const std::string what = pack.key();
  const auto damaged = [&](std::string_view why) { return corrupt_at(what, offset, why); };
  if (block.size() != kBlockBytes) return damaged("a segment directory is one block");
  if (as_text(block.first(kSegmentMagic.size())) != kSegmentMagic) {
    return damaged("no segment starts here");
  }
  if (load_le<uint64_t>(block.data() + kChecksumAt) !=
          checksum64(block.subspan(kCheckedAt), pack_salt(pack, offset)) &&
      !CAISSON_MUTANT(segment_checksum)) {
    return damaged("the segment directory does not have its checksum");
  }
  ByteReader in(block.subspan(kCheckedAt));
  const ObjectRef self = get_ref(in);
  bool zeros = get_zeros(in, kReserved1);
  Segment segment;
  segment.offset = in.get<uint64_t>();
  segment.bytes = in.get<uint64_t>();
  const auto count = in.get<uint32_t>();
  zeros = get_zeros(in, kReserved2) && zeros;
  if (!in.ok() || self != pack || segment.offset != offset) {
    return damaged("the segment directory is of another place or pack");
  }
  if (count > kSegmentEntriesMax) return damaged("a segment has 1 to 100 chunks");
  const size_t end = kEntriesAt + count * kEntryBytes;
  if (!zeros || !is_zero(block.subspan(end))) return damaged("reserved bytes are not zero");
  const std::string where = what + " at offset " + std::to_string(offset);
  segment.entries.reserve(count);
  for (size_t at = kEntriesAt; at < end; at += kEntryBytes) {
    CAISSON_ASSIGN_OR_RETURN(const ChunkEntry entry, load_entry(block.data() + at, where));
    segment.entries.push_back(entry);
  }
  const std::string_view fault = fault_of(segment);
  if (!fault.empty()) return damaged(fault);
  return segment;
}

ByteVector encode_pack_footer(const ObjectRef& pack, uint64_t footer_offset,
                              std::span<const Segment> segments) {
  ByteVector footer((segments.size() + 1) * kBlockBytes);
  MutableBytes rest = footer;
  uint64_t end = kBlockBytes;
  for (const Segment& segment : segments) {
    CAISSON_CHECK(segment.offset == end);
    end += segment.bytes;
    encode_segment_directory(pack, segment, rest.first(kBlockBytes));
    rest = rest.subspan(kBlockBytes);
  }
  CAISSON_CHECK(footer_offset == end);
  ByteWriter out;
  put_ref(out, pack);
  out.put<uint64_t>(footer_offset);
  out.put<uint64_t>(segments.size());
  const ByteVector trailer =
      encode_envelope_block(kTrailerMagic, pack.writer, out.bytes(), kBlockBytes);
  std::copy(trailer.begin(), trailer.end(), rest.begin());
  return footer;
}

Result<uint64_t> footer_offset_of(const ObjectRef& pack, uint64_t pack_bytes, Bytes trailer) {
  CAISSON_ASSIGN_OR_RETURN(const Trailer decoded, decode_trailer(pack, pack_bytes, trailer));
  return decoded.footer_offset;
}

Result<PackFooter> decode_pack_footer(const ObjectRef& pack, uint64_t pack_bytes, Bytes footer) {
  if (footer.size() < kBlockBytes || footer.size() > pack_bytes) {
    return corrupt_at(pack.key(), 0, "too short for a pack with its footer");
  }
  CAISSON_ASSIGN_OR_RETURN(const Trailer trailer,
                           decode_trailer(pack, pack_bytes, footer.last(kBlockBytes)));
  if (trailer.footer_offset != pack_bytes - footer.size()) {
    return corrupt_at(pack.key(), pack_bytes - kBlockBytes, "the footer starts elsewhere");
  }
  PackFooter decoded{
      .footer_offset = trailer.footer_offset, .segments = {}, .digest = digest_of(footer)};
  decoded.segments.reserve(static_cast<size_t>(trailer.segments));
  uint64_t end = kBlockBytes;
  for (size_t i = 0; i < trailer.segments; ++i) {
    CAISSON_ASSIGN_OR_RETURN(
        Segment segment,
        decode_segment_directory(pack, end, footer.subspan(i * kBlockBytes, kBlockBytes)));
    end += segment.bytes;  // at most 4 MiB each: does not overflow
    decoded.segments.push_back(std::move(segment));
  }
  if (end != trailer.footer_offset) {
    return corrupt_at(pack.key(), end, "the last segment does not end at the footer");
  }
  return decoded;
}

}  // namespace caisson::format

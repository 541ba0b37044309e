// The block of the entry table:
//
//    0  8  checksum of bytes 8 to 4095, salted with (part's writer, offset of the block in the
//    part) 8  4  magic "CSNE"
//   12  2  entries, 1 to 102
//   14  2  zero
//   16     entries of 40 bytes, then zeros
//
// The sections of a part follow each other as the trailer's fields do: table, inline data,
// directory, pack list, trailer.
#include "engine/format/part.h"

#include <algorithm>
#include <string>

#include "engine/format/record.h"
#include "io/base/check.h"
#include "io/base/mutant.h"
#include "io/base/zeros.h"

namespace caisson::format {
namespace {

constexpr std::string_view kPackListMagic = "CSN_PLST";
constexpr std::string_view kTrailerMagic = "CSN_PART";
constexpr std::string_view kBlockMagic = "CSNE";

constexpr size_t kCheckedAt = 8;
constexpr size_t kMagicAt = 8;
constexpr size_t kCountAt = 12;
constexpr size_t kReservedAt = 14;
constexpr size_t kEntriesAt = 16;
static_assert(kEntriesAt + kEntriesPerBlock * kEntryBytes == kBlockBytes);

uint64_t checksum_of_block(const Uuid& part, uint64_t index, Bytes block) {
  return checksum64(block.subspan(kCheckedAt), salt_of(part, index * kBlockBytes));
}

std::string_view fault_of_table_entry(const ChunkEntry& entry) {
  if (entry.pack == kPackInline) {
    return entry.raw_bytes > kInlineBytesMax ? "an inline chunk has at most 4096 bytes" : "";
  }
  return entry.pack >= kPacksMax ? "an entry refers to no pack" : "";
}

// Whether [offset, offset + bytes) starts at or after `from` and ends by `to`.
bool lies_within(uint64_t from, uint64_t to, uint64_t offset, uint64_t bytes) {
  return offset >= from && offset <= to && bytes <= to - offset;
}

std::string_view fault_of(const PartTrailer& trailer, uint64_t part_bytes) {
  if (part_bytes < kBlockBytes) return "too short for a part";
  const uint64_t end = part_bytes - kBlockBytes;
  if (trailer.entries > end / kEntryBytes) return "more entries than the part has room for";
  const uint64_t table_bytes =
      (trailer.entries + kEntriesPerBlock - 1) / kEntriesPerBlock * kBlockBytes;
  if (!lies_within(table_bytes, end, trailer.inline_offset, trailer.inline_bytes) ||
      trailer.inline_bytes > kInlineSectionBytesMax) {
    return "the inline data does not lie between the table and the trailer";
  }
  if (!lies_within(trailer.inline_offset + trailer.inline_bytes, end, trailer.directory_offset,
                   trailer.directory_bytes) ||
      trailer.directory_index_offset > trailer.directory_bytes) {
    return "the directory does not lie between the inline data and the trailer";
  }
  if (!lies_within(trailer.directory_offset + trailer.directory_bytes, end, trailer.packs_offset,
                   trailer.packs_bytes) ||
      trailer.packs_offset + trailer.packs_bytes != end) {
    return "the pack list does not lie between the directory and the trailer";
  }
  return {};
}

}  // namespace

void encode_entry_block(const Uuid& part, uint64_t index, std::span<const ChunkEntry> entries,
                        MutableBytes block) {
  CAISSON_CHECK(block.size() == kBlockBytes);
  CAISSON_CHECK(!entries.empty() && entries.size() <= kEntriesPerBlock);
  std::fill(block.begin(), block.end(), std::byte{0});
  std::copy(kBlockMagic.begin(), kBlockMagic.end(),
            reinterpret_cast<char*>(block.data()) + kMagicAt);
  store_le(block.data() + kCountAt, static_cast<uint16_t>(entries.size()));
  std::byte* to = block.data() + kEntriesAt;
  for (const ChunkEntry& entry : entries) {
    CAISSON_CHECK(fault_of_table_entry(entry).empty());
    store_entry(to, entry);
    to += kEntryBytes;
  }
  store_le(block.data(), checksum_of_block(part, index, block));
}

Result<std::vector<ChunkEntry>> decode_entry_block(const Uuid& part, uint64_t index, Bytes block,
                                                   std::string_view what) {
  const auto damaged = [&](std::string_view why) {
    return corrupt_at(what, index * kBlockBytes, why);
  };
  if (block.size() != kBlockBytes) return damaged("a block of the entry table is cut short");
  if (load_le<uint64_t>(block.data()) != checksum_of_block(part, index, block) &&
      !CAISSON_MUTANT(entry_block_checksum)) {
    return damaged("a block of the entry table does not have its checksum");
  }
  const auto count = load_le<uint16_t>(block.data() + kCountAt);
  if (as_text(block.subspan(kMagicAt, kBlockMagic.size())) != kBlockMagic || count == 0 ||
      count > kEntriesPerBlock) {
    return damaged("not a block of an entry table");
  }
  const Bytes rest = block.subspan(kEntriesAt + count * kEntryBytes);
  if (load_le<uint16_t>(block.data() + kReservedAt) != 0 || !is_zero(rest)) {
    return damaged("reserved bytes are not zero");
  }
  const std::string where = std::string(what) + " at offset " + std::to_string(index * kBlockBytes);
  std::vector<ChunkEntry> entries;
  entries.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    CAISSON_ASSIGN_OR_RETURN(const ChunkEntry entry,
                             load_entry(block.data() + kEntriesAt + i * kEntryBytes, where));
    const std::string_view fault = fault_of_table_entry(entry);
    if (!fault.empty()) return damaged(fault);
    entries.push_back(entry);
  }
  return entries;
}

ByteVector encode_pack_list(const Uuid& part, std::span<const SealedRef> packs) {
  CAISSON_CHECK(packs.size() <= kPacksMax);
  ByteWriter out;
  out.put<uint32_t>(static_cast<uint32_t>(packs.size()));
  for (const SealedRef& pack : packs) {
    CAISSON_CHECK(pack.object.kind == ObjectKind::kPack);
    put_sealed(out, pack);
  }
  return encode_envelope(kPackListMagic, part, out.bytes());
}

Result<std::vector<SealedRef>> decode_pack_list(const Uuid& part, Bytes bytes,
                                                std::string_view what) {
  const std::string where = std::string(what) + ": pack list";
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope, decode_envelope(kPackListMagic, bytes, where));
  if (envelope.salt != part) return corrupt_at(where, 0, "it is of another part");
  ByteReader in(envelope.payload);
  const auto count = in.get<uint32_t>();
  if (!in.ok() || count > kPacksMax || in.remaining() != count * kSealedRefBytes) {
    return corrupt_at(where, kEnvelopeBytes, "does not have as many packs as it says");
  }
  std::vector<SealedRef> packs;
  packs.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    packs.push_back(get_sealed(in));
    if (!in.ok() || packs.back().object.kind != ObjectKind::kPack) {
      return corrupt_at(where, kEnvelopeBytes + 4 + i * kSealedRefBytes, "not a pack");
    }
  }
  return packs;
}

ByteVector encode_part_trailer(const PartTrailer& trailer) {
  CAISSON_CHECK(trailer.part.kind == ObjectKind::kPart);
  const uint64_t part_bytes = trailer.packs_offset + trailer.packs_bytes + kBlockBytes;
  CAISSON_CHECK(fault_of(trailer, part_bytes).empty());
  ByteWriter out;
  put_ref(out, trailer.part);
  out.put<uint32_t>(trailer.rank);
  for (const uint64_t field :
       {trailer.entries, trailer.inline_offset, trailer.inline_bytes, trailer.directory_offset,
        trailer.directory_index_offset, trailer.directory_bytes, trailer.tensors,
        trailer.packs_offset, trailer.packs_bytes, trailer.raw_bytes, trailer.stored_bytes}) {
    out.put<uint64_t>(field);
  }
  out.put_bytes(trailer.body_digest.bytes);
  return encode_envelope_block(kTrailerMagic, trailer.part.writer, out.bytes(), kBlockBytes);
}

Result<PartTrailer> decode_part_trailer(const ObjectRef& part, uint64_t part_bytes, Bytes block,
                                        std::string_view what) {
  const uint64_t at = part_bytes < kBlockBytes ? 0 : part_bytes - kBlockBytes;
  if (block.size() != kBlockBytes) return corrupt_at(what, at, "the trailer is not one block");
  const std::string where = std::string(what) + " at offset " + std::to_string(at);
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope,
                           decode_envelope_block(kTrailerMagic, block, where));
  ByteReader in(envelope.payload);
  PartTrailer trailer;
  trailer.part = get_ref(in);
  trailer.rank = in.get<uint32_t>();
  for (uint64_t* const field :
       {&trailer.entries, &trailer.inline_offset, &trailer.inline_bytes, &trailer.directory_offset,
        &trailer.directory_index_offset, &trailer.directory_bytes, &trailer.tensors,
        &trailer.packs_offset, &trailer.packs_bytes, &trailer.raw_bytes, &trailer.stored_bytes}) {
    *field = in.get<uint64_t>();
  }
  trailer.body_digest = get_digest(in);
  if (!in.ok() || in.remaining() != 0) return corrupt_at(what, at, "the trailer is malformed");
  if (trailer.part != part || envelope.salt != part.writer) {
    return corrupt_at(what, at, "the trailer is of " + trailer.part.key());
  }
  const std::string_view fault = fault_of(trailer, part_bytes);
  if (!fault.empty()) return corrupt_at(what, at, fault);
  return trailer;
}

}  // namespace caisson::format

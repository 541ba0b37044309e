#include "engine/chunk_reader.h"

#include <algorithm>
#include <array>
#include <string>

#include "io/base/mutant.h"

namespace caisson {

namespace {
constexpr std::array<uint32_t, 7> kElementWidths = {8, 16, 32, 64, 128, 4, 6};
}  // namespace

Status verify_content(const Digest& raw, const Digest& id, uint32_t element_bits) {
  const Digest found = content_id(raw, element_bits);
  if (found == id || CAISSON_MUTANT(content_id)) return ok_status();
  return corruption("its content has id " + to_hex(found));
}

Status verify_any_width(const Digest& raw, const Digest& id, uint32_t& bits_hint) {
  const Status first = verify_content(raw, id, bits_hint);
  if (first.ok()) return first;
  for (const uint32_t bits : kElementWidths) {
    if (bits == bits_hint || !verify_content(raw, id, bits).ok()) continue;
    bits_hint = bits;
    return ok_status();
  }
  return first;
}

Result<Bytes> ChunkReader::decode(const StoredChunk& chunk, Bytes stored, MutableBytes scratch,
                                  const KnownChunk& known) {
  const bool has_base = (chunk.flags & format::kFlagHasBase) != 0;
  if (chunk.codec == static_cast<uint8_t>(CodecId::kRaw) && !has_base) {
    if (stored.size() == chunk.raw_bytes) return stored;
    return corruption("stored raw in " + std::to_string(stored.size()) + " bytes, but it has " +
                      std::to_string(chunk.raw_bytes));
  }
  CAISSON_ASSIGN_OR_RETURN(const Codec* const codec, find_codec(chunk.codec));
  if (codec->needs_base() != has_base) {
    return corruption("codec " + std::string(codec->name()) +
                      (has_base ? " takes no base, but one is given" : " needs a base"));
  }
  Bytes base;
  if (has_base) {
    CAISSON_ASSIGN_OR_RETURN(base, find_base(stored, known));
    stored = stored.subspan(format::kBaseRefBytes);
  }
  const MutableBytes raw = scratch.first(chunk.raw_bytes);
  CAISSON_RETURN_IF_ERROR(codec->decode(context_, chunk.element, stored, base, raw));
  return Bytes(raw);
}

Result<Bytes> ChunkReader::find_base(Bytes stored, const KnownChunk& known) {
  if (stored.size() < format::kBaseRefBytes) return corruption("too short to refer to a base");
  CAISSON_ASSIGN_OR_RETURN(const format::BaseRef base, format::decode_base_ref(stored, "chunk"));
  if (!known.raw.empty() && base.id == known.id && base.raw_bytes == known.raw.size()) {
    return known.raw;
  }
  return read_base(base);
}

Result<Bytes> ChunkReader::read_base(const format::BaseRef& base) {
  CAISSON_ASSIGN_OR_RETURN(const format::SealedRef* const pack, packs_.find(base.pack));
  if (pack == nullptr) {
    return corruption("its base lies in " + base.pack.key() + ", which the root does not list");
  }
  if (base.raw_bytes > format::kChunkRawBytesMax || base.stored_bytes > pack->bytes) {
    return corruption("its base is larger than a chunk can be");
  }
  CAISSON_ASSIGN_OR_RETURN(const Codec* const codec, find_codec(base.codec));
  if (codec->needs_base()) return corruption("its base has a base of its own");
  const uint64_t offset = uint64_t{base.offset_units} * format::kOffsetUnit;
  base_stored_.resize(base.stored_bytes);
  CAISSON_RETURN_IF_ERROR(reads_.read(*pack, offset, base_stored_));
  base_raw_.resize(base.raw_bytes);
  CAISSON_RETURN_IF_ERROR(codec->decode(context_, {}, base_stored_, {}, base_raw_));
  const Status same = verify_any_width(digest_of(base_raw_), base.id, base_bits_);
  if (!same.ok()) {
    return same.with_context("base " + to_hex(base.id) + " in " + base.pack.key() + " at offset " +
                             std::to_string(offset));
  }
  return Bytes(base_raw_);
}

}  // namespace caisson

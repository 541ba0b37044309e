#include "engine/chunk_reader.h"

#include <algorithm>
#include <string>

#include "io/base/mutant.h"

namespace caisson {

Status verify_content(const Digest& raw, const Digest& id, uint32_t element_bits) {
  const Digest found = content_id(raw, element_bits);
  if (found == id || CAISSON_MUTANT(content_id)) return ok_status();
  return corruption("its content has id " + to_hex(found));
}

Result<Bytes> ChunkReader::decode(const StoredChunk& chunk, Bytes stored, MutableBytes scratch) {
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
    CAISSON_ASSIGN_OR_RETURN(base, read_base(chunk, stored));
    stored = stored.subspan(format::kBaseRefBytes);
  }
  const MutableBytes raw = scratch.first(chunk.raw_bytes);
  CAISSON_RETURN_IF_ERROR(codec->decode(context_, chunk.element, stored, base, raw));
  return Bytes(raw);
}

Result<Bytes> ChunkReader::read_base(const StoredChunk& chunk, Bytes stored) {
  if (stored.size() < format::kBaseRefBytes) return corruption("too short to refer to a base");
  CAISSON_ASSIGN_OR_RETURN(const format::BaseRef base, format::decode_base_ref(stored, "chunk"));
  CAISSON_ASSIGN_OR_RETURN(const format::SealedRef* const pack, packs_.find(base.pack));
  if (pack == nullptr) {
    return corruption("its base lies in " + base.pack.key() + ", which the root does not list");
  }
  if (base.raw_bytes > format::kChunkRawBytesMax || base.stored_bytes > pack->bytes) {
    return corruption("its base is larger than a chunk can be");
  }
  CAISSON_ASSIGN_OR_RETURN(const Codec* const codec, find_codec(base.codec));
  if (codec->needs_base()) return corruption("its base has a base of its own");
  // A base has as many elements as the chunk, so its element width follows from its size.
  const uint64_t base_bits = uint64_t{chunk.element.bits} * base.raw_bytes / chunk.raw_bytes;
  const ElementFormat element{.code = chunk.element.code, .bits = static_cast<uint8_t>(base_bits)};
  const uint64_t offset = uint64_t{base.offset_units} * format::kOffsetUnit;
  base_stored_.resize(base.stored_bytes);
  CAISSON_RETURN_IF_ERROR(reads_.read(*pack, offset, base_stored_));
  base_raw_.resize(base.raw_bytes);
  CAISSON_RETURN_IF_ERROR(codec->decode(context_, element, base_stored_, {}, base_raw_));
  const Status same = verify_content(base_raw_, base.id, static_cast<uint32_t>(base_bits));
  if (!same.ok()) {
    return same.with_context("base " + to_hex(base.id) + " in " + base.pack.key() + " at offset " +
                             std::to_string(offset));
  }
  return Bytes(base_raw_);
}

}  // namespace caisson

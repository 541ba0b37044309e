// Stages 4 and 5 of restore for one chunk: stored bytes to raw bytes, and the proof that those have
// the content of their id. Used by restore_pipeline.cc and scrub.cc. Thread-compatible: one
// ChunkReader a thread.
#pragma once

#include "compression/codec.h"
#include "engine/object_reads.h"
#include "engine/root_packs.h"

namespace caisson {

// What a stored chunk says of itself.
struct StoredChunk {
  Digest id;
  uint32_t raw_bytes = 0;
  uint8_t codec = 0;
  uint8_t flags = 0;
  ElementFormat element;
};

// ok when `raw` has the content of `id`; kCorruption says what it has instead.
Status verify_content(const Digest& raw, const Digest& id, uint32_t element_bits);
inline Status verify_content(Bytes raw, const Digest& id, uint32_t element_bits) {
  return verify_content(digest_of(raw), id, element_bits);
}

// ok when `raw` has the content of `id` for one of the element widths that there are: neither a
// pack nor a base reference says which. `bits_hint` is tried first and becomes the one that fitted.
Status verify_any_width(const Digest& raw, const Digest& id, uint32_t& bits_hint);

// A chunk's raw bytes that somebody has decoded and verified.
struct KnownChunk {
  Digest id{};
  Bytes raw{};  // empty: none
};

class ChunkReader {
 public:
  // `reads` and `packs` (which hold the bases of twins and deltas) outlive the reader.
  ChunkReader(ObjectReads& reads, RootPacks& packs) : reads_(reads), packs_(packs) {}

  // The raw bytes: `stored` itself where it is raw, else decoded to the front of `scratch`, which
  // then must hold chunk.raw_bytes. Not verified: the caller calls verify_content. A base is read
  // unless it is `known`, whose bytes do not overlap with `scratch`.
  Result<Bytes> decode(const StoredChunk& chunk, Bytes stored, MutableBytes scratch,
                       const KnownChunk& known = {});

  // A base, read, decoded and verified. Stays until the next call here.
  Result<Bytes> read_base(const format::BaseRef& base);

 private:
  // The raw bytes of the chunk that `stored` begins by referring to.
  Result<Bytes> find_base(Bytes stored, const KnownChunk& known);

  ObjectReads& reads_;
  RootPacks& packs_;
  CodecContext context_;
  // Outside the memory budget: at most two chunks, and only where a chunk has a base.
  ByteVector base_stored_, base_raw_;
  uint32_t base_bits_ = 16;  // the element width that fitted last
};

}  // namespace caisson

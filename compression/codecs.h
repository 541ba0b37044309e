// The codecs of this build, for the registry alone. Each is stateless and lives as long as the
// program. Thread-safe.
#pragma once

#include <optional>
#include <vector>

#include "compression/codec.h"
#include "compression/plane_section.h"

namespace caisson {

const Codec& raw_codec();
const Codec& zstd_codec();
const Codec& bit_planes_codec();
const Codec& entropy_planes_codec();
const Codec& twin_codec();
const Codec& delta_codec();
const Codec& sparse_codec();

// libzstd told to find no matches: Huffman codes of bytes in an ordinary zstd frame. Gives the size
// of the frame, 0 when it would not be smaller than `to`.
Result<size_t> entropy_encode(CodecContext& context, Bytes symbols, MutableBytes to);
// Exactly one frame of symbols.size() bytes, else kCorruption.
Status entropy_decode(CodecContext& context, Bytes frame, MutableBytes symbols);

// What a look at a chunk found out, kept for its encoding: a plan for other bytes would only be a
// worse one. `plan` is empty where planes do not pay.
struct LookedAt {
  const std::byte* raw = nullptr;
  size_t bytes = 0;
  ElementFormat format;
  std::optional<PlanePlan> plan;
};
// The plan of the chunk, from the latest look if that was at it.
const std::optional<PlanePlan>& plan_of(CodecContext& context, ElementFormat format, Bytes raw);
void forget_look(CodecContext& context);
// About what planes make of a chunk; raw.size() where they do not pay.
uint64_t planes_bytes(ElementFormat format, Bytes raw);

// What a CodecContext holds. zstd_codec.cc knows the pointers' types; another codec with scratch
// adds its own member.
struct CodecContext::State {
  State() = default;
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  void* zstd_encoder = nullptr;
  void* entropy_encoder = nullptr;
  void* zstd_decoder = nullptr;
  std::unique_ptr<PlaneScratch> planes;
  LookedAt looked_at;
  std::vector<std::byte> delta;  // the planes of a section
  std::vector<std::byte> kept;   // the blocks of a sparse chunk
};

}  // namespace caisson

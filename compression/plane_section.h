// The stored form that the float codecs share: sections of up to 64 Ki elements, each a header,
// then the tops, the lows, and the symbols as the codec stores them. SPEC.md, "Sections", is the
// format. Encoding plans once a chunk from a sample; every section checks what the sample promised.
// Thread-compatible: the scratch belongs to one thread's context.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "caisson/status.h"
#include "compression/cascade.h"
#include "compression/codec.h"
#include "compression/float_layout.h"
#include "compression/plane_kernels.h"
#include "io/base/bytes.h"

namespace caisson {

inline constexpr size_t kSectionElements = 64 * 1024;
inline constexpr size_t kSectionHeaderBytes = 64;
// Sections start at multiples of this in the stored form, so that streaming stores could be used.
inline constexpr size_t kSectionAlignment = 64;

// How a section's symbols are stored. Written in its header; never renumber.
enum class SymbolCoder : uint8_t {
  kCascade = 0,  // bit planes (cascade.h)
  kEntropy = 1,  // a zstd frame of literals without matches
};

struct PlaneScratch {
  alignas(64) std::array<uint8_t, kSectionElements + kSlack> symbols;
  // Escapes of even and odd levels.
  alignas(64) std::array<std::array<uint8_t, kSectionElements + kSlack>, 2> escapes;
};

// What a look at a chunk says of it.
struct PlanePlan {
  FloatLayout layout = FloatLayout::kBf16;
  Cascade cascade;
  uint8_t varying = 0xff;  // bits of top that change
  double bits_an_element = 0;
  double entropy_bits_a_symbol = 0;  // what no code of single symbols goes below
};
PlanePlan plan_planes(FloatLayout layout, Bytes raw);

// Encodes a chunk as sections and gives the stored bytes, 0 when they do not fit. The coder is
// kCascade for codec 2 and kEntropy for codec 3.
Result<size_t> encode_sections(CodecContext& context, SymbolCoder coder, const PlanePlan& plan,
                               Bytes raw, MutableBytes stored);
Status decode_sections(CodecContext& context, SymbolCoder coder, Bytes stored, MutableBytes raw);

}  // namespace caisson

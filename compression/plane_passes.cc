// What a table of plane kernels does with whole elements, as passes over blocks of them that stay
// in the first-level cache: for tables and layouts that do not do it in registers, and for tails.
#include <algorithm>
#include <array>

#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

constexpr size_t kBlock = 4096;
static_assert(kBlock % kGroup == 0);

constexpr uint8_t kAllBits = 0xff;

}  // namespace

size_t encode_in_passes(const PlaneKernels& kernels, const Coding& coding, const std::byte* raw,
                        size_t n, ElementAreas to, uint8_t* escapes, TopBits* seen) {
  std::array<uint8_t, kBlock + kSlack> symbols;
  std::array<uint8_t, kBlock> tops;
  const bool whole = coding.varying == kAllBits;
  size_t escaped = 0;
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t count = std::min(kBlock, n - i);
    const ElementAreas at = to.behind(coding, i);
    uint8_t* const top = whole ? reinterpret_cast<uint8_t*>(at.top) : tops.data();
    kernels.split(coding.layout, raw + i * element_bytes(coding.layout), count, symbols.data(), top,
                  at.low, seen);
    if (!whole) kernels.pack_bits(coding.varying, top, count, at.top);
    if (coding.level.bits == 0) {
      std::copy_n(reinterpret_cast<const std::byte*>(symbols.data()), count, at.symbols);
    } else {
      escaped +=
          kernels.encode_level(coding.level, symbols.data(), count, at.symbols, escapes + escaped);
    }
  }
  return escaped;
}

size_t decode_in_passes(const PlaneKernels& kernels, const Coding& coding, ConstElementAreas from,
                        size_t n, const uint8_t* escapes, size_t escape_count, std::byte* raw) {
  std::array<uint8_t, kBlock + kSlack> decoded;
  std::array<uint8_t, kBlock + kSlack> tops;
  size_t used = 0;
  for (size_t i = 0; i < n; i += kBlock) {
    const size_t count = std::min(kBlock, n - i);
    const ConstElementAreas at = from.behind(coding, i);
    const auto* symbols = reinterpret_cast<const uint8_t*>(at.symbols);
    if (coding.level.bits != 0) {
      const size_t left = escape_count - used;
      const size_t taken = kernels.decode_level(coding.level, at.symbols, count, escapes + used,
                                                left, decoded.data());
      used += taken;
      if (taken > left) return used;
      symbols = decoded.data();
    }
    const auto* top = reinterpret_cast<const uint8_t*>(at.top);
    if (coding.varying != kAllBits) {
      kernels.unpack_bits(coding.varying, coding.constant, at.top, count, tops.data());
      top = tops.data();
    }
    kernels.join(coding.layout, symbols, top, at.low, count,
                 raw + i * element_bytes(coding.layout));
  }
  return used;
}

}  // namespace caisson

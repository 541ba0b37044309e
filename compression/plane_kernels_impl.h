// One group or one run of elements in plain C++. The scalar table is made of these, and the others
// use them for layouts and tails that they have no loop of their own for.
// Internal linkage on purpose: each source is compiled for its own instruction set, and a shared
// inline function would be linked once, for whichever set came first.
#pragma once

#include <algorithm>
#include <array>
#include <bit>

#include "compression/plane_kernels.h"
#include "io/base/bytes.h"

namespace caisson {
namespace {  // NOLINT(google-build-namespaces): see above

// Where the parts of an element lie: the symbol from bit kSymbolBit on; what is above it (the sign,
// of fp64 also three bits of the exponent) and the mantissa bits from kLowBits on in `top`, the
// latter lowest; the kLowBits under them in `low`.
template <typename T, unsigned kSymbolBit, unsigned kSymbolBits, unsigned kLowBits>
struct Parts {
  using Element = T;
  static constexpr unsigned kBits = sizeof(T) * 8;
  static constexpr unsigned kMantissaTop = kSymbolBit - kLowBits;       // mantissa bits in top
  static constexpr unsigned kAbove = kBits - kSymbolBit - kSymbolBits;  // sign and above
  static constexpr T kSymbolMask = static_cast<T>((T{1} << kSymbolBits) - 1);
  static constexpr T kMantissaMask = static_cast<T>((T{1} << kMantissaTop) - 1);
  static_assert(kMantissaTop + kAbove <= 8 && kSymbolBits <= 8 && kLowBits % 8 == 0);

  static uint8_t symbol(T x) { return static_cast<uint8_t>((x >> kSymbolBit) & kSymbolMask); }
  static uint8_t top(T x) {
    return static_cast<uint8_t>(((x >> kLowBits) & kMantissaMask) |
                                ((x >> (kSymbolBit + kSymbolBits)) << kMantissaTop));
  }
  static T element(uint8_t symbol, uint8_t top) {
    return static_cast<T>((static_cast<T>(symbol & kSymbolMask) << kSymbolBit) |
                          (static_cast<T>(top & kMantissaMask) << kLowBits) |
                          (static_cast<T>(top >> kMantissaTop) << (kSymbolBit + kSymbolBits)));
  }
  static constexpr size_t kLowBytes = kLowBits / 8;
};
using Bf16Parts = Parts<uint16_t, 7, 8, 0>;
using Fp32Parts = Parts<uint32_t, 23, 8, 16>;
using Fp16Parts = Parts<uint16_t, 10, 5, 8>;
using Fp64Parts = Parts<uint64_t, 52, 8, 48>;
using E4M3Parts = Parts<uint8_t, 3, 4, 0>;
using E5M2Parts = Parts<uint8_t, 2, 5, 0>;

template <typename P>
void split_as(const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top, std::byte* low,
              TopBits* seen) {
  uint8_t any = seen->any;
  uint8_t all = seen->all;
  for (size_t i = 0; i < n; ++i) {
    const auto x = load_le<typename P::Element>(raw + i * sizeof(typename P::Element));
    symbols[i] = P::symbol(x);
    top[i] = P::top(x);
    any |= top[i];
    all &= top[i];
    for (size_t b = 0; b < P::kLowBytes; ++b) {
      low[i * P::kLowBytes + b] = static_cast<std::byte>(x >> (8 * b));
    }
  }
  *seen = {any, all};
}

template <typename P>
void join_as(const uint8_t* symbols, const uint8_t* top, const std::byte* low, size_t n,
             std::byte* raw) {
  using Element = typename P::Element;
  for (size_t i = 0; i < n; ++i) {
    Element x = P::element(symbols[i], top[i]);
    for (size_t b = 0; b < P::kLowBytes; ++b) {
      x = static_cast<Element>(x | (static_cast<Element>(low[i * P::kLowBytes + b]) << (8 * b)));
    }
    store_le(raw + i * sizeof(Element), x);
  }
}

void split_elements(FloatLayout layout, const std::byte* raw, size_t n, uint8_t* symbols,
                    uint8_t* top, std::byte* low, TopBits* seen) {
  switch (layout) {
    case FloatLayout::kBf16:
      return split_as<Bf16Parts>(raw, n, symbols, top, low, seen);
    case FloatLayout::kFp32:
      return split_as<Fp32Parts>(raw, n, symbols, top, low, seen);
    case FloatLayout::kFp16:
      return split_as<Fp16Parts>(raw, n, symbols, top, low, seen);
    case FloatLayout::kFp64:
      return split_as<Fp64Parts>(raw, n, symbols, top, low, seen);
    case FloatLayout::kE4M3:
      return split_as<E4M3Parts>(raw, n, symbols, top, low, seen);
    case FloatLayout::kE5M2:
      return split_as<E5M2Parts>(raw, n, symbols, top, low, seen);
  }
}

void join_elements(FloatLayout layout, const uint8_t* symbols, const uint8_t* top,
                   const std::byte* low, size_t n, std::byte* raw) {
  switch (layout) {
    case FloatLayout::kBf16:
      return join_as<Bf16Parts>(symbols, top, low, n, raw);
    case FloatLayout::kFp32:
      return join_as<Fp32Parts>(symbols, top, low, n, raw);
    case FloatLayout::kFp16:
      return join_as<Fp16Parts>(symbols, top, low, n, raw);
    case FloatLayout::kFp64:
      return join_as<Fp64Parts>(symbols, top, low, n, raw);
    case FloatLayout::kE4M3:
      return join_as<E4M3Parts>(symbols, top, low, n, raw);
    case FloatLayout::kE5M2:
      return join_as<E5M2Parts>(symbols, top, low, n, raw);
  }
}

// Encodes up to 64 symbols; gives the number of escapes.
[[maybe_unused]] size_t encode_group(Level level, unsigned width, const uint8_t* symbols,
                                     size_t count, std::byte* planes, uint8_t* escapes) {
  std::array<uint64_t, kLevelBitsMax> words{};
  size_t escaped = 0;
  for (size_t i = 0; i < count; ++i) {
    const unsigned from_low = static_cast<uint8_t>(symbols[i] - level.low);
    const bool inside = from_low < width;
    const unsigned code = inside ? from_low : width;
    for (unsigned j = 0; j < level.bits; ++j) words[j] |= uint64_t{(code >> j) & 1} << i;
    if (inside) continue;
    escapes[escaped++] =
        static_cast<uint8_t>(symbols[i] >= level.low ? symbols[i] - width : symbols[i]);
  }
  for (unsigned j = 0; j < level.bits; ++j) store_le(planes + j * sizeof(uint64_t), words[j]);
  return escaped;
}

// Decodes up to 64 symbols from the escapes behind `used`; gives the new `used`.
[[maybe_unused]] size_t decode_group(Level level, unsigned width, const std::byte* planes,
                                     size_t count, const uint8_t* escapes, size_t used,
                                     size_t escape_count, uint8_t* symbols) {
  std::array<uint64_t, kLevelBitsMax> words{};
  uint64_t escaped = ~uint64_t{0} >> (kGroup - count);
  for (unsigned j = 0; j < level.bits; ++j) {
    words[j] = load_le<uint64_t>(planes + j * sizeof(uint64_t));
    escaped &= words[j];
  }
  if (used + static_cast<size_t>(std::popcount(escaped)) > escape_count) return escape_count + 1;
  for (size_t i = 0; i < count; ++i) {
    unsigned code = 0;
    for (unsigned j = 0; j < level.bits; ++j) {
      code |= static_cast<unsigned>((words[j] >> i) & 1) << j;
    }
    if (code < width) {
      symbols[i] = static_cast<uint8_t>(level.low + code);
    } else {
      const uint8_t escape = escapes[used++];
      symbols[i] = static_cast<uint8_t>(escape >= level.low ? escape + width : escape);
    }
  }
  return used;
}

[[maybe_unused]] std::byte* pack_group(uint8_t mask, const uint8_t* top, size_t count,
                                       std::byte* planes) {
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int bit = std::countr_zero(rest);
    uint64_t word = 0;
    for (size_t i = 0; i < count; ++i) word |= uint64_t{(top[i] >> bit) & 1u} << i;
    store_le(planes, word);
    planes += sizeof word;
  }
  return planes;
}

[[maybe_unused]] const std::byte* unpack_group(uint8_t mask, uint8_t constant,
                                               const std::byte* planes, size_t count,
                                               uint8_t* top) {
  std::fill_n(top, count, static_cast<uint8_t>(constant & ~mask));
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int bit = std::countr_zero(rest);
    const auto word = load_le<uint64_t>(planes);
    for (size_t i = 0; i < count; ++i) {
      top[i] = static_cast<uint8_t>(top[i] | (((word >> i) & 1) << bit));
    }
    planes += sizeof word;
  }
  return planes;
}

}  // namespace
}  // namespace caisson

// How the bits of a float element divide, for the codecs that code exponents apart from the rest:
//
//   symbol  8 bits or fewer: the exponent (of fp64 its low 8 bits), the part that compresses
//   top     8 bits or fewer: the sign and the highest mantissa bits; often a bit never changes
//   low     whole bytes: the rest of the mantissa, which is noise
//
// SPEC.md, "Float layouts", has the table. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "compression/codec.h"

namespace caisson {

// Stored in every section; never renumber.
enum class FloatLayout : uint8_t {
  kBf16 = 1,
  kFp32 = 2,
  kFp16 = 3,
  kFp64 = 4,
  kE4M3 = 5,
  kE5M2 = 6,
};

// The layout of an element kind; nothing for kinds whose bits do not divide so.
std::optional<FloatLayout> float_layout_of(ElementFormat format);
// Of a stored number.
std::optional<FloatLayout> float_layout_of(uint8_t stored);

constexpr size_t element_bytes(FloatLayout layout) {
  switch (layout) {
    case FloatLayout::kBf16:
    case FloatLayout::kFp16:
      return 2;
    case FloatLayout::kFp32:
      return 4;
    case FloatLayout::kFp64:
      return 8;
    case FloatLayout::kE4M3:
    case FloatLayout::kE5M2:
      return 1;
  }
  return 1;
}

// Bytes of an element that go to `low`.
constexpr size_t low_bytes(FloatLayout layout) {
  switch (layout) {
    case FloatLayout::kFp16:
      return 1;
    case FloatLayout::kFp32:
      return 2;
    case FloatLayout::kFp64:
      return 6;
    case FloatLayout::kBf16:
    case FloatLayout::kE4M3:
    case FloatLayout::kE5M2:
      return 0;
  }
  return 0;
}

}  // namespace caisson

#include "compression/float_layout.h"

namespace caisson {
namespace {

// DLPack type codes (engine/include/caisson/tensor.h), which this layer does not see.
constexpr uint8_t kCodeFloat = 2;
constexpr uint8_t kCodeBfloat = 4;
constexpr uint8_t kCodeComplex = 5;
constexpr uint8_t kCodeE4M3First = 8;  // e4m3, e4m3b11fnuz, e4m3fn, e4m3fnuz
constexpr uint8_t kCodeE4M3Last = 11;
constexpr uint8_t kCodeE5M2 = 12;
constexpr uint8_t kCodeE5M2Fnuz = 13;

}  // namespace

std::optional<FloatLayout> float_layout_of(ElementFormat format) {
  const uint8_t code = format.code;
  if (code == kCodeBfloat && format.bits == 16) return FloatLayout::kBf16;
  if (code == kCodeFloat && format.bits == 16) return FloatLayout::kFp16;
  if (code == kCodeFloat && format.bits == 32) return FloatLayout::kFp32;
  if (code == kCodeFloat && format.bits == 64) return FloatLayout::kFp64;
  // A complex number is two floats of half the width, one behind the other.
  if (code == kCodeComplex && format.bits == 64) return FloatLayout::kFp32;
  if (code == kCodeComplex && format.bits == 128) return FloatLayout::kFp64;
  if (format.bits != 8) return std::nullopt;
  if (code >= kCodeE4M3First && code <= kCodeE4M3Last) return FloatLayout::kE4M3;
  if (code == kCodeE5M2 || code == kCodeE5M2Fnuz) return FloatLayout::kE5M2;
  return std::nullopt;
}

std::optional<FloatLayout> float_layout_of(uint8_t stored) {
  const auto layout = static_cast<FloatLayout>(stored);
  if (layout < FloatLayout::kBf16 || layout > FloatLayout::kE5M2) return std::nullopt;
  return layout;
}

}  // namespace caisson

#include "compression/delta_kernels.h"

#include "io/base/bytes.h"

namespace caisson {
namespace {

template <typename T>
constexpr unsigned kSignBit = sizeof(T) * 8 - 1;

// All ones for a number whose sign bit is set, else zero.
template <typename T>
T sign_of(T x) {
  return static_cast<T>(T{0} - static_cast<T>(x >> kSignBit<T>));
}

template <typename T, NumberOrder kOrder>
T ordered(T x) {
  if constexpr (kOrder == NumberOrder::kInteger) return x;
  const T sign = static_cast<T>(T{1} << kSignBit<T>);
  return static_cast<T>(x ^ (sign_of(x) | sign));
}

template <typename T, NumberOrder kOrder>
T from_ordered(T x) {
  if constexpr (kOrder == NumberOrder::kInteger) return x;
  const T sign = static_cast<T>(T{1} << kSignBit<T>);
  return static_cast<T>(x ^ (static_cast<T>(~sign_of(x)) | sign));
}

template <typename T, NumberOrder kOrder>
void difference(const std::byte* raw, const std::byte* base, size_t n, std::byte* planes,
                size_t stride) {
  for (size_t i = 0; i < n; ++i) {
    const auto at = i * sizeof(T);
    const T d = static_cast<T>(ordered<T, kOrder>(load_le<T>(raw + at)) -
                               ordered<T, kOrder>(load_le<T>(base + at)));
    const T folded = static_cast<T>(static_cast<T>(d << 1) ^ sign_of(d));
    for (size_t j = 0; j < sizeof(T); ++j) {
      planes[j * stride + i] = static_cast<std::byte>(folded >> (8 * j));
    }
  }
}

template <typename T, NumberOrder kOrder>
void sum(const std::byte* planes, size_t stride, const std::byte* base, size_t n, std::byte* raw) {
  for (size_t i = 0; i < n; ++i) {
    T folded = 0;
    for (size_t j = 0; j < sizeof(T); ++j) {
      folded = static_cast<T>(folded | (static_cast<T>(planes[j * stride + i]) << (8 * j)));
    }
    const T odd = static_cast<T>(T{0} - static_cast<T>(folded & 1));
    const T d = static_cast<T>(static_cast<T>(folded >> 1) ^ odd);
    const T x = static_cast<T>(ordered<T, kOrder>(load_le<T>(base + i * sizeof(T))) + d);
    store_le(raw + i * sizeof(T), from_ordered<T, kOrder>(x));
  }
}

// Calls `f` with a zero of the element's type.
template <typename F>
void with_type(size_t width, F&& f) {
  if (width == 1) return f(uint8_t{0});
  if (width == 2) return f(uint16_t{0});
  if (width == 4) return f(uint32_t{0});
  f(uint64_t{0});
}

}  // namespace

void difference_to_planes(size_t width, NumberOrder order, const std::byte* raw,
                          const std::byte* base, size_t n, std::byte* planes, size_t stride) {
  with_type(width, [&](auto zero) {
    using T = decltype(zero);
    if (order == NumberOrder::kInteger) {
      difference<T, NumberOrder::kInteger>(raw, base, n, planes, stride);
    } else {
      difference<T, NumberOrder::kSignMagnitude>(raw, base, n, planes, stride);
    }
  });
}

void planes_to_sum(size_t width, NumberOrder order, const std::byte* planes, size_t stride,
                   const std::byte* base, size_t n, std::byte* raw) {
  with_type(width, [&](auto zero) {
    using T = decltype(zero);
    if (order == NumberOrder::kInteger) {
      sum<T, NumberOrder::kInteger>(planes, stride, base, n, raw);
    } else {
      sum<T, NumberOrder::kSignMagnitude>(planes, stride, base, n, raw);
    }
  });
}

}  // namespace caisson

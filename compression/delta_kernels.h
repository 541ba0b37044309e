// The inner loops of codec 5, "delta": the difference of two chunks of equal elements as planes of
// bytes. Pure: no allocation, no state. Plain C++, which compilers turn into vectors: what codes
// the planes takes most of the time.
//
// Elements are mapped to unsigned integers in the order of the numbers they stand for, so that two
// numbers that are near have a small difference, whatever their signs and exponents. The difference
// d, modulo 2^bits, is stored as 2d or -2d - 1: bytes at the top are then zero. 1 -> 2, -1 -> 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace caisson {

// Stored; never renumber.
enum class NumberOrder : uint8_t {
  kInteger = 0,        // two's complement or unsigned: as they are
  kSignMagnitude = 1,  // floats: negative ones inverted, the sign of the others set
};

inline constexpr size_t kDeltaWidthMax = 8;  // bytes of an element

// Byte j of difference i goes to planes[j * stride + i]. `width` is 1, 2, 4 or 8; stride >= n.
void difference_to_planes(size_t width, NumberOrder order, const std::byte* raw,
                          const std::byte* base, size_t n, std::byte* planes, size_t stride);
// The inverse.
void planes_to_sum(size_t width, NumberOrder order, const std::byte* planes, size_t stride,
                   const std::byte* base, size_t n, std::byte* raw);

}  // namespace caisson

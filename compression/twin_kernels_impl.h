// A run of elements in plain C++: the scalar table, and the tails of the others. Internal linkage
// on purpose, as in plane_kernels_impl.h: each source is compiled for its own instruction set.
#pragma once

#include "compression/twin_kernels.h"
#include "io/base/bytes.h"

namespace caisson {
namespace {  // NOLINT(google-build-namespaces): see above

uint16_t predicted_high(uint16_t threshold, uint16_t base, uint16_t low) {
  return static_cast<uint16_t>(base - (low > threshold ? 1 : 0));
}

// Elements [from, n) of a call.
size_t split_twins(uint16_t threshold, const std::byte* raw, const std::byte* base, size_t from,
                   size_t n, std::byte* low, uint16_t* wrong) {
  size_t count = 0;
  for (size_t i = from; i < n; ++i) {
    const auto element = load_le<uint32_t>(raw + 4 * i);
    const auto half = static_cast<uint16_t>(element);
    store_le(low + 2 * i, half);
    const uint16_t high = predicted_high(threshold, load_le<uint16_t>(base + 2 * i), half);
    if (high != element >> 16) wrong[count++] = static_cast<uint16_t>(i);
  }
  return count;
}

void join_twins(uint16_t threshold, const std::byte* base, const std::byte* low, size_t from,
                size_t n, std::byte* raw) {
  for (size_t i = from; i < n; ++i) {
    const auto half = load_le<uint16_t>(low + 2 * i);
    const uint16_t high = predicted_high(threshold, load_le<uint16_t>(base + 2 * i), half);
    store_le(raw + 4 * i, (uint32_t{high} << 16) | half);
  }
}

}  // namespace
}  // namespace caisson

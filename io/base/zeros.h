// Are these bytes all zero? Of reserved bytes that a decoder checks, and of what a codec leaves
// out. Pure.
#pragma once

#include <algorithm>
#include <cstdint>

#include "io/base/bytes.h"

namespace caisson {

// True of no bytes. A line of the caches at a time, which a compiler makes vectors of, and no
// further than the first that is not.
inline bool is_zero(Bytes bytes) {
  constexpr size_t kWordBytes = sizeof(uint64_t);
  constexpr size_t kStepBytes = 8 * kWordBytes;
  for (; bytes.size() >= kStepBytes; bytes = bytes.subspan(kStepBytes)) {
    uint64_t any = 0;
    for (size_t at = 0; at < kStepBytes; at += kWordBytes) {
      any |= load_le<uint64_t>(bytes.data() + at);
    }
    if (any != 0) return false;
  }
  return std::ranges::all_of(bytes, [](std::byte byte) { return byte == std::byte{0}; });
}

}  // namespace caisson

// The plane kernels in plain C++: what every other table is tested against, and what a machine
// without a faster one runs.
#include <bit>
#include <cstring>

#include "compression/huffman_bits.h"
#include "compression/plane_kernels_impl.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

size_t encode_level(Level level, const uint8_t* symbols, size_t n, std::byte* planes,
                    uint8_t* escapes) {
  const unsigned width = (1u << level.bits) - 1;
  size_t escaped = 0;
  for (size_t start = 0; start < n; start += kGroup) {
    escaped += encode_group(level, width, symbols + start, std::min(kGroup, n - start), planes,
                            escapes + escaped);
    planes += level.bits * sizeof(uint64_t);
  }
  return escaped;
}

size_t decode_level(Level level, const std::byte* planes, size_t n, const uint8_t* escapes,
                    size_t escape_count, uint8_t* symbols) {
  const unsigned width = (1u << level.bits) - 1;
  size_t used = 0;
  for (size_t start = 0; start < n; start += kGroup) {
    used = decode_group(level, width, planes, std::min(kGroup, n - start), escapes, used,
                        escape_count, symbols + start);
    if (used > escape_count) return used;
    planes += level.bits * sizeof(uint64_t);
  }
  return used;
}

void pack_bits(uint8_t mask, const uint8_t* top, size_t n, std::byte* planes) {
  for (size_t start = 0; start < n; start += kGroup) {
    planes = pack_group(mask, top + start, std::min(kGroup, n - start), planes);
  }
}

void unpack_bits(uint8_t mask, uint8_t constant, const std::byte* planes, size_t n, uint8_t* top) {
  for (size_t start = 0; start < n; start += kGroup) {
    planes = unpack_group(mask, constant, planes, std::min(kGroup, n - start), top + start);
  }
}

size_t encode_elements(const Coding& coding, const std::byte* raw, size_t n, ElementAreas to,
                       uint8_t* escapes, TopBits* seen) {
  return encode_in_passes(scalar_plane_kernels(), coding, raw, n, to, escapes, seen);
}

size_t decode_elements(const Coding& coding, ConstElementAreas from, size_t n,
                       const uint8_t* escapes, size_t escape_count, std::byte* raw) {
  return decode_in_passes(scalar_plane_kernels(), coding, from, n, escapes, escape_count, raw);
}

}  // namespace

const PlaneKernels& scalar_plane_kernels() {
  static constexpr PlaneKernels kKernels = {
      .name = "scalar",
      .split = &split_elements,
      .join = &join_elements,
      .encode_level = &encode_level,
      .decode_level = &decode_level,
      .pack_bits = &pack_bits,
      .unpack_bits = &unpack_bits,
      .encode_elements = &encode_elements,
      .decode_elements = &decode_elements,
      .write_codes = &write_codes_in_turn,
  };
  return kKernels;
}

}  // namespace caisson

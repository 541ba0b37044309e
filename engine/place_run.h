// Rows of the index's table of places, as its bulk load collects and sorts them. Used by index.cc.
// Pure.
#pragma once

#include <cstdint>
#include <tuple>
#include <vector>

#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson {

struct PlaceRow {
  Digest id;
  uint32_t raw_bytes = 0;
  uint32_t pack = 0;  // ordinal
  uint32_t offset_units = 0;
  uint32_t stored_bytes = 0;
  uint64_t checksum = 0;
  uint8_t codec = 0;
  uint8_t flags = 0;

  // The first eight bytes of the id, so that numbers are in the order of bytes.
  uint64_t prefix() const { return __builtin_bswap64(load_le<uint64_t>(id.bytes.data())); }
  // In the order of the key's bytes.
  auto key() const {
    const uint64_t low = __builtin_bswap64(load_le<uint64_t>(id.bytes.data() + 8));
    return std::make_tuple(prefix(), low, raw_bytes, pack, offset_units);
  }
};

// Sorts by key and drops rows whose key came before. Ids are uniform, so one pass of buckets leaves
// little to sort, and what is left fits a core's cache; rows that are not uniform cost a sort.
// `scratch` is overwritten; it is given so that its memory is used again.
void sort_places(std::vector<PlaceRow>& rows, std::vector<PlaceRow>& scratch);

}  // namespace caisson

// Boxes written down as a person would, for tests of what cuts and joins them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "caisson/tensor.h"

namespace caisson {

inline Box box_of(std::initializer_list<uint64_t> offset, std::initializer_list<uint64_t> extent) {
  Box box;
  box.rank = static_cast<int>(offset.size());
  std::copy(offset.begin(), offset.end(), box.offset.begin());
  std::copy(extent.begin(), extent.end(), box.extent.begin());
  return box;
}

// From [begin, end) of each dimension.
inline Box box_between(const std::vector<std::pair<uint64_t, uint64_t>>& ranges) {
  Box box;
  for (const auto& [begin, end] : ranges) {
    box.offset[static_cast<size_t>(box.rank)] = begin;
    box.extent[static_cast<size_t>(box.rank)] = end - begin;
    ++box.rank;
  }
  return box;
}

}  // namespace caisson

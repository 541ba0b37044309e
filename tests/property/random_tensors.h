// Random tensors, boxes and grids for property tests. Every draw comes from one seed, which the
// test prints when it fails; CAISSON_SEED=n repeats exactly that case, CAISSON_ROUNDS=n runs more.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "caisson/tensor.h"
#include "engine/tiling.h"

namespace caisson {

inline std::vector<uint64_t> seeds(uint64_t rounds) {
  if (const char* seed = std::getenv("CAISSON_SEED")) return {std::strtoull(seed, nullptr, 10)};
  if (const char* more = std::getenv("CAISSON_ROUNDS")) rounds = std::strtoull(more, nullptr, 10);
  std::vector<uint64_t> all;
  for (uint64_t i = 1; i <= rounds; ++i) all.push_back(i);
  return all;
}

class RandomTensors {
 public:
  explicit RandomTensors(uint64_t seed) : engine_(seed) {}

  // Uniform in [low, high].
  uint64_t between(uint64_t low, uint64_t high) {
    return std::uniform_int_distribution<uint64_t>(low, high)(engine_);
  }
  DType dtype() {
    static const std::vector<std::string> names = {"BOOL", "F4",      "F6_E2M3", "F6_E3M2",
                                                   "U8",   "F8_E4M3", "BF16",    "F32",
                                                   "C64",  "F64",     "C128",    "I4"};
    return dtype_from_name(names[between(0, names.size() - 1)]).value();
  }
  // Up to kRankMax dimensions and about `elements_max` elements that are whole bytes together.
  TensorSpec tensor(uint64_t elements_max, bool zeros = true) {
    TensorSpec spec;
    spec.name = "t";
    spec.dtype = dtype();
    spec.shape.rank = static_cast<int>(between(0, kRankMax));
    uint64_t left = elements_max;
    for (int i = 0; i < spec.shape.rank; ++i) {
      const uint64_t extent = extent_up_to(left);
      spec.shape.dims[static_cast<size_t>(i)] = extent;
      left /= extent;
    }
    std::shuffle(spec.shape.dims.begin(), spec.shape.dims.begin() + spec.shape.rank, engine_);
    if (zeros && spec.shape.rank > 0 && between(0, 19) == 0) spec.shape.dims[0] = 0;
    if (!byte_cut(spec.shape.extents(), spec.dtype)) spec.dtype = {DTypeCode::kBfloat, 16};
    return spec;
  }
  // A box that check_box accepts, within `outer`, which it accepts too; seldom empty.
  Box box(const TensorSpec& spec, const Box& outer) {
    Box box = outer;
    const ByteCut cut = byte_cut(spec.shape.extents(), spec.dtype).value();
    for (int i = 0; i <= cut.axis; ++i) {
      const size_t at = static_cast<size_t>(i);
      const uint64_t step = i == cut.axis ? cut.step : 1;
      const uint64_t steps = outer.extent[at] / step;
      if (steps == 0 || between(0, 2) == 0) continue;
      const uint64_t first = between(0, steps - 1);
      const uint64_t count = between(between(0, 9) == 0 ? 0 : 1, steps - first);
      box.offset[at] = outer.offset[at] + first * step;
      box.extent[at] = count * step;
    }
    return box;
  }
  Box box(const TensorSpec& spec) { return box(spec, Box::whole(spec.shape)); }
  // Any grid that check_grid accepts for the box.
  PieceGrid grid(const TensorSpec& spec, const Box& box) {
    PieceGrid grid;
    grid.rank = box.rank;
    const ByteCut cut = byte_cut(spec.shape.extents(), spec.dtype).value();
    for (int i = 0; i < box.rank; ++i) {
      const size_t at = static_cast<size_t>(i);
      const uint64_t step = i == cut.axis ? cut.step : 1;
      grid.cell[at] = i > cut.axis
                          ? std::max<uint64_t>(box.extent[at], 1)
                          : step * between(1, std::max<uint64_t>(box.extent[at] / step, 1) + 1);
      if (i <= cut.axis) grid.origin[at] = step * between(0, box.offset[at] / step);
    }
    return grid;
  }

 private:
  uint64_t extent_up_to(uint64_t left) {
    const uint64_t kind = between(0, 3);
    if (kind == 0) return 1;
    if (kind == 1) return std::min<uint64_t>(left, uint64_t{1} << between(0, 6));
    return between(1, std::max<uint64_t>(kind == 2 ? left : std::min<uint64_t>(left, 9), 1));
  }
  std::mt19937_64 engine_;
};

}  // namespace caisson

#include "engine/twin_search.h"

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

namespace caisson {

namespace {

constexpr uint64_t kSamples = 64;
// Smaller tensors lie in the part, or gain less than the search costs.
constexpr uint64_t kElementsMin = 4096;

constexpr DType kWeight{.code = DTypeCode::kBfloat, .bits = 16};
constexpr DType kMaster{.code = DTypeCode::kFloat, .bits = 32};

using Samples = std::array<uint16_t, kSamples>;

// Calls `visit` with the sample's number and the address of its element: places spread evenly over
// the box, in row-major order.
template <typename Visit>
void visit_samples(const BoxMemory& memory, const Visit& visit) {
  const uint64_t elements = memory.box.elements();
  for (uint64_t i = 0; i < kSamples; ++i) {
    uint64_t index = elements / kSamples * i + i % (elements / kSamples);
    int64_t offset = 0;
    for (int d = memory.box.rank - 1; d >= 0; --d) {
      const auto axis = static_cast<size_t>(d);
      offset += static_cast<int64_t>(index % memory.box.extent[axis]) * memory.strides_bytes[axis];
      index /= memory.box.extent[axis];
    }
    visit(i, memory.data + offset);
  }
}

// Everything by which a shard and its twin agree.
struct TwinKey {
  Shape shape;
  Box box;
  PieceGrid grid;
  uint64_t first_piece = 0, pieces = 0;
  Samples rounded{};

  auto tied() const {
    return std::tie(shape.rank, shape.dims, box.offset, box.extent, grid.origin, grid.cell,
                    first_piece, pieces, rounded);
  }
  bool operator<(const TwinKey& other) const { return tied() < other.tied(); }
};

TwinKey key_of(const PlannedShard& shard, const Samples& rounded) {
  return {.shape = shard.spec().shape,
          .box = shard.box(),
          .grid = shard.grid,
          .first_piece = shard.first_piece,
          .pieces = shard.pieces,
          .rounded = rounded};
}

bool is_candidate(const PlannedShard& shard, DType dtype) {
  return shard.item->kind == TensorKind::kTensor && shard.spec().dtype == dtype &&
         shard.pieces > 0 && shard.box().elements() >= kElementsMin;
}

// A constant tensor is the rounding of any other of its value, and codes to nothing by itself.
bool is_constant(const Samples& samples) {
  for (const uint16_t sample : samples) {
    if (sample != samples.front()) return false;
  }
  return true;
}

// To the nearest, ties to even and ties up, and toward zero.
std::array<Samples, 3> roundings(const BoxMemory& memory) {
  std::array<Samples, 3> rounded;
  visit_samples(memory, [&](uint64_t i, const std::byte* element) {
    const auto bits = load_le<uint32_t>(element);
    rounded[0][i] = static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    rounded[1][i] = static_cast<uint16_t>((bits + 0x8000) >> 16);
    rounded[2][i] = static_cast<uint16_t>(bits >> 16);
  });
  return rounded;
}

}  // namespace

bool may_have_twins(std::span<const SaveItem> items) {
  const auto has = [&](DType dtype) {
    return std::ranges::any_of(
        items, [&](const SaveItem& item) { return item.shard.tensor.dtype == dtype; });
  };
  return has(kWeight) && has(kMaster);
}

std::vector<std::optional<uint32_t>> find_twin_bases(std::span<const PlannedShard> shards) {
  std::multimap<TwinKey, uint32_t> weights;  // equal ones in their order
  for (uint32_t i = 0; i < shards.size(); ++i) {
    if (!is_candidate(shards[i], kWeight)) continue;
    Samples samples;
    visit_samples(shards[i].memory(), [&](uint64_t at, const std::byte* element) {
      samples[at] = load_le<uint16_t>(element);
    });
    if (!is_constant(samples)) weights.emplace(key_of(shards[i], samples), i);
  }
  std::vector<std::optional<uint32_t>> bases(shards.size());
  for (uint32_t i = 0; i < shards.size() && !weights.empty(); ++i) {
    if (!is_candidate(shards[i], kMaster)) continue;
    for (const Samples& rounded : roundings(shards[i].memory())) {
      const auto found = weights.find(key_of(shards[i], rounded));
      if (found == weights.end()) continue;
      bases[i] = found->second;
      weights.erase(found);
      break;
    }
  }
  return bases;
}

}  // namespace caisson

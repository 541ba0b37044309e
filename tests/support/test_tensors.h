// Tensors with reproducible content, for tests that save and restore. Thread-compatible.
#pragma once

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "caisson/tensor.h"

namespace caisson::testing {

inline constexpr DType kF32{DTypeCode::kFloat, 32};
inline constexpr DType kBf16{DTypeCode::kBfloat, 16};
inline constexpr DType kI64{DTypeCode::kInt, 64};
inline constexpr DType kU8{DTypeCode::kUInt, 8};

inline Shape shape_of(std::initializer_list<uint64_t> extents) {
  return Shape::of(std::vector<uint64_t>(extents));
}

inline std::vector<std::byte> random_bytes(uint64_t count, uint64_t seed) {
  std::vector<std::byte> bytes(count);
  std::mt19937_64 random(seed);
  for (size_t at = 0; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t value = random();
    std::memcpy(bytes.data() + at, &value, std::min(sizeof value, bytes.size() - at));
  }
  return bytes;
}

// One whole tensor and its bytes, contiguous.
struct TestTensor {
  TensorSpec spec;
  std::vector<std::byte> bytes;

  TestTensor(std::string name, DType dtype, Shape shape, uint64_t seed)
      : spec{.name = std::move(name), .dtype = dtype, .shape = shape},
        bytes(random_bytes(packed_bytes(element_count(shape).value(), dtype).value(), seed)) {}

  TensorShard whole() const {
    return {.tensor = spec,
            .box = Box::whole(spec.shape),
            .data = bytes.data(),
            .strides_bytes = {},
            .replica = {}};
  }
  // Rows [begin, end) of the first dimension: contiguous in memory.
  TensorShard rows(uint64_t begin, uint64_t end) const {
    TensorShard shard = whole();
    shard.box.offset[0] = begin;
    shard.box.extent[0] = end - begin;
    shard.data = bytes.data() + bytes.size() / spec.shape.dims[0] * begin;
    return shard;
  }
};

inline std::vector<TensorShard> whole_shards(const std::vector<TestTensor>& tensors) {
  std::vector<TensorShard> shards;
  for (const TestTensor& tensor : tensors) shards.push_back(tensor.whole());
  return shards;
}

}  // namespace caisson::testing

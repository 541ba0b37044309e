// The nouns of a checkpoint's content: element types, shapes, boxes, shards. Values; immutable or
// thread-compatible.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/result.h"

namespace caisson {

inline constexpr int kRankMax = 8;

// DLPack type codes (dlpack.h, DLDataTypeCode), which also name the 8-, 6- and 4-bit floats. Stored
// in the format: never renumber.
enum class DTypeCode : uint8_t {
  kInt = 0,
  kUInt = 1,
  kFloat = 2,
  kBfloat = 4,
  kComplex = 5,
  kBool = 6,
  kFloat8E3M4 = 7,
  kFloat8E4M3 = 8,
  kFloat8E4M3B11FNUZ = 9,
  kFloat8E4M3FN = 10,
  kFloat8E4M3FNUZ = 11,
  kFloat8E5M2 = 12,
  kFloat8E5M2FNUZ = 13,
  kFloat8E8M0FNU = 14,
  kFloat6E2M3FN = 15,
  kFloat6E3M2FN = 16,
  kFloat4E2M1FN = 17,
};

struct DType {
  DTypeCode code = DTypeCode::kUInt;
  uint8_t bits = 8;  // of one element: 4, 6, 8, 16, 32, 64, 128
  bool operator==(const DType&) const = default;
};

// safetensors' names ("F32", "BF16", "F8_E4M3", "F4", "F6_E2M3", "BOOL", "C64", ...), used by the
// CLI and by import and export.
std::string dtype_name(DType dtype);
Result<DType> dtype_from_name(std::string_view name);
// kInvalidArgument for a pair of code and bits that the format does not know.
Status check_dtype(DType dtype);

// Extents of up to kRankMax dimensions; rank 0 is a scalar of one element. Row-major ("C") order.
struct Shape {
  int rank = 0;
  std::array<uint64_t, kRankMax> dims{};

  static Shape of(std::span<const uint64_t> extents);  // REQUIRES: extents.size() <= kRankMax
  std::span<const uint64_t> extents() const { return {dims.data(), static_cast<size_t>(rank)}; }
  bool operator==(const Shape&) const = default;
};

// Product of the extents (1 for rank 0); kInvalidArgument when it overflows 2^62.
Result<uint64_t> element_count(const Shape& shape);
// Bytes of `elements` elements packed without gaps, sub-byte types included;
// kInvalidArgument when the bits are not a whole number of bytes.
Result<uint64_t> packed_bytes(uint64_t elements, DType dtype);
std::string to_string(const Shape& shape);  // "[4096, 1024]"

// An axis-aligned sub-box of a tensor: offset and extent per dimension. Zero extents are legal.
struct Box {
  int rank = 0;
  std::array<uint64_t, kRankMax> offset{};
  std::array<uint64_t, kRankMax> extent{};

  static Box whole(const Shape& shape);
  uint64_t elements()
      const;  // product of extents; REQUIRES: fits (boxes within a checked shape do)
  bool operator==(const Box&) const = default;
};

bool contains(const Shape& shape, const Box& box);  // box lies within the tensor
bool contains(const Box& outer, const Box& inner);
Box intersect(const Box& a, const Box& b);  // zero extents when disjoint
std::string to_string(const Box& box);      // "[0:512, 128:256]"

// The boxes that together are the row-major element range [begin, end) of a tensor: what FSDP1,
// ZeRO and Megatron's distributed optimizer hold. At most 2 * rank - 1 boxes, in storage order, so
// the range's memory is the boxes' memories one after the other. None when the range is empty or
// does not lie within the tensor.
std::vector<Box> boxes_of_range(const Shape& shape, uint64_t begin, uint64_t end);

// A tensor's identity within a checkpoint.
struct TensorSpec {
  std::string name;  // UTF-8, 1 to 4096 bytes, no NUL
  DType dtype;
  Shape shape;  // global
  bool operator==(const TensorSpec&) const = default;
};

// This rank is replica `index` of `count` holders of the same box: the tiles are divided among
// them.
struct Replica {
  uint32_t index = 0;
  uint32_t count = 1;
};

// What one rank hands over of one tensor: a box and where its bytes are. Memory is row-major over
// the box with the given strides. The memory must not change until the save has finished, unless
// the save stages (copies) it.
struct TensorShard {
  TensorSpec tensor;
  Box box;                             // Box::whole(shape) for an unsharded tensor
  const std::byte* data = nullptr;     // may be null only when the box is empty
  std::vector<int64_t> strides_bytes;  // empty: contiguous. Sub-byte types must be contiguous
  Replica replica;
};

// Where a restore puts one box of one tensor.
struct TensorTarget {
  std::string name;
  Box box;
  std::byte* data = nullptr;
  std::vector<int64_t> strides_bytes;  // empty: contiguous
};

}  // namespace caisson

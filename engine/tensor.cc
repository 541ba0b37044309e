// Element types, shapes and boxes: names, sizes and the arithmetic that everything above relies on.
// Called by every stage and by the command line. Pure, hence thread-safe. Invariant: no function
// overflows for a shape that element_count accepts and boxes within it; `contains`, which decides
// that, takes any values.
#include "caisson/tensor.h"

#include <algorithm>

#include "io/base/check.h"

namespace caisson {
namespace {

constexpr uint64_t kElementsMax = uint64_t{1} << 62;

struct DTypeRow {
  DTypeCode code;
  uint8_t bits;
  std::string_view name;
};

// safetensors' own names first. Its F8_E4M3 is the finite-only variant that DLPack calls E4M3FN, so
// the IEEE-like one, which safetensors lacks, needs another name.
constexpr std::array kDTypes = {
    DTypeRow{DTypeCode::kBool, 8, "BOOL"},
    DTypeRow{DTypeCode::kFloat4E2M1FN, 4, "F4"},
    DTypeRow{DTypeCode::kFloat6E2M3FN, 6, "F6_E2M3"},
    DTypeRow{DTypeCode::kFloat6E3M2FN, 6, "F6_E3M2"},
    DTypeRow{DTypeCode::kUInt, 8, "U8"},
    DTypeRow{DTypeCode::kInt, 8, "I8"},
    DTypeRow{DTypeCode::kFloat8E5M2, 8, "F8_E5M2"},
    DTypeRow{DTypeCode::kFloat8E4M3FN, 8, "F8_E4M3"},
    DTypeRow{DTypeCode::kFloat8E8M0FNU, 8, "F8_E8M0"},
    DTypeRow{DTypeCode::kFloat8E4M3FNUZ, 8, "F8_E4M3FNUZ"},
    DTypeRow{DTypeCode::kFloat8E5M2FNUZ, 8, "F8_E5M2FNUZ"},
    DTypeRow{DTypeCode::kInt, 16, "I16"},
    DTypeRow{DTypeCode::kUInt, 16, "U16"},
    DTypeRow{DTypeCode::kFloat, 16, "F16"},
    DTypeRow{DTypeCode::kBfloat, 16, "BF16"},
    DTypeRow{DTypeCode::kInt, 32, "I32"},
    DTypeRow{DTypeCode::kUInt, 32, "U32"},
    DTypeRow{DTypeCode::kFloat, 32, "F32"},
    DTypeRow{DTypeCode::kComplex, 64, "C64"},
    DTypeRow{DTypeCode::kFloat, 64, "F64"},
    DTypeRow{DTypeCode::kInt, 64, "I64"},
    DTypeRow{DTypeCode::kUInt, 64, "U64"},
    // Known to DLPack, not to safetensors.
    DTypeRow{DTypeCode::kInt, 4, "I4"},
    DTypeRow{DTypeCode::kUInt, 4, "U4"},
    DTypeRow{DTypeCode::kFloat8E3M4, 8, "F8_E3M4"},
    DTypeRow{DTypeCode::kFloat8E4M3, 8, "F8_E4M3_IEEE"},
    DTypeRow{DTypeCode::kFloat8E4M3B11FNUZ, 8, "F8_E4M3B11FNUZ"},
    DTypeRow{DTypeCode::kComplex, 32, "C32"},
    DTypeRow{DTypeCode::kComplex, 128, "C128"},
};

const DTypeRow* find_row(DType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.code == dtype.code && row.bits == dtype.bits) return &row;
  }
  return nullptr;
}

// The range [begin, end) within the sub-tensor of dimensions `axis`.. at the place that `box` fixes
// so far. REQUIRES: begin < end <= product of the extents from `axis` on.
void append_boxes(const Shape& shape, int axis, uint64_t begin, uint64_t end, Box box,
                  std::vector<Box>& boxes) {
  if (axis == shape.rank) {
    boxes.push_back(box);
    return;
  }
  uint64_t slice = 1;
  for (int i = axis + 1; i < shape.rank; ++i) slice *= shape.dims[static_cast<size_t>(i)];
  const size_t at = static_cast<size_t>(axis);
  // One row of this axis, in part or whole: fix it and look inside.
  auto within_row = [&](uint64_t row, uint64_t row_begin, uint64_t row_end) {
    Box inner = box;
    inner.offset[at] = row;
    inner.extent[at] = 1;
    append_boxes(shape, axis + 1, row_begin, row_end, inner, boxes);
  };
  uint64_t row = begin / slice;
  const uint64_t row_end = end / slice;  // rows before it end within the range
  if (row == (end - 1) / slice) {
    within_row(row, begin - row * slice, end - row * slice);
    return;
  }
  if (begin % slice != 0) {
    within_row(row, begin % slice, slice);
    ++row;
  }
  if (row < row_end) {
    Box middle = box;
    middle.offset[at] = row;
    middle.extent[at] = row_end - row;
    for (size_t i = at + 1; i < static_cast<size_t>(shape.rank); ++i) {
      middle.offset[i] = 0;
      middle.extent[i] = shape.dims[i];
    }
    boxes.push_back(middle);
  }
  if (end % slice != 0) within_row(row_end, 0, end % slice);
}

}  // namespace

std::string dtype_name(DType dtype) {
  if (const DTypeRow* row = find_row(dtype)) return std::string(row->name);
  return "unknown(code " + std::to_string(static_cast<int>(dtype.code)) + ", " +
         std::to_string(dtype.bits) + " bits)";
}

Result<DType> dtype_from_name(std::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (row.name == name) return DType{row.code, row.bits};
  }
  return invalid_argument("unknown element type \"" + std::string(name.substr(0, 32)) +
                          "\"; known are the names of safetensors, such as F32, BF16 and F8_E4M3");
}

Status check_dtype(DType dtype) {
  if (find_row(dtype) != nullptr) return ok_status();
  return invalid_argument("no element type has DLPack code " +
                          std::to_string(static_cast<int>(dtype.code)) + " with " +
                          std::to_string(dtype.bits) + " bits");
}

Shape Shape::of(std::span<const uint64_t> extents) {
  CAISSON_CHECK(extents.size() <= static_cast<size_t>(kRankMax));
  Shape shape;
  shape.rank = static_cast<int>(extents.size());
  std::copy(extents.begin(), extents.end(), shape.dims.begin());
  return shape;
}

Result<uint64_t> element_count(const Shape& shape) {
  if (shape.rank < 0 || shape.rank > kRankMax) {
    return invalid_argument("a tensor has 0 to " + std::to_string(kRankMax) + " dimensions, not " +
                            std::to_string(shape.rank));
  }
  // Extents of zero count as one here, so that no product of some of the extents overflows either.
  uint64_t product = 1;
  bool empty = false;
  for (const uint64_t extent : shape.extents()) {
    if (extent == 0) {
      empty = true;
    } else if (product > kElementsMax / extent) {
      return invalid_argument("shape " + to_string(shape) + " has more than 2^62 elements");
    } else {
      product *= extent;
    }
  }
  return empty ? uint64_t{0} : product;
}

Result<uint64_t> packed_bytes(uint64_t elements, DType dtype) {
  const uint64_t bits = dtype.bits;
  if (elements % 8 * bits % 8 != 0) {
    return invalid_argument(std::to_string(elements) + " elements of " + dtype_name(dtype) +
                            " are not a whole number of bytes");
  }
  // bits * elements / 8, in an order that overflows only when the result does.
  if (bits != 0 && elements / 8 > (UINT64_MAX - bits) / bits) {
    return invalid_argument(std::to_string(elements) + " elements of " + dtype_name(dtype) +
                            " are more than 2^64 bytes");
  }
  return elements / 8 * bits + elements % 8 * bits / 8;
}

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.extents().size(); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(shape.dims[i]);
  }
  return text + "]";
}

Box Box::whole(const Shape& shape) {
  Box box;
  box.rank = shape.rank;
  box.extent = shape.dims;
  return box;
}

uint64_t Box::elements() const {
  uint64_t product = 1;
  for (size_t i = 0; i < static_cast<size_t>(rank); ++i) product *= extent[i];
  return product;
}

bool contains(const Shape& shape, const Box& box) { return contains(Box::whole(shape), box); }

bool contains(const Box& outer, const Box& inner) {
  if (outer.rank != inner.rank) return false;
  for (size_t i = 0; i < static_cast<size_t>(outer.rank); ++i) {
    // Written with differences: offset + extent of bytes from outside may overflow.
    if (inner.offset[i] < outer.offset[i]) return false;
    const uint64_t skipped = inner.offset[i] - outer.offset[i];
    if (skipped > outer.extent[i] || inner.extent[i] > outer.extent[i] - skipped) return false;
  }
  return true;
}

Box intersect(const Box& a, const Box& b) {
  CAISSON_CHECK(a.rank == b.rank);
  Box both;
  both.rank = a.rank;
  bool disjoint = false;
  for (size_t i = 0; i < static_cast<size_t>(a.rank); ++i) {
    both.offset[i] = std::max(a.offset[i], b.offset[i]);
    const uint64_t end = std::min(a.offset[i] + a.extent[i], b.offset[i] + b.extent[i]);
    both.extent[i] = end > both.offset[i] ? end - both.offset[i] : 0;
    disjoint |= both.extent[i] == 0;
  }
  if (disjoint) both.extent.fill(0);
  return both;
}

std::string to_string(const Box& box) {
  if (box.rank < 0 || box.rank > kRankMax) return "of rank " + std::to_string(box.rank);
  std::string text = "[";
  for (size_t i = 0; i < static_cast<size_t>(box.rank); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(box.offset[i]) + ":" + std::to_string(box.offset[i] + box.extent[i]);
  }
  return text + "]";
}

std::vector<Box> boxes_of_range(const Shape& shape, uint64_t begin, uint64_t end) {
  const Result<uint64_t> elements = element_count(shape);
  if (!elements.ok() || begin >= end || end > *elements) return {};
  std::vector<Box> boxes;
  Box box;
  box.rank = shape.rank;
  append_boxes(shape, 0, begin, end, box, boxes);
  return boxes;
}

}  // namespace caisson

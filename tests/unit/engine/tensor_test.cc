#include "caisson/tensor.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

Shape shape_of(std::initializer_list<uint64_t> extents) {
  return Shape::of({extents.begin(), extents.size()});
}

TEST(DType, KnowsEveryNameOfSafetensors) {
  const std::pair<const char*, int> names[] = {
      {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
      {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
      {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
      {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
      {"I64", 64},        {"U64", 64}};
  for (const auto& [name, bits] : names) {
    const Result<DType> dtype = dtype_from_name(name);
    ASSERT_TRUE(dtype.ok()) << name;
    EXPECT_EQ(dtype->bits, bits) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
    EXPECT_TRUE(check_dtype(*dtype).ok()) << name;
  }
  EXPECT_EQ(dtype_from_name("F8_E4M3")->code, DTypeCode::kFloat8E4M3FN);
}

TEST(DType, RefusesWhatTheFormatDoesNotKnow) {
  EXPECT_EQ(dtype_from_name("f32").status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(check_dtype({DTypeCode::kBfloat, 32}).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(check_dtype({static_cast<DTypeCode>(3), 64}).code(), StatusCode::kInvalidArgument);
}

TEST(Shape, CountsElementsWithoutOverflow) {
  EXPECT_EQ(*element_count(Shape{}), 1u);
  EXPECT_EQ(*element_count(shape_of({3, 0, 5})), 0u);
  EXPECT_EQ(*element_count(shape_of({1ull << 31, 1ull << 31})), 1ull << 62);
  EXPECT_FALSE(element_count(shape_of({1ull << 32, 1ull << 31})).ok());
  // A zero does not excuse the rest: products of some of the extents are taken everywhere.
  EXPECT_FALSE(element_count(shape_of({0, 1ull << 32, 1ull << 32})).ok());
  EXPECT_FALSE(element_count(Shape{.rank = 9}).ok());
  EXPECT_FALSE(element_count(Shape{.rank = -1}).ok());
}

TEST(PackedBytes, WantsWholeBytes) {
  const DType f4{DTypeCode::kFloat4E2M1FN, 4};
  const DType f6{DTypeCode::kFloat6E2M3FN, 6};
  EXPECT_EQ(*packed_bytes(6, f4), 3u);
  EXPECT_FALSE(packed_bytes(7, f4).ok());
  EXPECT_EQ(*packed_bytes(12, f6), 9u);
  EXPECT_FALSE(packed_bytes(6, f6).ok());
  EXPECT_EQ(*packed_bytes(3, {DTypeCode::kComplex, 128}), 48u);
  EXPECT_FALSE(packed_bytes(1ull << 62, {DTypeCode::kComplex, 128}).ok());
}

TEST(Box, ContainsDoesNotOverflow) {
  const Shape shape = shape_of({10});
  Box box = Box::whole(shape);
  EXPECT_TRUE(contains(shape, box));
  box.offset[0] = UINT64_MAX;
  EXPECT_FALSE(contains(shape, box));
  box.offset[0] = 2;
  box.extent[0] = UINT64_MAX;
  EXPECT_FALSE(contains(shape, box));
  box.extent[0] = 8;
  EXPECT_TRUE(contains(shape, box));
  EXPECT_FALSE(contains(shape_of({10, 1}), box));
  EXPECT_EQ(to_string(box), "[2:10]");
  EXPECT_EQ(to_string(shape_of({4096, 1024})), "[4096, 1024]");
}

TEST(BoxesOfRange, IsTheRangeInStorageOrder) {
  const Shape shape = shape_of({3, 4, 5});
  for (uint64_t begin = 0; begin <= 60; ++begin) {
    for (uint64_t end = begin; end <= 60; ++end) {
      const std::vector<Box> boxes = boxes_of_range(shape, begin, end);
      EXPECT_LE(boxes.size(), 5u);
      uint64_t at = begin;
      for (const Box& box : boxes) {
        ASSERT_TRUE(contains(shape, box));
        for (uint64_t i = 0; i < box.elements(); ++i, ++at) {
          const uint64_t x = box.offset[0] + i / (box.extent[1] * box.extent[2]);
          const uint64_t y = box.offset[1] + i / box.extent[2] % box.extent[1];
          const uint64_t z = box.offset[2] + i % box.extent[2];
          ASSERT_EQ((x * 4 + y) * 5 + z, at) << begin << ".." << end;
        }
      }
      EXPECT_EQ(at, end);
    }
  }
  EXPECT_EQ(boxes_of_range(Shape{}, 0, 1).size(), 1u);
  EXPECT_TRUE(boxes_of_range(shape, 0, 61).empty());
  EXPECT_TRUE(boxes_of_range(shape, 5, 4).empty());
}

}  // namespace
}  // namespace caisson

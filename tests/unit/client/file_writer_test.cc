// Tests of the pure parts of client/file_writer.h and client/export.h: pieces and slices cover what
// they cut exactly once, in order.
#include "client/file_writer.h"

#include <gtest/gtest.h>

#include <random>

#include "client/export.h"

namespace caisson {
namespace {

Shape random_shape(std::mt19937_64& random) {
  Shape shape;
  shape.rank = static_cast<int>(random() % 5);
  for (int dim = 0; dim < shape.rank; ++dim) shape.dims[dim] = 1 + random() % 12;
  return shape;
}

TEST(CutPiece, RunsOfRowsOneAfterTheOther) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 3000; ++round) {
    const uint8_t bits = round % 3 == 0 ? 4 : 16;
    Shape shape = random_shape(random);
    if (bits == 4 && shape.rank > 0) shape.dims[shape.rank - 1] *= 8;
    if (bits == 4 && shape.rank == 0) continue;
    const DType dtype =
        bits == 4 ? DType{DTypeCode::kFloat4E2M1FN, 4} : DType{DTypeCode::kFloat, 16};
    const FilePiece whole{.tensor = "t", .dtype = dtype, .box = Box::whole(shape), .offset = 100};
    const uint64_t bytes_max = 1 + random() % 64;
    uint64_t at = whole.offset;
    uint64_t elements = 0;
    for (const FilePiece& piece : cut_piece(whole, bytes_max)) {
      ASSERT_EQ(piece.offset, at) << "round " << round;
      ASSERT_TRUE(contains(shape, piece.box)) << "round " << round;
      const auto bytes = packed_bytes(piece.box.elements(), dtype);
      ASSERT_TRUE(bytes.ok()) << "round " << round << " " << to_string(piece.box);
      ASSERT_TRUE(*bytes <= bytes_max || *bytes <= 8) << "round " << round;
      // Row-major order: the first element of the piece stands at its offset.
      uint64_t index = 0;
      for (int dim = 0; dim < shape.rank; ++dim) {
        index = index * shape.dims[dim] + piece.box.offset[dim];
      }
      ASSERT_EQ(whole.offset + index * dtype.bits / 8, piece.offset) << "round " << round;
      at += *bytes;
      elements += piece.box.elements();
    }
    ASSERT_EQ(elements, whole.box.elements()) << "round " << round;
  }
}

TEST(SliceBox, SlicesCoverEveryTensorOnce) {
  std::mt19937_64 random(13);
  for (int round = 0; round < 3000; ++round) {
    const TensorSpec spec{
        .name = "t", .dtype = {DTypeCode::kFloat, 16}, .shape = random_shape(random)};
    SliceOptions slice{.index = 0,
                       .count = static_cast<uint32_t>(1 + random() % 7),
                       .dim = static_cast<int>(random() % 3)};
    const uint64_t position = random() % 10;
    uint64_t elements = 0;
    std::vector<Box> boxes;
    for (slice.index = 0; slice.index < slice.count; ++slice.index) {
      const auto box = slice_box(spec, position, slice);
      if (!box) continue;
      ASSERT_TRUE(contains(spec.shape, *box));
      for (const Box& other : boxes) {
        const uint64_t common = intersect(other, *box).elements();
        ASSERT_EQ(common, 0u) << "round " << round;
      }
      boxes.push_back(*box);
      elements += box->elements();
    }
    ASSERT_EQ(elements, Box::whole(spec.shape).elements()) << "round " << round;
  }
}

TEST(PathBelow, NeverLeavesTheRoot) {
  EXPECT_EQ(path_below("/out", "a/b.json").value(), "/out/a/b.json");
  EXPECT_EQ(path_below("/out", "..a").value(), "/out/..a");
  for (const char* bad : {"", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "./x", "a/"}) {
    EXPECT_EQ(path_below("/out", bad).status().code(), StatusCode::kCorruption) << bad;
  }
}

}  // namespace
}  // namespace caisson

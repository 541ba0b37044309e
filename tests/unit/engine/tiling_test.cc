#include "engine/tiling.h"

#include <gtest/gtest.h>

#include "engine/format/chunk.h"
#include "tests/support/boxes.h"

namespace caisson {
namespace {

constexpr DType kBf16{DTypeCode::kBfloat, 16};
constexpr DType kF32{DTypeCode::kFloat, 32};
constexpr DType kF4{DTypeCode::kFloat4E2M1FN, 4};
constexpr DType kF6{DTypeCode::kFloat6E2M3FN, 6};

Shape shape_of(std::initializer_list<uint64_t> extents) {
  return Shape::of({extents.begin(), extents.size()});
}
// Another tile shape shares nothing with earlier checkpoints: a change of the rules must be meant.
TEST(ChooseTile, GivesKnownTilesForKnownShapes) {
  const std::pair<Shape, Shape> cases[] = {
      {Shape{}, Shape{}},
      {shape_of({4096}), shape_of({4096})},
      {shape_of({4096, 4096}), shape_of({512, 512})},
      {shape_of({1024, 4096}), shape_of({128, 1024})},
      {shape_of({512, 2048}), shape_of({64, 2048})},
      {shape_of({14336, 4096}), shape_of({896, 512})},
      {shape_of({4096, 14336}), shape_of({256, 1792})},
      {shape_of({128256, 4096}), shape_of({2004, 256})},
      {shape_of({16384, 16384}), shape_of({512, 1024})},
      {shape_of({8, 14336, 4096}), shape_of({1, 896, 512})},
      {shape_of({32, 4, 4096, 4096}), shape_of({1, 1, 512, 512})},
      {shape_of({512, 512, 3, 3}), shape_of({64, 256, 3, 3})},
      {shape_of({1000000007}), shape_of({524288})},
      {shape_of({50257, 768}), shape_of({1365, 384})},
      {shape_of({0, 5}), shape_of({1, 1})},
  };
  for (const auto& [shape, tile] : cases) {
    EXPECT_EQ(choose_tile(shape, kBf16), tile)
        << to_string(shape) << " gives " << to_string(choose_tile(shape, kBf16)) << ", not "
        << to_string(tile);
    EXPECT_EQ(choose_tile(shape, kF32), choose_tile(shape, kBf16)) << to_string(shape);
  }
}

TEST(ByteCut, FindsWhereBytesEnd) {
  const auto cut = [](std::initializer_list<uint64_t> extents, DType dtype) {
    return byte_cut({extents.begin(), extents.size()}, dtype);
  };
  EXPECT_EQ(cut({4, 6}, kF4)->axis, 1);
  EXPECT_EQ(cut({4, 6}, kF4)->step, 2u);
  EXPECT_EQ(cut({4, 3}, kF4)->axis, 0);  // two rows make three bytes
  EXPECT_EQ(cut({4, 3}, kF4)->step, 2u);
  EXPECT_EQ(cut({6, 6}, kF6)->axis, 0);
  EXPECT_EQ(cut({6, 6}, kF6)->step, 2u);
  EXPECT_FALSE(cut({3, 3}, kF4).has_value());
  EXPECT_FALSE(cut({}, kF4).has_value());
  EXPECT_EQ(cut({3, 3}, kBf16)->axis, 1);
}

TEST(CheckBox, RefusesBoxesThatCutBytes) {
  const TensorSpec rows{"w", kF4, shape_of({4, 3})};
  EXPECT_TRUE(check_box(rows, Box::whole(rows.shape)).ok());
  EXPECT_TRUE(check_box(rows, box_of({2, 0}, {2, 3})).ok());
  EXPECT_TRUE(check_box(rows, box_of({1, 1}, {0, 0})).ok());
  EXPECT_EQ(check_box(rows, box_of({1, 0}, {2, 3})).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(check_box(rows, box_of({0, 0}, {2, 2})).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(check_box(rows, box_of({0, 0}, {5, 3})).code(), StatusCode::kInvalidArgument);
  const TensorSpec odd{"w", kF4, shape_of({3, 3})};
  EXPECT_EQ(check_box(odd, Box::whole(odd.shape)).code(), StatusCode::kInvalidArgument);
  // One uncuttable row pair would be more than a chunk.
  const TensorSpec wide{"w", kF4, shape_of({2, (1ull << 26) + 1})};
  EXPECT_EQ(check_box(wide, Box::whole(wide.shape)).code(), StatusCode::kInvalidArgument);
}

TEST(CheckGrid, RefusesHostileGrids) {
  const TensorSpec tensor{"w", kF4, shape_of({64, 64})};
  const Box box = box_of({8, 8}, {16, 16});
  PieceGrid grid;
  grid.rank = 2;
  grid.cell = {4, 4};
  EXPECT_TRUE(check_grid(tensor, box, grid).ok());
  grid.cell = {4, 0};
  EXPECT_FALSE(check_grid(tensor, box, grid).ok());
  grid.cell = {4, 5};
  EXPECT_FALSE(check_grid(tensor, box, grid).ok());
  grid.cell = {4, 4};
  grid.origin = {9, 0};
  EXPECT_FALSE(check_grid(tensor, box, grid).ok());
  grid.origin = {0, 1};
  EXPECT_FALSE(check_grid(tensor, box, grid).ok());
  const TensorSpec large{"w", kF32, shape_of({1 << 20, 64})};
  grid.origin = {};
  grid.cell = {UINT64_MAX, UINT64_MAX};
  EXPECT_FALSE(check_grid(large, Box::whole(large.shape), grid).ok());
  grid.cell = {1 << 16, 64};
  EXPECT_TRUE(check_grid(large, Box::whole(large.shape), grid).ok());
}

TEST(ChoosePieces, KeepsTheTileGridForWholeTilesAndMergesSlivers) {
  const Shape shape = shape_of({16384, 16384});
  const Shape tile = choose_tile(shape, kF32);
  const Box tensor_parallel = box_of({0, 2048}, {16384, 2048});
  EXPECT_EQ(choose_pieces(shape, kF32, tile, tensor_parallel).cell[0], tile.dims[0]);
  // One of 1,024 ranks that split the rows: 16 slivers would be 64 KiB each.
  const Box sliver = box_of({160, 0}, {16, 16384});
  const PieceGrid grid = choose_pieces(shape, kF32, tile, sliver);
  EXPECT_EQ(grid.origin[0], 160u);
  EXPECT_EQ(piece_count(grid, sliver), 1u);
}

TEST(PiecesOfReplica, DividesAllPieces) {
  for (const uint64_t pieces : {uint64_t{0}, uint64_t{1}, uint64_t{7}, uint64_t{1} << 62}) {
    for (const uint32_t count : {1u, 3u, 8u, UINT32_MAX}) {
      uint64_t next = 0;
      for (uint32_t i = 0; i < std::min(count, 8u); ++i) {
        const PieceRange range = pieces_of_replica(pieces, {i, count});
        EXPECT_EQ(range.first, next);
        next = range.first + range.count;
      }
      const PieceRange last = pieces_of_replica(pieces, {count - 1, count});
      EXPECT_EQ(last.first + last.count, pieces);
    }
  }
}

TEST(ContiguousStrides, AreBytes) {
  EXPECT_EQ(contiguous_strides(box_of({0, 0}, {3, 5}), kF32), (std::vector<int64_t>{20, 4}));
  EXPECT_EQ(contiguous_strides(box_of({0, 0}, {3, 6}), kF4), (std::vector<int64_t>{3, 0}));
}

}  // namespace
}  // namespace caisson

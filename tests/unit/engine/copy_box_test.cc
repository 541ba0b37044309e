#include "engine/copy_box.h"

#include <gtest/gtest.h>

#include <numeric>

#include "engine/tiling.h"
#include "tests/support/boxes.h"

namespace caisson {
namespace {

constexpr DType kU8{DTypeCode::kUInt, 8};
constexpr DType kF4{DTypeCode::kFloat4E2M1FN, 4};

ByteVector counting(size_t size) {
  ByteVector bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}
std::vector<int> gathered(const BoxMemory& from, const Box& piece, DType dtype, size_t size) {
  ByteVector to(size);
  gather(from, piece, dtype, to);
  std::vector<int> values;
  for (const std::byte value : to) values.push_back(std::to_integer<int>(value));
  return values;
}

TEST(CopyBox, GathersAPieceOfAMatrix) {
  ByteVector memory = counting(16);
  const Box box = box_of({10, 20}, {4, 4});
  const BoxMemory from{box, memory.data(), contiguous_strides(box, kU8)};
  EXPECT_EQ(gathered(from, box_of({11, 21}, {2, 2}), kU8, 4), (std::vector<int>{5, 6, 9, 10}));
}

TEST(CopyBox, FollowsStridesOfAnySign) {
  ByteVector memory = counting(16);
  const Box box = box_of({0, 0}, {4, 4});
  const BoxMemory transposed{box, memory.data(), {1, 4}};
  EXPECT_EQ(gathered(transposed, box_of({0, 0}, {2, 2}), kU8, 4), (std::vector<int>{0, 4, 1, 5}));
  const BoxMemory flipped{box, memory.data() + 15, {-4, -1}};
  EXPECT_EQ(gathered(flipped, box_of({0, 0}, {1, 4}), kU8, 4), (std::vector<int>{15, 14, 13, 12}));
  const BoxMemory broadcast{box, memory.data(), {0, 1}};
  EXPECT_EQ(gathered(broadcast, box_of({1, 0}, {2, 2}), kU8, 4), (std::vector<int>{0, 1, 0, 1}));
}

TEST(CopyBox, HashesRunsOfEveryLength) {
  constexpr DType kBf16{DTypeCode::kBfloat, 16};
  for (const uint64_t columns : {1, 100, 127, 128, 300, 512, 777, 1024, 1500}) {
    const Box box = box_of({0, 0}, {40, 1600});
    ByteVector memory = counting(40 * 1600 * 2);
    for (size_t i = 0; i < memory.size(); i += 97) memory[i] ^= static_cast<std::byte>(i >> 8);
    const BoxMemory from{box, memory.data(), contiguous_strides(box, kBf16)};
    const Box piece = box_of({3, 7}, {33, columns});
    ByteVector packed(33 * columns * 2);
    gather(from, piece, kBf16, packed);
    ByteVector hashed(packed.size());
    EXPECT_EQ(gather_hashed(from, piece, kBf16, hashed, CopyStores::kPastCaches),
              digest_of(packed));
    EXPECT_EQ(hashed, packed) << columns;
    const auto in_place = digest_in_place(from, piece, kBf16);
    EXPECT_EQ(in_place.has_value(), columns >= 128) << columns;
    EXPECT_EQ(in_place.value_or(digest_of(packed)), digest_of(packed)) << columns;

    // And back, at the other end of the matrix; around it nothing moves.
    ByteVector placed(memory.size()), expected(memory.size());
    const BoxMemory to{box, placed.data(), from.strides_bytes};
    const Box there = box_of({7, 1600 - columns}, {33, columns});
    const auto digest = scatter_hashed(packed, there, kBf16, to);
    EXPECT_EQ(digest.has_value(), columns >= 128) << columns;
    EXPECT_EQ(digest.value_or(digest_of(packed)), digest_of(packed)) << columns;
    if (digest) scatter(packed, there, kBf16, {box, expected.data(), from.strides_bytes});
    EXPECT_EQ(placed, expected) << columns;
    // A piece of which a part is not wanted is left alone.
    EXPECT_FALSE(scatter_hashed(packed, box_of({8, 0}, {33, columns}), kBf16, to));
    EXPECT_EQ(placed, expected) << columns;
  }
}

TEST(CopyBox, TakesPiecesThatLieSideBySideInOneSweep) {
  constexpr DType kBf16{DTypeCode::kBfloat, 16};
  const Box box = box_of({0, 0}, {40, 1600});
  ByteVector memory = counting(40 * 1600 * 2);
  for (size_t i = 0; i < memory.size(); i += 97) memory[i] ^= static_cast<std::byte>(i >> 8);
  const BoxMemory from{box, memory.data(), contiguous_strides(box, kBf16)};
  for (const uint64_t columns : {128, 300, 512}) {
    std::vector<Box> pieces;
    for (uint64_t at = 7; at + columns <= 1600; at += columns) {
      pieces.push_back(box_of({3, at}, {33, columns}));
    }
    ASSERT_EQ(count_side_by_side(from, pieces, kBf16), pieces.size());
    const size_t bytes = 33 * columns * 2;
    ByteVector packed(bytes * pieces.size());
    std::vector<Digest> digests(pieces.size()), in_place(pieces.size());
    gather_side_by_side(from, pieces, kBf16, packed, CopyStores::kPastCaches, digests);
    gather_side_by_side(from, pieces, kBf16, {}, CopyStores::kPastCaches, in_place);
    EXPECT_EQ(digests, in_place);
    for (size_t i = 0; i < pieces.size(); ++i) {
      ByteVector one(bytes);
      EXPECT_EQ(gather_hashed(from, pieces[i], kBf16, one, CopyStores::kCached), digests[i]);
      EXPECT_TRUE(std::equal(one.begin(), one.end(), packed.begin() + static_cast<long>(i * bytes)))
          << columns << " columns, piece " << i;
    }
  }
  const auto count = [&](std::initializer_list<Box> pieces) {
    return count_side_by_side(from, std::vector<Box>(pieces), kBf16);
  };
  const Box first = box_of({3, 0}, {8, 256});
  EXPECT_EQ(count({first, box_of({3, 256}, {8, 256}), box_of({3, 768}, {8, 256})}), 2u) << "a gap";
  EXPECT_EQ(count({first, box_of({4, 256}, {8, 256})}), 1u) << "a row lower";
  EXPECT_EQ(count({first, box_of({3, 256}, {7, 256})}), 1u) << "fewer rows";
  EXPECT_EQ(count({first, box_of({3, 256}, {8, 128})}), 1u) << "shorter runs";
  EXPECT_EQ(count({box_of({3, 0}, {8, 64}), box_of({3, 64}, {8, 64})}), 1u) << "runs too short";
  EXPECT_EQ(count({box_of({0, 0}, {8, 1600}), box_of({8, 0}, {8, 1600})}), 1u) << "contiguous";
}

TEST(CopyBox, ASampleSeesTheWholePieceAndNothingElse) {
  const Box box = box_of({0, 0}, {64, 4096});
  ByteVector memory = counting(64 * 4096);
  const BoxMemory from{box, memory.data(), contiguous_strides(box, kU8)};
  const Box piece = box_of({8, 1024}, {32, 2048});
  const auto sample = [&] { return sample_of(from, piece, kU8); };
  const uint64_t before = sample();
  const auto xor_box = [&](const Box& changed) {
    for (uint64_t row = 0; row < changed.extent[0]; ++row) {
      for (uint64_t column = 0; column < changed.extent[1]; ++column) {
        memory[(changed.offset[0] + row) * 4096 + changed.offset[1] + column] ^= std::byte{1};
      }
    }
  };
  // Every 16 KiB of it are looked at, the first and the last bytes among them.
  for (const Box& part :
       {box_of({8, 1024}, {1, 64}), box_of({39, 3008}, {1, 64}), box_of({16, 1024}, {16, 2048})}) {
    xor_box(part);
    EXPECT_NE(sample(), before) << to_string(part);
    xor_box(part);
    EXPECT_EQ(sample(), before);
  }
  xor_box(box_of({0, 0}, {64, 1024}));
  xor_box(box_of({0, 3072}, {64, 1024}));
  xor_box(box_of({40, 0}, {24, 4096}));
  EXPECT_EQ(sample(), before) << "looked beside the piece";
}

TEST(CopyBox, ScattersTheOverlapOnly) {
  ByteVector memory(4);
  const Box box = box_of({1, 1}, {2, 2});
  const ByteVector packed = counting(9);
  scatter(packed, box_of({0, 0}, {3, 3}), kU8, {box, memory.data(), contiguous_strides(box, kU8)});
  EXPECT_EQ(memory, (ByteVector{std::byte{4}, std::byte{5}, std::byte{7}, std::byte{8}}));
  scatter(packed, box_of({3, 3}, {3, 3}), kU8, {box, memory.data(), contiguous_strides(box, kU8)});
  EXPECT_EQ(memory[0], std::byte{4});
}

TEST(CopyBox, TreatsSubByteTypesAsBytes) {
  ByteVector memory = counting(12);  // 4 x 6 elements of 4 bits, then 8 x 3
  const Box rows = box_of({0, 0}, {4, 6});
  const BoxMemory even{rows, memory.data(), contiguous_strides(rows, kF4)};
  EXPECT_EQ(gathered(even, box_of({1, 2}, {2, 4}), kF4, 4), (std::vector<int>{4, 5, 7, 8}));
  const Box odd_rows = box_of({0, 0}, {8, 3});
  const BoxMemory odd{odd_rows, memory.data(), contiguous_strides(odd_rows, kF4)};
  EXPECT_EQ(gathered(odd, box_of({2, 0}, {2, 3}), kF4, 3), (std::vector<int>{3, 4, 5}));
}

TEST(CopyBox, CopiesScalarsAndNothing) {
  ByteVector memory = counting(1);
  EXPECT_EQ(gathered({Box{}, memory.data(), {}}, Box{}, kU8, 1), (std::vector<int>{0}));
  const Box empty = box_of({0}, {0});
  gather({empty, nullptr, {1}}, empty, kU8, {});
  scatter({}, empty, kU8, {empty, nullptr, {1}});
  EXPECT_TRUE(contiguous_piece({empty, nullptr, {1}}, empty, kU8).empty());
}

TEST(ContiguousPiece, IsFoundWhereItIs) {
  ByteVector memory = counting(16);
  const Box box = box_of({0, 0}, {4, 4});
  const BoxMemory from{box, memory.data(), contiguous_strides(box, kU8)};
  const Bytes rows = contiguous_piece(from, box_of({1, 0}, {2, 4}), kU8);
  EXPECT_EQ(rows.data(), memory.data() + 4);
  EXPECT_EQ(rows.size(), 8u);
  EXPECT_EQ(contiguous_piece(from, box_of({1, 1}, {1, 3}), kU8).size(), 3u);
  EXPECT_TRUE(contiguous_piece(from, box_of({1, 1}, {2, 3}), kU8).empty());
}

}  // namespace
}  // namespace caisson

// Properties of tiles, pieces and strided copies, against references too plain to be wrong.
#include <gtest/gtest.h>

#include <numeric>

#include "engine/copy_box.h"
#include "engine/format/chunk.h"
#include "tests/property/random_tensors.h"

namespace caisson {
namespace {

std::string describe(uint64_t seed, const TensorSpec& spec, const Box& box, const PieceGrid& grid) {
  Box cells;
  cells.rank = grid.rank;
  cells.offset = grid.origin;
  cells.extent = grid.cell;
  return "CAISSON_SEED=" + std::to_string(seed) + " " + dtype_name(spec.dtype) + " " +
         to_string(spec.shape) + " box " + to_string(box) + " first cell " + to_string(cells);
}

// Calls `visit` with the coordinates of every element of the box, in row-major order.
template <typename Visit>
void for_each_element(const Box& box, Visit visit) {
  std::array<uint64_t, kRankMax> at = box.offset;
  for (uint64_t i = 0; i < box.elements(); ++i) {
    visit(at);
    for (size_t axis = static_cast<size_t>(box.rank); axis-- > 0;) {
      if (++at[axis] < box.offset[axis] + box.extent[axis]) break;
      at[axis] = box.offset[axis];
    }
  }
}

uint64_t index_in(const Box& box, const std::array<uint64_t, kRankMax>& at) {
  uint64_t index = 0;
  for (size_t i = 0; i < static_cast<size_t>(box.rank); ++i) {
    index = index * box.extent[i] + (at[i] - box.offset[i]);
  }
  return index;
}

void expect_partition(const TensorSpec& spec, const Box& box, const PieceGrid& grid,
                      RandomTensors& random) {
  ASSERT_TRUE(check_grid(spec, box, grid).ok()) << check_grid(spec, box, grid).to_string();
  const uint64_t count = piece_count(grid, box);
  if (box.elements() == 0) {
    EXPECT_EQ(count, 0u);
    return;
  }
  const Box wanted = random.box(spec, box);
  const std::vector<uint64_t> met = pieces_meeting(grid, box, wanted);
  std::vector<uint64_t> met_by_search;
  std::vector<int> times_held(box.elements());
  for (uint64_t index = 0; index < count; ++index) {
    const Box piece = piece_at(grid, box, index);
    ASSERT_TRUE(contains(box, piece));
    ASSERT_GT(piece.elements(), 0u);
    ASSERT_TRUE(packed_bytes(piece.elements(), spec.dtype).ok());
    ASSERT_EQ(find_piece(grid, box, piece), index);
    for_each_element(piece, [&](const auto& at) { ++times_held[index_in(box, at)]; });
    if (intersect(piece, wanted).elements() > 0) met_by_search.push_back(index);
    Box other = random.box(spec, piece);
    if (other != piece) {
      ASSERT_EQ(find_piece(grid, box, other), std::nullopt);
    }
  }
  for (const int times : times_held) ASSERT_EQ(times, 1);
  ASSERT_EQ(met, met_by_search);
}

TEST(Pieces, PartitionTheirBox) {
  for (const uint64_t seed : seeds(3000)) {
    RandomTensors random(seed);
    const TensorSpec spec = random.tensor(2000);
    const Box box = random.box(spec);
    const PieceGrid grid = random.grid(spec, box);
    SCOPED_TRACE(describe(seed, spec, box, grid));
    ASSERT_TRUE(check_box(spec, box).ok()) << check_box(spec, box).to_string();
    ASSERT_NO_FATAL_FAILURE(expect_partition(spec, box, grid, random));
  }
}

// Chosen tiles and grids, of tensors too large to visit element by element: pieces are clipped
// cells, distinct by find_piece, so equal volumes prove a partition.
TEST(Pieces, OfChosenGridsAreSoundAndOfSensibleSize) {
  for (const uint64_t seed : seeds(3000)) {
    RandomTensors random(seed);
    const TensorSpec spec = random.tensor(uint64_t{1} << 29);
    const Box box = random.box(spec);
    if (!check_box(spec, box).ok()) continue;  // rows too long to be cut at bytes
    const Shape tile = choose_tile(spec.shape, spec.dtype);
    const PieceGrid grid = choose_pieces(spec.shape, spec.dtype, tile, box);
    SCOPED_TRACE(describe(seed, spec, box, grid) + " tile " + to_string(tile));
    ASSERT_TRUE(check_grid(spec, box, grid).ok()) << check_grid(spec, box, grid).to_string();
    const uint64_t elements = element_count(spec.shape).value();
    if (spec.dtype.bits % 8 == 0 && elements > 0) {
      const uint64_t tile_elements = element_count(tile).value();
      EXPECT_LE(tile_elements, 512u << 10);
      EXPECT_GE(tile_elements, std::min<uint64_t>(elements, 128 << 10));
      // Blocks of 64 Ki elements would cover the box in this many pieces; twice that is still sane.
      EXPECT_LE(piece_count(grid, box), box.elements() / (64 << 10) * 4 + 4);
    }
    uint64_t volume = 0;
    const uint64_t count = piece_count(grid, box);
    for (uint64_t index = 0; index < count; ++index) {
      const Box piece = piece_at(grid, box, index);
      ASSERT_TRUE(contains(box, piece));
      ASSERT_EQ(find_piece(grid, box, piece), index);
      const Result<uint64_t> bytes = packed_bytes(piece.elements(), spec.dtype);
      ASSERT_TRUE(bytes.ok());
      ASSERT_LE(*bytes, format::kChunkRawBytesMax);
      volume += piece.elements();
    }
    ASSERT_EQ(volume, box.elements());
  }
}

TEST(BoxesOfRange, AreTheRange) {
  for (const uint64_t seed : seeds(2000)) {
    RandomTensors random(seed);
    const Shape shape = random.tensor(3000).shape;
    const uint64_t elements = element_count(shape).value();
    const uint64_t begin = random.between(0, elements);
    const uint64_t end = random.between(begin, elements);
    SCOPED_TRACE("CAISSON_SEED=" + std::to_string(seed) + " " + to_string(shape) + " " +
                 std::to_string(begin) + ".." + std::to_string(end));
    const std::vector<Box> boxes = boxes_of_range(shape, begin, end);
    EXPECT_LE(boxes.size(), static_cast<size_t>(std::max(1, 2 * shape.rank - 1)));
    uint64_t next = begin;
    for (const Box& box : boxes) {
      ASSERT_TRUE(contains(shape, box));
      for_each_element(box,
                       [&](const auto& at) { ASSERT_EQ(index_in(Box::whole(shape), at), next++); });
    }
    ASSERT_EQ(next, end);
  }
}

// Memory with random strides: any order of axes, gaps, backwards.
struct Memory {
  Memory(const Box& box, DType dtype, RandomTensors& random) {
    view.box = box;
    view.strides_bytes = contiguous_strides(box, dtype);
    uint64_t bytes = (box.elements() * dtype.bits + 7) / 8;
    uint64_t start = 0;
    if (dtype.bits % 8 == 0 && random.between(0, 2) > 0) {
      std::vector<size_t> axes(static_cast<size_t>(box.rank));
      std::iota(axes.begin(), axes.end(), size_t{0});
      for (size_t i = axes.size(); i > 1; --i)
        std::swap(axes[i - 1], axes[random.between(0, i - 1)]);
      bytes = dtype.bits / 8;
      for (const size_t axis : axes) {
        const uint64_t stride = bytes + (random.between(0, 3) == 0 ? random.between(0, 5) : 0);
        bytes = stride * std::max<uint64_t>(box.extent[axis], 1);
        view.strides_bytes[axis] = static_cast<int64_t>(stride);
        if (random.between(0, 3) == 0 && box.extent[axis] > 0) {
          view.strides_bytes[axis] = -static_cast<int64_t>(stride);
          start += stride * (box.extent[axis] - 1);
        }
      }
    }
    storage.resize(bytes);
    for (std::byte& byte : storage) byte = static_cast<std::byte>(random.between(0, 255));
    view.data = storage.data() + start;
  }
  ByteVector storage;
  BoxMemory view;
};

bool get_bit(const std::byte* from, uint64_t bit) {
  return (std::to_integer<unsigned>(from[bit / 8]) >> (bit % 8) & 1u) != 0;
}
void set_bit(std::byte* to, uint64_t bit, bool value) {
  const std::byte mask{static_cast<unsigned char>(1u << (bit % 8))};
  to[bit / 8] = value ? to[bit / 8] | mask : to[bit / 8] & ~mask;
}

// Copies one element at a time, one bit at a time: calls `copy(memory, memory_bit, packed_bit)`.
template <typename Copy>
void for_each_bit(const BoxMemory& memory, const Box& piece, const Box& part, DType dtype,
                  Copy copy) {
  for_each_element(part, [&](const auto& at) {
    std::byte* base = memory.data;
    uint64_t bit = 0;
    if (dtype.bits % 8 == 0) {
      for (size_t i = 0; i < static_cast<size_t>(part.rank); ++i) {
        base += static_cast<int64_t>(at[i] - memory.box.offset[i]) * memory.strides_bytes[i];
      }
    } else {
      bit = index_in(memory.box, at) * dtype.bits;
    }
    for (uint64_t i = 0; i < dtype.bits; ++i) {
      copy(base, bit + i, index_in(piece, at) * dtype.bits + i);
    }
  });
}

TEST(CopyBox, AgreesWithANaiveCopy) {
  for (const uint64_t seed : seeds(3000)) {
    RandomTensors random(seed);
    const TensorSpec spec = random.tensor(3000);
    const Box box = random.box(spec);
    if (box.elements() == 0) continue;
    const Box piece = random.box(spec, box);
    SCOPED_TRACE("CAISSON_SEED=" + std::to_string(seed) + " " + dtype_name(spec.dtype) + " " +
                 to_string(spec.shape) + " box " + to_string(box) + " piece " + to_string(piece));
    Memory source(box, spec.dtype, random);
    ByteVector packed(packed_bytes(piece.elements(), spec.dtype).value());
    ByteVector reference(packed.size());
    gather(source.view, piece, spec.dtype, packed);
    for_each_bit(source.view, piece, piece, spec.dtype,
                 [&](const std::byte* memory, uint64_t bit, uint64_t packed_bit) {
                   set_bit(reference.data(), packed_bit, get_bit(memory, bit));
                 });
    ASSERT_EQ(packed, reference);

    // The same bytes when they are hashed on the way, and the same digest in place.
    for (const CopyStores stores : {CopyStores::kCached, CopyStores::kPastCaches}) {
      ByteVector hashed(packed.size());
      ASSERT_EQ(gather_hashed(source.view, piece, spec.dtype, hashed, stores), digest_of(packed));
      ASSERT_EQ(hashed, packed);
    }
    if (const auto digest = digest_in_place(source.view, piece, spec.dtype)) {
      ASSERT_EQ(*digest, digest_of(packed));
    }
    const Bytes contiguous = contiguous_piece(source.view, piece, spec.dtype);
    if (!contiguous.empty()) {
      ASSERT_TRUE(std::equal(contiguous.begin(), contiguous.end(), packed.begin(), packed.end()));
    }

    // Into other memory of another box; bytes beside the overlap stay as they are.
    const Box target_box = random.box(spec);
    if (target_box.elements() == 0) continue;
    Memory target(target_box, spec.dtype, random);
    Memory expected = target;
    expected.view.data = expected.storage.data() + (target.view.data - target.storage.data());
    scatter(packed, piece, spec.dtype, target.view);
    for_each_bit(expected.view, piece, intersect(piece, target_box), spec.dtype,
                 [&](std::byte* memory, uint64_t bit, uint64_t packed_bit) {
                   set_bit(memory, bit, get_bit(packed.data(), packed_bit));
                 });
    ASSERT_EQ(target.storage, expected.storage);
  }
}

// Contiguous memory is always recognised as such: zero copies depend on it.
TEST(ContiguousPiece, OfContiguousMemoryIsFound) {
  for (const uint64_t seed : seeds(1000)) {
    RandomTensors random(seed);
    const TensorSpec spec = random.tensor(3000, false);
    const Box box = random.box(spec);
    if (box.elements() == 0) continue;
    SCOPED_TRACE("CAISSON_SEED=" + std::to_string(seed) + " " + to_string(box));
    ByteVector memory(packed_bytes(box.elements(), spec.dtype).value());
    const BoxMemory view{box, memory.data(), contiguous_strides(box, spec.dtype)};
    EXPECT_EQ(contiguous_piece(view, box, spec.dtype).size(), memory.size());
  }
}

}  // namespace
}  // namespace caisson

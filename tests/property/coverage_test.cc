// check_coverage against counting how often every element is held.
#include "engine/coverage.h"

#include <gtest/gtest.h>

#include <map>

#include "tests/property/random_tensors.h"

namespace caisson {
namespace {

// Random guillotine cuts of the box, so that many layouts are exact covers.
void split(const Box& box, RandomTensors& random, std::vector<Box>& boxes) {
  const size_t axis = random.between(0, static_cast<uint64_t>(box.rank - 1));
  if (box.extent[axis] < 2 || random.between(0, 4) == 0) {
    boxes.push_back(box);
    return;
  }
  const uint64_t at = random.between(1, box.extent[axis] - 1);
  Box low = box;
  Box high = box;
  low.extent[axis] = at;
  high.offset[axis] += at;
  high.extent[axis] -= at;
  split(low, random, boxes);
  split(high, random, boxes);
}

// Five boxes round a core, repeated: nothing that splits along an axis.
void pinwheels(const Shape& shape, std::vector<Box>& boxes) {
  const uint64_t offsets[5][4] = {
      {0, 0, 1, 2}, {0, 2, 2, 1}, {2, 1, 1, 2}, {1, 0, 2, 1}, {1, 1, 1, 1}};
  for (uint64_t x = 0; x + 3 <= shape.dims[0]; x += 3) {
    for (uint64_t y = 0; y + 3 <= shape.dims[1]; y += 3) {
      for (const auto& [dx, dy, ex, ey] : offsets) {
        Box box;
        box.rank = 2;
        box.offset = {x + dx, y + dy};
        box.extent = {ex, ey};
        boxes.push_back(box);
      }
    }
  }
}

ShardRecord shard_of(const Box& box, const PieceGrid& grid, uint32_t part, PieceRange range) {
  return {
      .part = part, .box = box, .grid = grid, .first_piece = range.first, .pieces = range.count};
}

// How often each element of the tensor is stored.
std::map<std::vector<uint64_t>, int> count_elements(const TensorRecord& tensor) {
  std::map<std::vector<uint64_t>, int> times;
  for (const ShardRecord& shard : tensor.shards) {
    for (uint64_t i = shard.first_piece; i < shard.first_piece + shard.pieces; ++i) {
      const Box piece = piece_at(shard.grid, shard.box, i);
      for (uint64_t e = 0; e < piece.elements(); ++e) {
        std::vector<uint64_t> at(static_cast<size_t>(piece.rank));
        uint64_t rest = e;
        for (size_t axis = at.size(); axis-- > 0;) {
          at[axis] = piece.offset[axis] + rest % piece.extent[axis];
          rest /= piece.extent[axis];
        }
        ++times[at];
      }
    }
  }
  return times;
}

// REQUIRES: replicas of one box share a grid and differing boxes never share pieces, as below.
bool is_covered(const TensorRecord& tensor) {
  const auto times = count_elements(tensor);
  if (times.size() != element_count(tensor.spec.shape).value()) return false;
  for (const auto& [at, count] : times) {
    if (count != 1) return false;
  }
  return true;
}

// One thing wrong, or several, or none.
void damage(TensorRecord& tensor, RandomTensors& random) {
  for (uint64_t i = random.between(0, 2); i > 0 && !tensor.shards.empty(); --i) {
    const size_t victim = random.between(0, tensor.shards.size() - 1);
    ShardRecord& shard = tensor.shards[victim];
    const size_t axis = random.between(0, static_cast<uint64_t>(shard.box.rank - 1));
    switch (random.between(0, 3)) {
      case 0:
        tensor.shards.erase(tensor.shards.begin() + static_cast<ptrdiff_t>(victim));
        break;
      case 1:
        tensor.shards.push_back(ShardRecord(shard));
        break;
      case 2:
        if (shard.pieces > 0) --shard.pieces;
        break;
      default:  // moved by one: what is missing is as much as is held twice
        if (shard.box.offset[axis] == 0) break;
        --shard.box.offset[axis];
        shard.grid.origin = {};
        shard.first_piece = 0;
        shard.pieces = piece_count(shard.grid, shard.box);
    }
  }
}

TEST(Coverage, AgreesWithCounting) {
  std::vector<uint32_t> ranks(64);
  for (uint32_t i = 0; i < ranks.size(); ++i) ranks[i] = i;
  int covered = 0;
  int refused = 0;
  for (const uint64_t seed : seeds(3000)) {
    RandomTensors random(seed);
    TensorRecord tensor;
    tensor.spec = random.tensor(300, false);
    tensor.spec.dtype = {DTypeCode::kUInt, 8};
    std::vector<Box> boxes;
    if (random.between(0, 3) == 0 || tensor.spec.shape.rank == 0) {
      const uint64_t side = 3 * random.between(1, 4);
      tensor.spec.shape = Shape::of(std::vector<uint64_t>{side, side});
      pinwheels(tensor.spec.shape, boxes);
    } else {
      split(Box::whole(tensor.spec.shape), random, boxes);
    }
    for (const Box& box : boxes) {
      const PieceGrid grid = random.grid(tensor.spec, box);
      const uint32_t replicas = random.between(0, 3) == 0 ? 3 : 1;
      for (uint32_t i = 0; i < replicas; ++i) {
        const auto part = static_cast<uint32_t>(random.between(0, 63));
        const PieceRange range = pieces_of_replica(piece_count(grid, box), {i, replicas});
        tensor.shards.push_back(shard_of(box, grid, part, range));
      }
    }
    damage(tensor, random);
    std::string layout;
    for (const ShardRecord& shard : tensor.shards) {
      layout += "\n  part " + std::to_string(shard.part) + " " + to_string(shard.box) + " pieces " +
                std::to_string(shard.first_piece) + "+" + std::to_string(shard.pieces);
    }
    const Status status = check_coverage(tensor, ranks);
    ASSERT_EQ(status.ok(), is_covered(tensor))
        << "CAISSON_SEED=" << seed << " " << to_string(tensor.spec.shape) << layout << "\n"
        << status.to_string();
    ++(status.ok() ? covered : refused);
  }
  if (std::getenv("CAISSON_SEED") == nullptr) {
    EXPECT_GT(covered, 100);  // else the test tests little
    EXPECT_GT(refused, 100);
  }
}

}  // namespace
}  // namespace caisson

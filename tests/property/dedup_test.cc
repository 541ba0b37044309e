// What tiling is for, measured on the shapes of real models: how much of a second save is found at
// the same position in the first, and into how many chunks a checkpoint is cut. No payload: a piece
// is found when the earlier checkpoint has exactly that piece, which is what save asks. The figures
// are printed; docs/decisions/0001-tiling-and-pieces.md quotes them.
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>

#include "engine/tiling.h"

namespace caisson {
namespace {

constexpr DType kBf16{DTypeCode::kBfloat, 16};

struct Model {
  const char* name;
  uint64_t layers, hidden, ffn, heads, kv_heads, head_dim, vocab;
};
constexpr Model kModels[] = {
    {"Llama 3.2 1B", 16, 2048, 8192, 32, 8, 64, 128256},
    {"Llama 3.1 8B", 32, 4096, 14336, 32, 8, 128, 128256},
    {"Llama 3.1 70B", 80, 8192, 28672, 64, 8, 128, 128256},
    {"Llama 3.1 405B", 126, 16384, 53248, 128, 8, 128, 128256},
    {"Mistral 7B", 32, 4096, 14336, 32, 8, 128, 32000},
    {"Qwen2.5 7B", 28, 3584, 18944, 28, 4, 128, 152064},
};

struct Weight {
  const char* name;
  Shape shape;
  size_t parallel_axis;  // how tensor parallelism splits it
  uint64_t copies;       // of this shape in the model
};

Shape shape_of(std::initializer_list<uint64_t> extents) {
  return Shape::of({extents.begin(), extents.size()});
}

std::vector<Weight> weights_of(const Model& m) {
  const uint64_t q = m.heads * m.head_dim;
  const uint64_t kv = m.kv_heads * m.head_dim;
  return {{"q_proj", shape_of({q, m.hidden}), 0, m.layers},
          {"k_proj, v_proj", shape_of({kv, m.hidden}), 0, 2 * m.layers},
          {"o_proj", shape_of({m.hidden, q}), 1, m.layers},
          {"gate_proj, up_proj", shape_of({m.ffn, m.hidden}), 0, 2 * m.layers},
          {"down_proj", shape_of({m.hidden, m.ffn}), 1, m.layers},
          {"embed_tokens, lm_head", shape_of({m.vocab, m.hidden}), 0, 2}};
}

// The boxes of `ways` ranks that split one axis as torch.chunk does: the last may be smaller, or
// there may be fewer.
std::vector<Box> split(const Shape& shape, size_t axis, uint64_t ways) {
  std::vector<Box> boxes;
  const uint64_t chunk = (shape.dims[axis] + ways - 1) / ways;
  for (uint64_t begin = 0; begin < shape.dims[axis]; begin += chunk) {
    Box box = Box::whole(shape);
    box.offset[axis] = begin;
    box.extent[axis] = std::min(chunk, shape.dims[axis] - begin);
    boxes.push_back(box);
  }
  return boxes;
}

PieceGrid pieces_of(const Shape& shape, const Box& box) {
  return choose_pieces(shape, kBf16, choose_tile(shape, kBf16), box);
}

// The share of the elements of `now` that a checkpoint sharded as `before` already has.
double dedup_rate(const Shape& shape, const std::vector<Box>& before, const std::vector<Box>& now) {
  uint64_t found = 0;
  uint64_t all = 0;
  for (const Box& box : now) {
    const PieceGrid grid = pieces_of(shape, box);
    for (uint64_t i = 0; i < piece_count(grid, box); ++i) {
      const Box piece = piece_at(grid, box, i);
      all += piece.elements();
      for (const Box& held : before) {
        if (!contains(held, piece)) continue;
        if (find_piece(pieces_of(shape, held), held, piece)) found += piece.elements();
        break;
      }
    }
  }
  return static_cast<double>(found) / static_cast<double>(all);
}

constexpr uint64_t kWays[] = {4, 8, 2, 1, 8, 4};

// A tile has at least 128 Ki elements, so a matrix that may be split along either axis into 8 parts
// needs 64 times as many. The first axis comes first: along it, 8 times as many do.
bool is_large(const Weight& weight) {
  return element_count(weight.shape).value() >= uint64_t{64} * (128 << 10);
}

TEST(Dedup, TensorParallelResavesShareEverything) {
  for (const Model& model : kModels) {
    for (const Weight& weight : weights_of(model)) {
      if (weight.parallel_axis == 1 && !is_large(weight)) continue;
      for (size_t step = 0; step + 1 < std::size(kWays); ++step) {
        EXPECT_EQ(dedup_rate(weight.shape, split(weight.shape, weight.parallel_axis, kWays[step]),
                             split(weight.shape, weight.parallel_axis, kWays[step + 1])),
                  1.0)
            << model.name << " " << weight.name << " " << to_string(weight.shape) << " tile "
            << to_string(choose_tile(weight.shape, kBf16)) << " TP" << kWays[step] << " to TP"
            << kWays[step + 1];
      }
    }
  }
}

// Along the other axis too, and from one axis to the other.
TEST(Dedup, ReshardingAcrossAxesSharesEverything) {
  for (const Model& model : kModels) {
    for (const Weight& weight : weights_of(model)) {
      if (!is_large(weight)) continue;
      for (const uint64_t before : {1, 2, 4, 8}) {
        for (const uint64_t now : {1, 2, 4, 8}) {
          for (const size_t axis : {0, 1}) {
            EXPECT_EQ(dedup_rate(weight.shape, split(weight.shape, axis, before),
                                 split(weight.shape, 1, now)),
                      1.0)
                << model.name << " " << weight.name << " " << to_string(weight.shape) << " tile "
                << to_string(choose_tile(weight.shape, kBf16)) << " " << before << " along " << axis
                << " to " << now << " along 1";
          }
        }
      }
    }
  }
}

// Layers in one stacked tensor over pipeline stages, experts over expert-parallel ranks.
TEST(Dedup, PipelineAndExpertMovesShareEverything) {
  for (const Shape& shape : {shape_of({32, 4096, 4096}), shape_of({61, 1024, 7168}),
                             shape_of({256, 2048, 1408}), shape_of({8, 14336, 4096})}) {
    for (const uint64_t before : {1, 2, 3, 4, 8}) {
      for (const uint64_t now : {1, 2, 3, 5, 8}) {
        EXPECT_EQ(dedup_rate(shape, split(shape, 0, before), split(shape, 0, now)), 1.0)
            << to_string(shape) << " " << before << " to " << now;
      }
    }
  }
}

// Pieces that replicas store are those of one holder, however many replicas there were before.
TEST(Dedup, ReplicasStoreEachPieceOnceAndShareEverything) {
  for (const Shape& shape : {shape_of({4096}), shape_of({4096, 4096}), shape_of({128256, 4096})}) {
    const Box box = Box::whole(shape);
    const PieceGrid grid = pieces_of(shape, box);
    const uint64_t pieces = piece_count(grid, box);
    for (const uint32_t replicas : {1u, 3u, 8u, 1000u}) {
      uint64_t next = 0;
      uint64_t most = 0;
      for (uint32_t i = 0; i < replicas; ++i) {
        const PieceRange range = pieces_of_replica(pieces, {i, replicas});
        ASSERT_EQ(range.first, next);
        next += range.count;
        most = std::max(most, range.count);
      }
      EXPECT_EQ(next, pieces);
      EXPECT_LE(most, pieces / replicas + 1);  // evenly
    }
    EXPECT_EQ(dedup_rate(shape, {box}, {box}), 1.0);
  }
}

// A shard layout of 1,024-way FSDP2 re-saved as it was shares everything, though it cuts tiles.
TEST(Dedup, TheSameShardsAgainShareEverything) {
  for (const Shape& shape :
       {shape_of({16384, 16384}), shape_of({128256, 16384}), shape_of({1000, 7})}) {
    const std::vector<Box> boxes = split(shape, 0, 1024);
    EXPECT_EQ(dedup_rate(shape, boxes, boxes), 1.0) << to_string(shape);
  }
}

struct Cut {
  uint64_t chunks = 0;
  double elements = 0;
};

Cut cut_model(const Model& model, uint64_t ranks,
              const std::function<PieceGrid(const Shape&, const Box&)>& grid_of) {
  std::vector<Weight> weights = weights_of(model);
  weights.push_back({"norms", shape_of({model.hidden}), 0, 2 * model.layers + 1});
  Cut cut;
  for (const Weight& weight : weights) {
    for (const Box& box : split(weight.shape, 0, ranks)) {
      cut.chunks += weight.copies * piece_count(grid_of(weight.shape, box), box);
      cut.elements += static_cast<double>(weight.copies * box.elements());
    }
  }
  return cut;
}

TEST(ChunkCount, Of405BUnder1024WayFsdpIsAtMostTenMillion) {
  const Model& model = kModels[3];
  constexpr uint64_t kStates = 3;  // master weights and two moments, all fp32
  const Cut merged = cut_model(model, 1024, pieces_of);
  const Cut tiles_only = cut_model(model, 1024, [](const Shape& shape, const Box&) {
    return PieceGrid{.rank = shape.rank, .cell = choose_tile(shape, kBf16).dims};
  });
  const Cut unsharded = cut_model(model, 1, pieces_of);
  const auto print = [](const char* what, const Cut& cut) {
    std::printf("%-34s %6.2f million chunks, mean %7.1f KiB\n", what,
                static_cast<double>(cut.chunks * kStates) / 1e6,
                cut.elements * 4 / static_cast<double>(cut.chunks) / 1024);
  };
  std::printf("%s, fp32 weights and two moments, %.2f TB\n", model.name,
              merged.elements * 4 * kStates / 1e12);
  print("1,024-way FSDP2, merged", merged);
  print("1,024-way FSDP2, tile grid only", tiles_only);
  print("not sharded", unsharded);
  EXPECT_LE(merged.chunks * kStates, 10'000'000u);
  EXPECT_GT(tiles_only.chunks, 5 * merged.chunks);
  EXPECT_LE(unsharded.chunks * kStates, 10'000'000u);
}

// Resharding that does not fit the tiles: nothing to demand, but the record wants the figures.
TEST(Dedup, PrintsRatesOfOtherReshards) {
  const Model& model = kModels[1];
  struct Case {
    const char* what;
    uint64_t before, now;
    bool rows;  // all along axis 0, as FSDP does
  };
  for (const Case& c : {Case{"TP8 to TP16", 8, 16, false}, Case{"TP8 to TP6", 8, 6, false},
                        Case{"FSDP8 to FSDP16", 8, 16, true}, Case{"FSDP64 to FSDP8", 64, 8, true},
                        Case{"FSDP64 to FSDP64", 64, 64, true}}) {
    double shared = 0;
    double all = 0;
    for (const Weight& weight : weights_of(model)) {
      const size_t axis = c.rows ? 0 : weight.parallel_axis;
      const double elements =
          static_cast<double>(weight.copies * element_count(weight.shape).value());
      shared += elements * dedup_rate(weight.shape, split(weight.shape, axis, c.before),
                                      split(weight.shape, axis, c.now));
      all += elements;
    }
    std::printf("%s, %-18s %5.1f %% shared\n", model.name, c.what, 100 * shared / all);
    EXPECT_GE(shared, 0);
    EXPECT_LE(shared, all);
  }
}

}  // namespace
}  // namespace caisson

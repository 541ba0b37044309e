// Tiling: from a tensor's shape to its tile grid, and from a shard's box to pieces. Called by save
// (stage 1, tile), by restore planning and by the decoders, which check stored grids. Pure, hence
// thread-safe; integer arithmetic only, so every rank on every machine gets the same answer.
//
// The rules. Sizes are in elements, so that a bf16 weight, its fp32 master and its moments share
// their boxes. "May be cut" always obeys the byte rule: see byte_cut.
//
// Tile shape. T = 512 Ki elements is the target (256 Ki where an element has more than 64 bits, so
// that a tile fits a segment of a pack), F = 128 Ki the floor.
//   1. Start with the whole tensor as tile. A tensor without elements gets edge 1 everywhere.
//   2. Leading axes: while more than two axes are left and the slice of the first (the product
//      of the later extents) has at least F elements, that axis gets edge 1: experts, layers.
//   3. Sharding levels: each remaining axis in order takes the levels 2, 4, 8; then each takes 16.
//      To take a level is to halve the edge. An axis takes it where the extent is a multiple of the
//      level, it took every earlier level, the tile keeps F elements (2 F at level 16), and a
//      contiguous run of the edge (edge times later extents) keeps 256 elements.
//   4. Size: while the tile has more than T elements, for each remaining axis in order, with
//      f = ceil(tile / T): the least divisor q >= f of the edge, q <= 4 f, that keeps F elements,
//      divides the edge; without one, the largest edge with at most T elements is taken, or edge 1
//      and the next axis.
// A shard that is one of 2, 4 or 8 equal parts along an axis then consists of whole tiles, as far
// as the floor lets: 8 parts along the first axis take 8 F elements, along either of two axes 64 F.
//
// Pieces. A box is cut by the tile grid where that gives pieces of at least 64 Ki elements on
// average, or no more pieces than its own grid. Else (a shard of few rows cuts every tile of its
// rows) its own grid has its origin at the box's corner and cells that are runs of the box in
// row-major order, of at most 256 Ki elements (512 KiB of bf16), evened out along the axis they
// cut.
#include "engine/tiling.h"

#include <algorithm>
#include <numeric>

#include "engine/format/chunk.h"
#include "io/base/check.h"

namespace caisson {
namespace {

constexpr uint64_t kTileElementsTarget = 512 << 10;
constexpr uint64_t kTileElementsMin = 128 << 10;
constexpr uint64_t kRunElementsMin = 256;
constexpr uint64_t kClippedElementsMin = 64 << 10;
constexpr uint64_t kOwnElementsMax = 256 << 10;

uint64_t ceil_div(uint64_t a, uint64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

uint64_t product(std::span<const uint64_t> values) {
  uint64_t result = 1;
  for (const uint64_t value : values) result *= value;
  return result;
}

// The tile while it is being cut down: axes [first, end) may still be divided.
struct Tile {
  Shape shape;  // of the tensor
  Shape edge;
  ByteCut cut;
  uint64_t elements = 0;  // product of edges
  uint64_t elements_max = kTileElementsTarget;
  size_t first = 0;
  size_t end = 0;

  uint64_t step(size_t axis) const { return static_cast<int>(axis) == cut.axis ? cut.step : 1; }
  uint64_t slice(size_t axis) const { return product(shape.extents().subspan(axis + 1)); }
  void set_edge(size_t axis, uint64_t value) {
    elements = elements / edge.dims[axis] * value;
    edge.dims[axis] = value;
  }
};

// Rule 2.
void cut_leading_axes(Tile& tile) {
  while (tile.end - tile.first > 2 && tile.slice(tile.first) >= kTileElementsMin &&
         tile.step(tile.first) == 1) {
    tile.set_edge(tile.first, 1);
    ++tile.first;
  }
}

// Rule 3.
void take_level(Tile& tile, size_t axis, uint64_t level, uint64_t elements_min) {
  const uint64_t extent = tile.shape.dims[axis];
  const uint64_t edge = extent / level;
  const bool took_earlier_levels = tile.edge.dims[axis] == extent / (level / 2);
  if (took_earlier_levels && extent % level == 0 && edge % tile.step(axis) == 0 &&
      tile.elements / 2 >= elements_min && edge * tile.slice(axis) >= kRunElementsMin) {
    tile.set_edge(axis, edge);
  }
}
void take_sharding_levels(Tile& tile) {
  for (size_t axis = tile.first; axis < tile.end; ++axis) {
    for (const uint64_t level : {2, 4, 8}) take_level(tile, axis, level, kTileElementsMin);
  }
  for (size_t axis = tile.first; axis < tile.end; ++axis) {
    take_level(tile, axis, 16, 2 * kTileElementsMin);
  }
}

// Rule 4.
void cut_to_size(Tile& tile) {
  for (size_t axis = tile.first; axis < tile.end && tile.elements > tile.elements_max; ++axis) {
    const uint64_t step = tile.step(axis);
    const uint64_t edge = tile.edge.dims[axis];
    const uint64_t factor = ceil_div(tile.elements, tile.elements_max);
    uint64_t chosen = 0;
    for (uint64_t q = factor; q <= 4 * factor && q <= edge && chosen == 0; ++q) {
      if (tile.elements / q < kTileElementsMin) break;
      if (edge % q == 0 && edge / q % step == 0) chosen = edge / q;
    }
    if (chosen == 0) {
      const uint64_t fits = tile.elements_max / (tile.elements / edge);
      chosen = std::max(fits / step * step, step);
    }
    tile.set_edge(axis, chosen);
  }
}

// A grid of the box's own contiguous runs.
PieceGrid own_grid(DType dtype, const Box& box) {
  PieceGrid grid;
  grid.rank = box.rank;
  grid.origin = box.offset;
  grid.cell = box.extent;
  const std::optional<ByteCut> cut =
      byte_cut({box.extent.data(), static_cast<size_t>(box.rank)}, dtype);
  CAISSON_CHECK(cut.has_value());
  uint64_t elements = box.elements();
  for (int axis = 0; axis <= cut->axis && elements > kOwnElementsMax; ++axis) {
    uint64_t& cell = grid.cell[static_cast<size_t>(axis)];
    const uint64_t step = axis == cut->axis ? cut->step : 1;
    const uint64_t extent = cell;
    const uint64_t rest = elements / extent;
    cell = std::clamp(kOwnElementsMax / rest / step * step, step, extent);
    cell = align_up(ceil_div(extent, ceil_div(extent, cell)), step);
    elements = rest * cell;
  }
  return grid;
}

struct CellRange {
  uint64_t first = 0;
  uint64_t count = 0;
};

// The cells along one axis that meet [offset, offset + extent). REQUIRES: extent > 0.
CellRange cells_of(const PieceGrid& grid, size_t axis, uint64_t offset, uint64_t extent) {
  const uint64_t begin = offset - grid.origin[axis];
  const uint64_t first = begin / grid.cell[axis];
  return {first, (begin + extent - 1) / grid.cell[axis] - first + 1};
}

bool is_empty(const Box& box) {
  for (size_t i = 0; i < static_cast<size_t>(box.rank); ++i) {
    if (box.extent[i] == 0) return true;
  }
  return false;
}

// The part of cell `cell` along one axis that lies within the box.
void clip_cell(const PieceGrid& grid, const Box& box, size_t axis, uint64_t cell, Box& piece) {
  const uint64_t begin = grid.origin[axis] + cell * grid.cell[axis];
  const uint64_t box_end = box.offset[axis] + box.extent[axis];
  const uint64_t end = grid.cell[axis] > box_end - begin ? box_end : begin + grid.cell[axis];
  piece.offset[axis] = std::max(begin, box.offset[axis]);
  piece.extent[axis] = end - piece.offset[axis];
}

}  // namespace

std::optional<ByteCut> byte_cut(std::span<const uint64_t> extents, DType dtype) {
  const int rank = static_cast<int>(extents.size());
  if (dtype.bits % 8 == 0) return ByteCut{rank - 1, 1};
  const uint64_t group = 8 / std::gcd(uint64_t{dtype.bits}, uint64_t{8});  // elements a whole byte
  uint64_t inner = 1;
  for (int axis = rank - 1; axis >= 0; --axis) {
    const uint64_t with_axis = inner * extents[static_cast<size_t>(axis)];
    if (with_axis % group == 0) return ByteCut{axis, group / std::gcd(inner, group)};
    inner = with_axis;
  }
  return std::nullopt;
}

Shape choose_tile(const Shape& shape, DType dtype) {
  const uint64_t elements = element_count(shape).value();
  const std::optional<ByteCut> cut = byte_cut(shape.extents(), dtype);
  if (elements == 0 || !cut.has_value()) {
    Shape ones = shape;
    std::fill_n(ones.dims.begin(), shape.rank, uint64_t{1});
    return elements == 0 ? ones : shape;
  }
  Tile tile{.shape = shape,
            .edge = shape,
            .cut = *cut,
            .elements = elements,
            .elements_max = kTileElementsTarget / (dtype.bits > 64 ? 2 : 1),
            .first = 0,
            .end = static_cast<size_t>(cut->axis + 1)};
  cut_leading_axes(tile);
  take_sharding_levels(tile);
  cut_to_size(tile);
  return tile.edge;
}

PieceGrid choose_pieces(const Shape& shape, DType dtype, const Shape& tile, const Box& box) {
  CAISSON_CHECK(tile.rank == shape.rank && box.rank == shape.rank);
  PieceGrid tiles;
  tiles.rank = shape.rank;
  tiles.cell = tile.dims;
  if (is_empty(box)) return tiles;
  const uint64_t clipped = piece_count(tiles, box);
  CAISSON_CHECK(clipped > 0);  // of a box that is not empty
  if (box.elements() / clipped >= kClippedElementsMin) return tiles;
  const PieceGrid own = own_grid(dtype, box);
  return clipped <= piece_count(own, box) ? tiles : own;
}

Status check_box(const TensorSpec& tensor, const Box& box) {
  const auto refuse = [&](const std::string& why) {
    return invalid_argument("tensor \"" + tensor.name + "\": box " + to_string(box) + " " + why);
  };
  if (!contains(tensor.shape, box)) {
    return refuse("does not lie within shape " + to_string(tensor.shape));
  }
  if (is_empty(box) || tensor.dtype.bits % 8 == 0) return ok_status();
  const std::string bits = std::to_string(tensor.dtype.bits);
  const std::optional<ByteCut> cut = byte_cut(tensor.shape.extents(), tensor.dtype);
  if (!cut.has_value()) {
    return refuse("is of a tensor whose elements of " + bits + " bits are not whole bytes");
  }
  uint64_t unit = cut->step;
  for (int axis = cut->axis; axis < tensor.shape.rank; ++axis) {
    const size_t at = static_cast<size_t>(axis);
    const uint64_t step = axis == cut->axis ? cut->step : tensor.shape.dims[at];
    if (box.offset[at] % step != 0 || box.extent[at] % step != 0) {
      return refuse("cuts a byte: elements have " + bits + " bits, so dimension " +
                    std::to_string(axis) + " can be cut only at multiples of " +
                    std::to_string(step));
    }
    if (axis > cut->axis) unit *= step;
  }
  if (unit > uint64_t{format::kChunkRawBytesMax} * 8 / tensor.dtype.bits) {
    return refuse("is of a tensor whose rows of " + std::to_string(unit) + " elements of " + bits +
                  " bits are too long to be cut at bytes; save it as U8");
  }
  return ok_status();
}

Status check_grid(const TensorSpec& tensor, const Box& box, const PieceGrid& grid) {
  auto refuse = [&](std::string_view why) {
    return invalid_argument("tensor \"" + tensor.name + "\": the piece grid of box " +
                            to_string(box) + " " + std::string(why));
  };
  if (grid.rank != box.rank) return refuse("has another rank");
  if (tensor.dtype.bits == 0) return refuse("is of elements without bits");
  const size_t rank = static_cast<size_t>(box.rank);
  for (size_t i = 0; i < rank; ++i) {
    if (grid.cell[i] == 0) return refuse("has a cell without extent");
    if (grid.origin[i] > box.offset[i]) return refuse("starts after the box");
  }
  if (is_empty(box)) return ok_status();
  const std::optional<ByteCut> cut = byte_cut(tensor.shape.extents(), tensor.dtype);
  if (!cut.has_value()) return refuse("cuts a byte");
  uint64_t elements = 1;
  for (size_t i = 0; i < rank; ++i) {
    const CellRange cells = cells_of(grid, i, box.offset[i], box.extent[i]);
    const int axis = static_cast<int>(i);
    const uint64_t step = axis == cut->axis ? cut->step : 1;
    const bool cuts_byte =
        axis > cut->axis || grid.origin[i] % step != 0 || grid.cell[i] % step != 0;
    if (cells.count > 1 && cuts_byte) return refuse("cuts a byte");
    elements *= std::min(grid.cell[i], box.extent[i]);
  }
  const uint64_t elements_max = uint64_t{format::kChunkRawBytesMax} * 8 / tensor.dtype.bits;
  if (elements > elements_max) return refuse("has pieces of more than 16 MiB");
  return ok_status();
}

uint64_t piece_count(const PieceGrid& grid, const Box& box) {
  if (is_empty(box)) return 0;
  uint64_t count = 1;
  for (size_t i = 0; i < static_cast<size_t>(box.rank); ++i) {
    count *= cells_of(grid, i, box.offset[i], box.extent[i]).count;
  }
  return count;
}

Box piece_at(const PieceGrid& grid, const Box& box, uint64_t index) {
  Box piece;
  piece.rank = box.rank;
  for (size_t i = static_cast<size_t>(box.rank); i-- > 0;) {
    const CellRange cells = cells_of(grid, i, box.offset[i], box.extent[i]);
    clip_cell(grid, box, i, cells.first + index % cells.count, piece);
    index /= cells.count;
  }
  CAISSON_CHECK(index == 0);
  return piece;
}

std::optional<uint64_t> find_piece(const PieceGrid& grid, const Box& box, const Box& piece) {
  if (is_empty(piece) || !contains(box, piece)) return std::nullopt;
  uint64_t index = 0;
  Box found;
  found.rank = box.rank;
  for (size_t i = 0; i < static_cast<size_t>(box.rank); ++i) {
    const CellRange cells = cells_of(grid, i, box.offset[i], box.extent[i]);
    const uint64_t cell = (piece.offset[i] - grid.origin[i]) / grid.cell[i];
    clip_cell(grid, box, i, cell, found);
    index = index * cells.count + (cell - cells.first);
  }
  if (found != piece) return std::nullopt;
  return index;
}

std::vector<uint64_t> pieces_meeting(const PieceGrid& grid, const Box& box, const Box& wanted) {
  const Box common = intersect(box, wanted);
  std::vector<uint64_t> indices;
  if (is_empty(common)) return indices;
  indices.push_back(0);
  for (size_t i = 0; i < static_cast<size_t>(box.rank); ++i) {
    const CellRange all = cells_of(grid, i, box.offset[i], box.extent[i]);
    const CellRange met = cells_of(grid, i, common.offset[i], common.extent[i]);
    std::vector<uint64_t> next;
    next.reserve(indices.size() * met.count);
    for (const uint64_t outer : indices) {
      for (uint64_t cell = met.first; cell < met.first + met.count; ++cell) {
        next.push_back(outer * all.count + (cell - all.first));
      }
    }
    indices = std::move(next);
  }
  return indices;
}

PieceRange pieces_of_replica(uint64_t pieces, Replica replica) {
  CAISSON_CHECK(replica.count > 0 && replica.index < replica.count);
  // floor(pieces * index / count), in an order that does not overflow.
  auto share = [&](uint64_t index) {
    return pieces / replica.count * index + pieces % replica.count * index / replica.count;
  };
  const uint64_t first = share(replica.index);
  return {first, share(uint64_t{replica.index} + 1) - first};
}

std::vector<int64_t> contiguous_strides(const Box& box, DType dtype) {
  const size_t rank = static_cast<size_t>(box.rank);
  std::vector<int64_t> strides(rank, 0);
  uint64_t inner = 1;
  for (size_t i = rank; i-- > 0;) {
    const Result<uint64_t> bytes = packed_bytes(inner, dtype);
    if (bytes.ok()) strides[i] = static_cast<int64_t>(*bytes);
    inner *= box.extent[i];
  }
  return strides;
}

}  // namespace caisson

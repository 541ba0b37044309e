// The proof that a checkpoint is whole: the shards of each tensor hold every element exactly once.
// Called by the committer for every tensor before the commit record is written. Pure, hence
// thread-safe.
//
// How, for the shards of one tensor:
//   1. Each box lies within the tensor and its grid cuts it properly.
//   2. Shards of the same box are replicas: together they store every piece of it exactly once.
//   3. The distinct boxes do not overlap. They are split into groups that are apart along one axis,
//      then along the next, until each is alone. Layouts that people use fall apart in one round; a
//      group that does not (a pinwheel) is swept along its best axis.
//   4. Their volumes sum up to the tensor's: with 3, every element is held. Only when they do not
//   is
//      a missing box looked for, to be named.
#include "engine/coverage.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <optional>
#include <string>
#include <vector>

#include "engine/tiling.h"

namespace caisson {
namespace {

using Indices = std::span<uint32_t>;

uint64_t end_of(const Box& box, size_t axis) { return box.offset[axis] + box.extent[axis]; }

bool less(const Box& a, const Box& b) {
  for (size_t i = 0; i < static_cast<size_t>(a.rank); ++i) {
    if (a.offset[i] != b.offset[i]) return a.offset[i] < b.offset[i];
    if (a.extent[i] != b.extent[i]) return a.extent[i] < b.extent[i];
  }
  return false;
}

bool overlap(const Box& a, const Box& b) {
  for (size_t i = 0; i < static_cast<size_t>(a.rank); ++i) {
    if (a.offset[i] >= end_of(b, i) || b.offset[i] >= end_of(a, i)) return false;
  }
  return true;
}

// Sorts an index by a key along one axis; the keys are beside the indices, so that the sort does
// not walk through the large records.
class Sorter {
 public:
  template <typename Key>
  void sort(Indices indices, Key key) {
    keyed_.clear();
    for (const uint32_t index : indices) keyed_.push_back({key(index), index});
    if (!std::is_sorted(keyed_.begin(), keyed_.end())) std::sort(keyed_.begin(), keyed_.end());
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = keyed_[i].second;
  }

 private:
  std::vector<std::pair<uint64_t, uint32_t>> keyed_;
};

class Check {
 public:
  Check(const TensorRecord& tensor, std::span<const uint32_t> rank_of_part)
      : tensor_(tensor),
        rank_of_part_(rank_of_part),
        axes_(static_cast<size_t>(tensor.spec.shape.rank)) {}

  Status run();

 private:
  const ShardRecord& shard(uint32_t index) const { return tensor_.shards[index]; }
  const Box& box(uint32_t index) const { return tensor_.shards[index].box; }
  std::string rank_name(uint32_t index) const;
  Status refuse(const std::string& what) const {
    return invalid_argument("tensor \"" + tensor_.spec.name + "\": " + what);
  }

  Status check_shard(uint32_t index) const;
  Status check_replicas(Indices same_box);
  Status missing_pieces(uint32_t holder, uint64_t first, uint64_t end) const;
  Status check_apart(Indices boxes, size_t axis, size_t axes_tried, int depth);
  Status sweep(Indices boxes);
  Status overlap_error(uint32_t a, uint32_t b) const;
  Box find_gap(std::vector<uint32_t> boxes) const;
  Status gap_error(const std::vector<uint32_t>& boxes) const;

  const TensorRecord& tensor_;
  std::span<const uint32_t> rank_of_part_;
  const size_t axes_;
  Sorter sorter_;
};

std::string Check::rank_name(uint32_t index) const {
  const uint32_t part = shard(index).part;
  if (part < rank_of_part_.size()) return "rank " + std::to_string(rank_of_part_[part]);
  return "part " + std::to_string(part);
}

Status Check::check_shard(uint32_t index) const {
  const ShardRecord& record = shard(index);
  Status status = check_box(tensor_.spec, record.box);
  if (status.ok()) status = check_grid(tensor_.spec, record.box, record.grid);
  if (!status.ok()) return status.with_context(rank_name(index));
  const uint64_t pieces = piece_count(record.grid, record.box);
  if (record.first_piece > pieces || record.pieces > pieces - record.first_piece) {
    return refuse(rank_name(index) + " claims pieces " + std::to_string(record.first_piece) +
                  " to " + std::to_string(record.first_piece + record.pieces) + " of box " +
                  to_string(record.box) + ", which has " + std::to_string(pieces));
  }
  return ok_status();
}

Status Check::overlap_error(uint32_t a, uint32_t b) const {
  if (shard(a).part > shard(b).part) std::swap(a, b);
  if (box(a) == box(b)) {
    return refuse("box " + to_string(box(a)) + " is held by " + rank_name(a) + " and again by " +
                  rank_name(b) + "; put it once, or declare it as replica i of n on each");
  }
  return refuse("box " + to_string(box(a)) + " of " + rank_name(a) + " and box " +
                to_string(box(b)) + " of " + rank_name(b) + " overlap in " +
                to_string(intersect(box(a), box(b))));
}

Status Check::missing_pieces(uint32_t holder, uint64_t first, uint64_t end) const {
  const ShardRecord& record = shard(holder);
  return refuse("nobody stores " + to_string(piece_at(record.grid, record.box, first)) +
                " (pieces " + std::to_string(first) + " to " + std::to_string(end) + " of box " +
                to_string(record.box) + ", of which " + rank_name(holder) +
                " is a replica); a replica is missing");
}

Status Check::check_replicas(Indices same_box) {
  const PieceGrid& grid = shard(same_box.front()).grid;
  const uint64_t pieces = piece_count(grid, box(same_box.front()));
  sorter_.sort(same_box, [&](uint32_t index) { return shard(index).first_piece; });
  uint64_t next = 0;
  uint32_t last = same_box.front();  // who stores the piece before `next`
  for (const uint32_t index : same_box) {
    const ShardRecord& record = shard(index);
    if (record.pieces == 0) continue;  // more replicas than pieces
    if (record.grid != grid) {
      return refuse(rank_name(same_box.front()) + " and " + rank_name(index) + " cut box " +
                    to_string(record.box) + " into different pieces");
    }
    if (record.first_piece > next) return missing_pieces(index, next, record.first_piece);
    if (record.first_piece < next) return overlap_error(last, index);
    next += record.pieces;
    last = index;
  }
  return next < pieces ? missing_pieces(last, next, pieces) : ok_status();
}

// Splits the boxes where no interval along `axis` crosses, and each group along the next axis.
// `axes_tried`: how many axes in a row have split nothing. Layouts that lose one box a round would
// recurse as deep as there are boxes: they are swept too.
Status Check::check_apart(Indices boxes, size_t axis, size_t axes_tried, int depth) {
  constexpr int kDepthMax = 64;
  if (boxes.size() < 2) return ok_status();
  if (axes_tried == axes_ || depth == kDepthMax) return sweep(boxes);
  sorter_.sort(boxes, [&](uint32_t index) { return box(index).offset[axis]; });
  size_t first = 0;
  uint64_t group_end = end_of(box(boxes[0]), axis);
  for (size_t i = 1; i <= boxes.size(); ++i) {
    if (i < boxes.size() && box(boxes[i]).offset[axis] < group_end) {
      group_end = std::max(group_end, end_of(box(boxes[i]), axis));
      continue;
    }
    const bool split = i - first < boxes.size();
    CAISSON_RETURN_IF_ERROR(check_apart(boxes.subspan(first, i - first), (axis + 1) % axes_,
                                        split ? 1 : axes_tried + 1, depth + 1));
    first = i;
    if (i < boxes.size()) group_end = end_of(box(boxes[i]), axis);
  }
  return ok_status();
}

// Compares each box with those that it meets along the axis where the fewest meet.
Status Check::sweep(Indices boxes) {
  size_t best = 0;
  double best_load = 0;
  for (size_t axis = 0; axis < axes_; ++axis) {
    uint64_t begin = UINT64_MAX;
    uint64_t end = 0;
    double sum = 0;
    for (const uint32_t index : boxes) {
      begin = std::min(begin, box(index).offset[axis]);
      end = std::max(end, end_of(box(index), axis));
      sum += static_cast<double>(box(index).extent[axis]);
    }
    const double load = sum / static_cast<double>(end - begin);
    if (axis == 0 || load < best_load) {
      best = axis;
      best_load = load;
    }
  }
  sorter_.sort(boxes, [&](uint32_t index) { return box(index).offset[best]; });
  std::vector<uint32_t> active;
  for (const uint32_t index : boxes) {
    const uint64_t begin = box(index).offset[best];
    std::erase_if(active, [&](uint32_t other) { return end_of(box(other), best) <= begin; });
    for (const uint32_t other : active) {
      if (overlap(box(index), box(other))) return overlap_error(other, index);
    }
    active.push_back(index);
  }
  return ok_status();
}

// A box that none of `boxes` meets. REQUIRES: they are apart and do not fill the tensor. Along each
// axis it finds the first slab between neighbouring box edges that is not filled, and looks into
// it.
Box Check::find_gap(std::vector<uint32_t> boxes) const {
  Box gap = Box::whole(tensor_.spec.shape);
  for (size_t axis = 0; axis < axes_; ++axis) {
    std::vector<uint64_t> edges{0, tensor_.spec.shape.dims[axis]};
    // What a box adds to the filled part of a slab's cross-section, where it begins and ends.
    std::vector<std::pair<uint64_t, uint64_t>> begins;
    std::vector<std::pair<uint64_t, uint64_t>> ends;
    uint64_t full = 1;
    for (size_t i = axis + 1; i < axes_; ++i) full *= tensor_.spec.shape.dims[i];
    for (const uint32_t index : boxes) {
      uint64_t area = 1;
      for (size_t i = axis + 1; i < axes_; ++i) area *= box(index).extent[i];
      begins.emplace_back(box(index).offset[axis], area);
      ends.emplace_back(end_of(box(index), axis), area);
      edges.push_back(begins.back().first);
      edges.push_back(ends.back().first);
    }
    for (auto* list : {&begins, &ends}) std::sort(list->begin(), list->end());
    std::sort(edges.begin(), edges.end());
    edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
    uint64_t filled = 0;
    size_t begun = 0;
    size_t ended = 0;
    for (size_t i = 0; i + 1 < edges.size(); ++i) {
      for (; begun < begins.size() && begins[begun].first <= edges[i]; ++begun) {
        filled += begins[begun].second;
      }
      for (; ended < ends.size() && ends[ended].first <= edges[i]; ++ended) {
        filled -= ends[ended].second;
      }
      if (filled == full) continue;
      gap.offset[axis] = edges[i];
      gap.extent[axis] = edges[i + 1] - edges[i];
      break;
    }
    std::erase_if(boxes, [&](uint32_t index) {
      return box(index).offset[axis] > gap.offset[axis] ||
             end_of(box(index), axis) <= gap.offset[axis];
    });
  }
  return gap;
}

Status Check::gap_error(const std::vector<uint32_t>& boxes) const {
  const std::string gap = to_string(find_gap(boxes));
  if (boxes.empty()) return refuse("no rank holds box " + gap + ", nor any other of it");
  std::vector<uint32_t> holders = boxes;
  std::sort(holders.begin(), holders.end(),
            [&](uint32_t a, uint32_t b) { return shard(a).part < shard(b).part; });
  constexpr size_t kNamed = 8;
  std::string ranks;
  size_t named = 0;
  for (size_t i = 0; i < holders.size(); ++i) {
    if (i > 0 && shard(holders[i]).part == shard(holders[i - 1]).part) continue;
    if (named == kNamed) {
      ranks += ", ...";
      break;
    }
    ranks += (named++ == 0 ? "" : ", ") + rank_name(holders[i]);
  }
  return refuse("no rank holds box " + gap + "; the rest is held by " + ranks);
}

Status Check::run() {
  const Result<uint64_t> elements = element_count(tensor_.spec.shape);
  if (!elements.ok()) return refuse(elements.status().to_string());
  std::vector<uint32_t> order;
  order.reserve(tensor_.shards.size());
  for (uint32_t i = 0; i < tensor_.shards.size(); ++i) {
    CAISSON_RETURN_IF_ERROR(check_shard(i));
    if (box(i).elements() > 0) order.push_back(i);
  }
  const auto before = [&](uint32_t a, uint32_t b) { return less(box(a), box(b)); };
  if (!std::is_sorted(order.begin(), order.end(), before)) {
    std::sort(order.begin(), order.end(), before);
  }
  std::vector<uint32_t> distinct;
  distinct.reserve(order.size());
  for (size_t first = 0; first < order.size();) {
    size_t end = first + 1;
    while (end < order.size() && box(order[end]) == box(order[first])) ++end;
    CAISSON_RETURN_IF_ERROR(check_replicas(Indices(order).subspan(first, end - first)));
    distinct.push_back(order[first]);
    first = end;
  }
  CAISSON_RETURN_IF_ERROR(check_apart(distinct, 0, 0, 0));
  uint64_t held = 0;  // no overflow: the boxes are apart within the tensor
  for (const uint32_t index : distinct) held += box(index).elements();
  return held == *elements ? ok_status() : gap_error(distinct);
}

}  // namespace

Status check_coverage(const TensorRecord& tensor, std::span<const uint32_t> rank_of_part) {
  if (tensor.kind == TensorKind::kAlias) return ok_status();
  return Check(tensor, rank_of_part).run();
}

}  // namespace caisson

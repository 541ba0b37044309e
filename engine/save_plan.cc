#include "engine/save_plan.h"

#include <utility>

#include "engine/twin_search.h"

namespace caisson {

namespace {

Status check_item(const SaveItem& item) {
  const TensorShard& shard = item.shard;
  CAISSON_RETURN_IF_ERROR(format::check_tensor_name(shard.tensor.name));
  if (item.kind == TensorKind::kAlias) {
    if (item.alias_of == shard.tensor.name) return invalid_argument("an alias of itself");
    return format::check_tensor_name(item.alias_of);
  }
  CAISSON_RETURN_IF_ERROR(check_dtype(shard.tensor.dtype));
  CAISSON_RETURN_IF_ERROR(element_count(shard.tensor.shape).status());
  CAISSON_RETURN_IF_ERROR(check_box(shard.tensor, shard.box));
  CAISSON_RETURN_IF_ERROR(packed_bytes(shard.box.elements(), shard.tensor.dtype).status());
  if (shard.data == nullptr && shard.box.elements() > 0) {
    return invalid_argument("no data for box " + to_string(shard.box));
  }
  if (shard.replica.count == 0 || shard.replica.index >= shard.replica.count) {
    return invalid_argument("replica " + std::to_string(shard.replica.index) + " of " +
                            std::to_string(shard.replica.count) + " is none: count from 0");
  }
  if (shard.strides_bytes.empty()) return ok_status();
  if (shard.strides_bytes.size() != static_cast<size_t>(shard.box.rank)) {
    return invalid_argument(std::to_string(shard.strides_bytes.size()) + " strides for " +
                            std::to_string(shard.box.rank) + " dimensions");
  }
  if (shard.tensor.dtype.bits % 8 != 0 &&
      shard.strides_bytes != contiguous_strides(shard.box, shard.tensor.dtype)) {
    return invalid_argument("elements of " + std::to_string(shard.tensor.dtype.bits) +
                            " bits must be contiguous; copy the tensor first");
  }
  return ok_status();
}

Result<uint64_t> bytes_of_pieces(const PlannedShard& shard, uint64_t pieces_in_box) {
  const DType dtype = shard.spec().dtype;
  if (shard.pieces == pieces_in_box) return packed_bytes(shard.box().elements(), dtype);
  uint64_t elements = 0;
  for (uint64_t i = 0; i < shard.pieces; ++i) {
    elements += piece_at(shard.grid, shard.box(), shard.first_piece + i).elements();
  }
  return packed_bytes(elements, dtype);
}

Result<PlannedShard> plan_item(const SaveItem& item, ParentDedup& parent) {
  const TensorShard& from = item.shard;
  CAISSON_RETURN_IF_ERROR(check_item(item));
  PlannedShard planned;
  planned.item = &item;
  if (item.kind == TensorKind::kAlias) return planned;
  const auto inherited = parent.tile_of(from.tensor);
  planned.tile = inherited ? *inherited : choose_tile(from.tensor.shape, from.tensor.dtype);
  planned.grid = choose_pieces(from.tensor.shape, from.tensor.dtype, planned.tile, from.box);
  const uint64_t pieces = piece_count(planned.grid, from.box);
  const PieceRange mine = pieces_of_replica(pieces, from.replica);
  planned.first_piece = mine.first;
  planned.pieces = mine.count;
  CAISSON_ASSIGN_OR_RETURN(planned.raw_bytes, bytes_of_pieces(planned, pieces));
  planned.is_one_piece = pieces == 1;
  planned.parent = parent.shard_of(from.tensor, planned.shard());
  return planned;
}

// A shard's entries follow those of the shard before it in the runs: those of twins, which are
// saved in turn, are then never far apart.
void lay_runs(SavePlan& plan, bool twins) {
  std::vector<std::optional<uint32_t>> twin_of(plan.shards.size());
  std::vector<bool> is_twin(plan.shards.size(), false);
  if (twins) {
    const auto bases = find_twin_bases(plan.shards);
    for (uint32_t i = 0; i < bases.size(); ++i) {
      is_twin[i] = bases[i].has_value();
      if (bases[i]) twin_of[*bases[i]] = i;
    }
  }
  uint64_t entry = plan.first_entry;
  const auto take_entries = [&](PlannedShard& shard) {
    shard.first_entry = entry;
    entry += shard.pieces;
  };
  for (uint32_t i = 0; i < plan.shards.size(); ++i) {
    if (is_twin[i] || plan.shards[i].item->kind == TensorKind::kAlias) continue;
    take_entries(plan.shards[i]);
    if (twin_of[i]) take_entries(plan.shards[*twin_of[i]]);
    const uint64_t units = plan.shards[i].pieces;
    if (units == 0) continue;
    plan.runs.push_back({.shard = i, .twin = twin_of[i], .first_unit = plan.units, .units = units});
    plan.units += units;
  }
  plan.pieces = entry - plan.first_entry;
}

}  // namespace

BoxMemory PlannedShard::memory() const {
  const TensorShard& from = item->shard;
  return {.box = from.box,
          .data = const_cast<std::byte*>(from.data),  // only read: gather
          .strides_bytes = from.strides_bytes.empty()
                               ? contiguous_strides(from.box, from.tensor.dtype)
                               : from.strides_bytes};
}

ShardRecord PlannedShard::shard() const {
  return {.part = 0,
          .box = box(),
          .grid = grid,
          .first_piece = first_piece,
          .pieces = pieces,
          .first_entry = first_entry};
}

TensorRecord PlannedShard::record() const {
  TensorRecord record{
      .spec = spec(), .kind = item->kind, .alias_of = item->alias_of, .tile = tile, .shards = {}};
  if (item->kind != TensorKind::kAlias) record.shards.push_back(shard());
  return record;
}

Result<SavePlan> plan_save(std::span<const SaveItem> items, ParentDedup& parent,
                           uint64_t first_entry, bool twins) {
  SavePlan plan;
  plan.first_entry = first_entry;
  plan.shards.reserve(items.size());
  for (const SaveItem& item : items) {
    Result<PlannedShard> planned = plan_item(item, parent);
    if (!planned.ok()) {
      return planned.status().with_context("tensor \"" + item.shard.tensor.name + "\"");
    }
    plan.raw_bytes += planned->raw_bytes;
    plan.shards.push_back(*planned);
  }
  lay_runs(plan, twins);
  return plan;
}

}  // namespace caisson

#include "engine/merged_records.h"

#include <algorithm>
#include <string>

#include "engine/tiling.h"

namespace caisson {

namespace {

constexpr size_t kKeptBytes = 1u << 20;  // of records, in one allocation

std::string rank_text(uint32_t rank) { return "rank " + std::to_string(rank); }

bool is_whole(const TensorRecord& record) {
  if (record.shards.size() != 1) return false;
  const ShardRecord& shard = record.shards.front();
  return shard.box == Box::whole(record.spec.shape) && shard.first_piece == 0 &&
         shard.pieces == piece_count(shard.grid, shard.box);
}

Status check_agreement(const TensorRecord& known, uint32_t known_rank, const TensorRecord& record,
                       uint32_t rank) {
  const auto differ = [&](const char* what) {
    const std::string who =
        known_rank == rank
            ? rank_text(rank) + " put it twice, and not with the same "
            : rank_text(known_rank) + " and " + rank_text(rank) + " disagree on its ";
    return invalid_argument("tensor \"" + record.spec.name + "\": " + who + what);
  };
  if (known.kind != record.kind) return differ("kind (tensor, blob or alias)");
  if (known.alias_of != record.alias_of) return differ("target");
  if (!(known.spec.dtype == record.spec.dtype)) return differ("element type");
  if (!(known.spec.shape == record.spec.shape)) return differ("shape");
  // Same shape, same parent, same rule: only ranks of different versions could differ here.
  if (!(known.tile == record.tile)) return differ("tile shape");
  return ok_status();
}

}  // namespace

Status MergedRecords::add(uint32_t rank, PartReader& part) {
  return part.for_each([&](const TensorRecord& record, Bytes encoded) {
    const bool is_alias = record.kind == TensorKind::kAlias;
    PartRecord kept{.name = {}, .encoded = keep(encoded), .rank = rank};
    kept.name = format::name_of_record(kept.encoded);
    // A shard of the first part names part 0 there, too.
    kept.stands = is_alias || (rank == 0 && is_whole(record));
    shards_ += record.shards.size();
    records_.push_back(kept);
    if (is_alias) aliases_.push_back(kept);
    return ok_status();
  });
}

Bytes MergedRecords::keep(Bytes encoded) {
  if (kept_.empty() || kept_.back().capacity() - kept_.back().size() < encoded.size()) {
    kept_.emplace_back().reserve(std::max(kKeptBytes, encoded.size()));
  }
  ByteVector& kept = kept_.back();
  kept.insert(kept.end(), encoded.begin(), encoded.end());
  return Bytes(kept).last(encoded.size());
}

Status MergedRecords::finish() {
  // Of one tensor the records stay in the order of ranks, and of puts.
  if (!std::ranges::is_sorted(records_, {}, &PartRecord::name)) {
    std::ranges::stable_sort(records_, {}, &PartRecord::name);
  }
  TensorRecord alias, target;
  for (const PartRecord& each : aliases_) {
    format::decode_record(each.encoded, alias);
    const PartRecord* const found = find(alias.alias_of);
    if (found != nullptr) format::decode_record(found->encoded, target);
    if (found == nullptr || target.kind != TensorKind::kTensor) {
      return invalid_argument("alias \"" + alias.spec.name + "\" names \"" + alias.alias_of +
                              "\", which is not a tensor of this save");
    }
  }
  return ok_status();
}

const MergedRecords::PartRecord* MergedRecords::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(records_, name, {}, &PartRecord::name);
  return found != records_.end() && found->name == name ? &*found : nullptr;
}

Status MergedRecords::for_each(const std::function<Status(const Tensor&)>& visit) const {
  TensorRecord merged, other;
  for (size_t first = 0, end = 0; first < records_.size(); first = end) {
    const PartRecord& record = records_[first];
    end = first + 1;
    while (end < records_.size() && records_[end].name == record.name) ++end;
    if (end == first + 1 && record.stands) {
      CAISSON_RETURN_IF_ERROR(visit({record.name, record.encoded, nullptr}));
      continue;
    }
    format::decode_record(record.encoded, merged);
    for (ShardRecord& shard : merged.shards) shard.part = record.rank;
    for (size_t i = first + 1; i < end; ++i) {
      const uint32_t rank = records_[i].rank;
      format::decode_record(records_[i].encoded, other);
      CAISSON_RETURN_IF_ERROR(check_agreement(merged, record.rank, other, rank));
      for (ShardRecord& shard : other.shards) shard.part = rank;
      merged.shards.insert(merged.shards.end(), other.shards.begin(), other.shards.end());
    }
    CAISSON_RETURN_IF_ERROR(visit({record.name, {}, &merged}));
  }
  return ok_status();
}

}  // namespace caisson

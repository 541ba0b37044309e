// See compare.h.
#include "client/cli/compare.h"

#include <algorithm>
#include <compare>
#include <tuple>
#include <unordered_set>

#include "engine/tiling.h"

namespace caisson::cli {
namespace {

constexpr size_t kChangeBytesMin = 10;  // as kept by the index

using IdSet = std::unordered_set<Digest, DigestHash>;

struct Piece {
  Box box;
  Digest id;
  uint64_t raw_bytes = 0;
};

bool box_before(const Piece& a, const Piece& b) {
  return std::tie(a.box.offset, a.box.extent) < std::tie(b.box.offset, b.box.extent);
}

// Every stored piece of a tensor, by place. Ranks that hold the same box as replicas store
// different pieces of it, so each piece comes once.
Result<std::vector<Piece>> pieces_of(Manifest& manifest, const TensorRecord& record) {
  std::vector<Piece> pieces;
  for (const ShardRecord& shard : record.shards) {
    if (shard.pieces == 0) continue;
    CAISSON_ASSIGN_OR_RETURN(const std::vector<format::ChunkEntry> entries,
                             manifest.entries(shard.part, shard.first_entry, shard.pieces));
    for (uint64_t i = 0; i < shard.pieces; ++i) {
      pieces.push_back({.box = piece_at(shard.grid, shard.box, shard.first_piece + i),
                        .id = entries[i].id,
                        .raw_bytes = entries[i].raw_bytes});
    }
  }
  std::sort(pieces.begin(), pieces.end(), box_before);
  return pieces;
}

Result<std::vector<TensorRecord>> records_of(Manifest& manifest) {
  std::vector<TensorRecord> records;
  CAISSON_RETURN_IF_ERROR(manifest.for_each([&records](const TensorRecord& record) {
    records.push_back(record);
    return ok_status();
  }));
  return records;
}

uint64_t raw_bytes_of(const std::vector<Piece>& pieces) {
  uint64_t bytes = 0;
  for (const Piece& piece : pieces) bytes += piece.raw_bytes;
  return bytes;
}

class Comparer {
 public:
  Comparer(Manifest& a, Manifest& b, const CompareBytes& compare_bytes)
      : a_(a), b_(b), compare_bytes_(compare_bytes) {}

  Result<Comparison> run() {
    CAISSON_ASSIGN_OR_RETURN(const std::vector<TensorRecord> before, records_of(a_));
    CAISSON_ASSIGN_OR_RETURN(const std::vector<TensorRecord> after, records_of(b_));
    for (const TensorRecord& record : before) {
      CAISSON_ASSIGN_OR_RETURN(const std::vector<Piece> pieces, pieces_of(a_, record));
      out_.raw_bytes_a += raw_bytes_of(pieces);
      for (const Piece& piece : pieces) ids_.insert(piece.id);
    }
    // Both are sorted by name: one walk over the two.
    auto left = before.begin();
    auto right = after.begin();
    while (left != before.end() || right != after.end()) {
      const bool only_left =
          right == after.end() || (left != before.end() && left->spec.name < right->spec.name);
      const bool only_right =
          !only_left && (left == before.end() || right->spec.name < left->spec.name);
      if (only_left) {
        add_one(Change::kRemoved, *left++);
      } else if (only_right) {
        CAISSON_RETURN_IF_ERROR(count_shared(*right).status());
        add_one(Change::kAdded, *right++);
      } else {
        CAISSON_RETURN_IF_ERROR(compare_records(*left++, *right++));
      }
    }
    return std::move(out_);
  }

 private:
  void add_one(Change change, const TensorRecord& record) {
    out_.changes.push_back({.change = change,
                            .name = record.spec.name,
                            .blob = record.kind == TensorKind::kBlob,
                            .before = record.spec,
                            .after = record.spec,
                            .changed_bytes = 0});
  }

  Result<std::vector<Piece>> count_shared(const TensorRecord& record) {
    CAISSON_ASSIGN_OR_RETURN(std::vector<Piece> pieces, pieces_of(b_, record));
    out_.raw_bytes_b += raw_bytes_of(pieces);
    for (const Piece& piece : pieces) {
      if (ids_.contains(piece.id)) out_.shared_bytes += piece.raw_bytes;
    }
    return pieces;
  }

  Status compare_records(const TensorRecord& before, const TensorRecord& after) {
    CAISSON_ASSIGN_OR_RETURN(const std::vector<Piece> new_pieces, count_shared(after));
    TensorChange change{.change = Change::kChanged,
                        .name = after.spec.name,
                        .blob = after.kind == TensorKind::kBlob,
                        .before = before.spec,
                        .after = after.spec,
                        .changed_bytes = 0};
    if (before.spec != after.spec || before.kind != after.kind ||
        before.alias_of != after.alias_of) {
      change.change =
          change.blob && before.kind == after.kind ? Change::kChanged : Change::kRetyped;
      change.changed_bytes = raw_bytes_of(new_pieces);
      out_.changes.push_back(std::move(change));
      return ok_status();
    }
    CAISSON_ASSIGN_OR_RETURN(const std::vector<Piece> old_pieces, pieces_of(a_, before));
    const bool same_cut =
        std::equal(old_pieces.begin(), old_pieces.end(), new_pieces.begin(), new_pieces.end(),
                   [](const Piece& x, const Piece& y) { return x.box == y.box; });
    if (same_cut) {
      for (size_t i = 0; i < new_pieces.size(); ++i) {
        if (old_pieces[i].id != new_pieces[i].id) change.changed_bytes += new_pieces[i].raw_bytes;
      }
    } else {
      CAISSON_ASSIGN_OR_RETURN(const bool equal, compare_bytes_(after.spec));
      if (!equal) change.changed_bytes = raw_bytes_of(new_pieces);
    }
    if (change.changed_bytes == 0) {
      ++out_.same_tensors;
    } else {
      out_.changes.push_back(std::move(change));
    }
    return ok_status();
  }

  Manifest& a_;
  Manifest& b_;
  const CompareBytes& compare_bytes_;
  IdSet ids_;
  Comparison out_;
};

// The name is the change's.
void put_spec(ByteWriter& out, const TensorSpec& spec) {
  out.put(static_cast<uint8_t>(spec.dtype.code));
  out.put(spec.dtype.bits);
  out.put_varint(spec.shape.extents().size());
  for (const uint64_t extent : spec.shape.extents()) out.put_varint(extent);
}

TensorSpec get_spec(ByteReader& in, const std::string& name) {
  TensorSpec spec{.name = name, .dtype = {}, .shape = {}};
  spec.dtype.code = static_cast<DTypeCode>(in.get<uint8_t>());
  spec.dtype.bits = in.get<uint8_t>();
  const uint64_t rank = in.get_count(1);
  if (rank > kRankMax) in.fail();
  std::vector<uint64_t> extents;
  for (uint64_t i = 0; i < rank && in.ok(); ++i) extents.push_back(in.get_varint());
  if (!in.ok() || !check_dtype(spec.dtype).ok()) {
    in.fail();
    return spec;
  }
  spec.shape = Shape::of(extents);
  return spec;
}

}  // namespace

void put_answer(ByteWriter& out, const Comparison& comparison) {
  for (const uint64_t total : {comparison.same_tensors, comparison.raw_bytes_a,
                               comparison.raw_bytes_b, comparison.shared_bytes}) {
    out.put(total);
  }
  out.put_varint(comparison.changes.size());
  for (const TensorChange& change : comparison.changes) {
    out.put(static_cast<uint8_t>(change.change));
    out.put(static_cast<uint8_t>(change.blob));
    out.put_string(change.name);
    put_spec(out, change.before);
    put_spec(out, change.after);
    out.put_varint(change.changed_bytes);
  }
}

void get_answer(ByteReader& in, Comparison& comparison) {
  for (uint64_t* total : {&comparison.same_tensors, &comparison.raw_bytes_a,
                          &comparison.raw_bytes_b, &comparison.shared_bytes}) {
    *total = in.get<uint64_t>();
  }
  const uint64_t changes = in.get_count(kChangeBytesMin);
  for (uint64_t i = 0; i < changes && in.ok(); ++i) {
    TensorChange& change = comparison.changes.emplace_back();
    const auto kind = in.get<uint8_t>();
    if (kind > static_cast<uint8_t>(Change::kChanged)) in.fail();
    change.change = static_cast<Change>(kind);
    change.blob = in.get<uint8_t>() != 0;
    change.name = in.get_string(in.remaining());
    change.before = get_spec(in, change.name);
    change.after = get_spec(in, change.name);
    change.changed_bytes = in.get_varint();
  }
}

Result<Comparison> compare_checkpoints(Manifest& a, Manifest& b,
                                       const CompareBytes& compare_bytes) {
  return Comparer(a, b, compare_bytes).run();
}

}  // namespace caisson::cli

// A block of either table:
//
//    0  8  checksum of all bytes after it, salted with (root's writer, offset of the block in the
//          root)
//    8  4  magic: "CSNP" packs, "CSNX" packs of parts
//   12  2  rows, at least 1
//   14  2  zero
//   16     rows: 61 bytes, a sealed reference; or 4, an index; then zeros up to 4096 bytes, except
//          in the last block of a table, which ends with its last row
#include "engine/format/pack_table.h"

#include <algorithm>
#include <string>

#include "engine/format/record.h"
#include "io/base/check.h"
#include "io/base/mutant.h"
#include "io/base/zeros.h"

namespace caisson::format {
namespace {

constexpr size_t kCheckedAt = 8;
constexpr size_t kMagicBytes = 4;
constexpr size_t kCountAt = 12;
constexpr size_t kReservedAt = 14;
constexpr size_t kRowsAt = 16;

struct PackRows {
  using Row = SealedRef;
  static constexpr std::string_view kMagic = "CSNP";
  static constexpr size_t kRowBytes = kSealedRefBytes;
  static constexpr size_t kPerBlock = kPacksPerBlock;
  static void put(ByteWriter& out, const Row& row) { put_sealed(out, row); }
  static Row get(ByteReader& in) { return get_sealed(in); }
};
struct PartPackRows {
  using Row = uint32_t;
  static constexpr std::string_view kMagic = "CSNX";
  static constexpr size_t kRowBytes = sizeof(uint32_t);
  static constexpr size_t kPerBlock = kPartPacksPerBlock;
  static void put(ByteWriter& out, Row row) { out.put<uint32_t>(row); }
  static Row get(ByteReader& in) { return in.get<uint32_t>(); }
};
static_assert(kRowsAt + kPacksPerBlock * kSealedRefBytes <= kTableBlockBytes);
static_assert(kRowsAt + kPartPacksPerBlock * sizeof(uint32_t) <= kTableBlockBytes);

template <typename Rows>
uint64_t table_bytes(uint64_t count) {
  const uint64_t rest = count % Rows::kPerBlock;
  return count / Rows::kPerBlock * kTableBlockBytes +
         (rest == 0 ? 0 : kRowsAt + rest * Rows::kRowBytes);
}

uint64_t checksum_of(const Uuid& writer, uint64_t offset, Bytes block) {
  return checksum64(block.subspan(kCheckedAt), salt_of(writer, offset));
}

template <typename Rows>
void put_table(ByteVector& to, const Uuid& writer, uint64_t offset,
               const std::vector<typename Rows::Row>& rows) {
  for (size_t first = 0; first < rows.size(); first += Rows::kPerBlock) {
    const size_t count = std::min(Rows::kPerBlock, rows.size() - first);
    ByteWriter block;
    block.put<uint64_t>(0);  // the checksum, below
    block.put_bytes(as_bytes(Rows::kMagic));
    block.put<uint16_t>(static_cast<uint16_t>(count));
    block.put<uint16_t>(0);
    for (size_t i = 0; i < count; ++i) Rows::put(block, rows[first + i]);
    if (count == Rows::kPerBlock) block.put_zeros(kTableBlockBytes - block.size());
    store_le(block.mutable_bytes().data(), checksum_of(writer, offset, block.bytes()));
    offset += block.size();
    to.insert(to.end(), block.bytes().begin(), block.bytes().end());
  }
}

template <typename Rows>
Result<std::vector<typename Rows::Row>> get_table(const Uuid& writer, uint64_t offset, Bytes blocks,
                                                  uint64_t count, std::string_view what) {
  const std::string where = std::string(what) + ": table of packs";
  // Before anything is reserved for `count`.
  if (count > blocks.size() / Rows::kRowBytes || table_bytes<Rows>(count) != blocks.size()) {
    return corrupt_at(where, offset, "has not the bytes that its rows take");
  }
  std::vector<typename Rows::Row> rows;
  rows.reserve(static_cast<size_t>(count));
  while (rows.size() < count) {
    const size_t expected = std::min<size_t>(Rows::kPerBlock, count - rows.size());
    const Bytes block = blocks.first(static_cast<size_t>(table_bytes<Rows>(expected)));
    if (load_le<uint64_t>(block.data()) != checksum_of(writer, offset, block) &&
        !CAISSON_MUTANT(pack_table_checksum)) {
      return corrupt_at(where, offset, "a block does not have its checksum");
    }
    if (as_text(block.subspan(kCheckedAt, kMagicBytes)) != Rows::kMagic ||
        load_le<uint16_t>(block.data() + kCountAt) != expected) {
      return corrupt_at(where, offset, "not the block that belongs here");
    }
    const size_t end = kRowsAt + expected * Rows::kRowBytes;
    if (load_le<uint16_t>(block.data() + kReservedAt) != 0 || !is_zero(block.subspan(end))) {
      return corrupt_at(where, offset, "reserved bytes are not zero");
    }
    ByteReader in(block.subspan(kRowsAt));
    for (size_t i = 0; i < expected; ++i) rows.push_back(Rows::get(in));
    if (!in.ok()) return corrupt_at(where, offset, "a row is malformed");
    blocks = blocks.subspan(block.size());
    offset += block.size();
  }
  return rows;
}

}  // namespace

uint64_t packs_bytes(uint64_t packs) { return table_bytes<PackRows>(packs); }
uint64_t part_packs_bytes(uint64_t rows) { return table_bytes<PartPackRows>(rows); }

ByteVector encode_pack_tables(const Uuid& writer, uint64_t offset, const PackTables& tables) {
  for (size_t i = 0; i < tables.packs.size(); ++i) {
    CAISSON_CHECK(tables.packs[i].object.kind == ObjectKind::kPack);
    CAISSON_CHECK(i == 0 || tables.packs[i - 1].object < tables.packs[i].object);
  }
  for (const uint32_t pack : tables.of_parts) CAISSON_CHECK(pack < tables.packs.size());
  ByteVector bytes;
  put_table<PackRows>(bytes, writer, offset, tables.packs);
  put_table<PartPackRows>(bytes, writer, offset + bytes.size(), tables.of_parts);
  return bytes;
}

Result<std::vector<SealedRef>> decode_packs(const Uuid& writer, uint64_t offset, Bytes blocks,
                                            uint64_t count, std::string_view what) {
  CAISSON_ASSIGN_OR_RETURN(std::vector<SealedRef> packs,
                           get_table<PackRows>(writer, offset, blocks, count, what));
  for (size_t i = 0; i < packs.size(); ++i) {
    if (packs[i].object.kind != ObjectKind::kPack ||
        (i > 0 && !(packs[i - 1].object < packs[i].object))) {
      return corrupt_at(what, offset, "the packs are not in ascending order");
    }
  }
  return packs;
}

Result<std::vector<uint32_t>> decode_part_packs(const Uuid& writer, uint64_t offset, Bytes blocks,
                                                uint64_t count, uint64_t packs,
                                                std::string_view what) {
  CAISSON_ASSIGN_OR_RETURN(std::vector<uint32_t> rows,
                           get_table<PartPackRows>(writer, offset, blocks, count, what));
  if (std::any_of(rows.begin(), rows.end(), [&](uint32_t row) { return row >= packs; })) {
    return corrupt_at(what, offset, "a part refers to packs that the root does not list");
  }
  return rows;
}

}  // namespace caisson::format

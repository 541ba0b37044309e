// A page:
//
//    0  8  checksum of all bytes after it, salted with (salt, offset of the page in the directory)
//    8  4  magic "CSNT"
//   12  4  records
//   16     records
//
// A record ("v" is a varint, a string is a varint length and its bytes):
//
//    string  name
//    1       dtype code
//    1       dtype bits
//    1       kind
//    1       rank
//    v       extent of each dimension
//    v       tile edge of each dimension
//    string  alias_of; only of an alias
//    v       shards
//            shards
//
// A shard:
//
//    1       flags: 1 the box is the whole tensor, 2 all pieces of the box, 4 the grid is the tile
//            grid, 8 the grid's origin is the corner of the box; 4 and 8 exclude each other
//    4       part
//    8       first entry
//    v       offset, then extent of each dimension; unless flag 1
//    v       origin of each dimension; unless flag 4 or 8
//    v       cell of each dimension; unless flag 4
//    v       first piece, pieces; unless flag 2
//
// The page index:
//
//    0  8  checksum of all bytes after it, salted with (salt, offset of the index in the directory)
//    8  4  magic "CSNI"
//   12  4  zero
//   16  8  pages
//   24     per page: 8 offset, 4 bytes, 4 records, string name of its first record
#include "engine/format/directory.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/format/names.h"
#include "engine/format/record.h"
#include "io/base/check.h"
#include "io/base/mutant.h"

namespace caisson::format {
namespace {

constexpr std::string_view kPageMagic = "CSNT";
constexpr std::string_view kIndexMagic = "CSNI";
constexpr size_t kMagicBytes = 4;
constexpr size_t kCheckedAt = 8;
constexpr size_t kPageHeaderBytes = 16;
constexpr size_t kIndexHeaderBytes = 24;
constexpr size_t kPageInfoBytesMin = 8 + 4 + 4 + 2;

constexpr uint8_t kWholeTensor = 1;
constexpr uint8_t kAllPieces = 2;
constexpr uint8_t kTileGrid = 4;
constexpr uint8_t kOwnCorner = 8;
constexpr uint8_t kFlagsKnown = kWholeTensor | kAllPieces | kTileGrid | kOwnCorner;

using Extents = std::array<uint64_t, kRankMax>;

void put_dims(ByteWriter& out, const Extents& dims, int rank) {
  for (int i = 0; i < rank; ++i) out.put_varint(dims[static_cast<size_t>(i)]);
}
void get_dims(ByteReader& in, Extents& dims, int rank) {
  for (int i = 0; i < rank; ++i) dims[static_cast<size_t>(i)] = in.get_varint();
}

PieceGrid tile_grid(const Shape& tile) {
  PieceGrid grid;
  grid.rank = tile.rank;
  grid.cell = tile.dims;
  return grid;
}

// What is wrong with a shard; the same for what is written and what is read: box and grid first,
// since piece_count needs both to be sound.
Status check_grid_of(const TensorRecord& record, const ShardRecord& shard) {
  CAISSON_RETURN_IF_ERROR(check_box(record.spec, shard.box));
  return check_grid(record.spec, shard.box, shard.grid);
}
Status check_pieces(const ShardRecord& shard, uint64_t count) {
  if (shard.first_piece > count || shard.pieces > count - shard.first_piece) {
    return invalid_argument("a shard has pieces that its box has not");
  }
  if (shard.first_entry > UINT64_MAX - shard.pieces) {
    return invalid_argument("a shard's entries overflow");
  }
  return ok_status();
}

// Everything of a record but its shards.
Status check_head(const TensorRecord& record) {
  CAISSON_RETURN_IF_ERROR(check_tensor_name(record.spec.name));
  CAISSON_RETURN_IF_ERROR(check_dtype(record.spec.dtype));
  const Result<uint64_t> elements = element_count(record.spec.shape);
  if (!elements.ok()) return elements.status();
  if (record.tile.rank != record.spec.shape.rank) {
    return invalid_argument("the tile has another rank than the tensor");
  }
  for (const uint64_t edge : record.tile.extents()) {
    if (edge == 0) return invalid_argument("the tile has an edge of zero");
  }
  if (record.kind == TensorKind::kBlob &&
      (record.spec.dtype != DType{DTypeCode::kUInt, 8} || record.spec.shape.rank != 1)) {
    return invalid_argument("a blob is one dimension of U8");
  }
  if (record.kind != TensorKind::kAlias) {
    return record.alias_of.empty() ? ok_status() : invalid_argument("only an alias is of another");
  }
  CAISSON_RETURN_IF_ERROR(check_tensor_name(record.alias_of));
  if (record.alias_of == record.spec.name || !record.shards.empty()) {
    return invalid_argument("an alias is of another tensor and has no shards");
  }
  return ok_status();
}

void put_shard(ByteWriter& out, const TensorRecord& record, const ShardRecord& shard) {
  CAISSON_CHECK(check_grid_of(record, shard).ok());
  const uint64_t count = piece_count(shard.grid, shard.box);
  CAISSON_CHECK(check_pieces(shard, count).ok());
  const int rank = shard.box.rank;
  uint8_t flags = 0;
  if (shard.box == Box::whole(record.spec.shape)) flags |= kWholeTensor;
  if (shard.first_piece == 0 && shard.pieces == count) flags |= kAllPieces;
  if (shard.grid == tile_grid(record.tile)) {
    flags |= kTileGrid;
  } else if (shard.grid.origin == shard.box.offset) {
    flags |= kOwnCorner;
  }
  out.put<uint8_t>(flags);
  out.put<uint32_t>(shard.part);
  out.put<uint64_t>(shard.first_entry);
  if ((flags & kWholeTensor) == 0) {
    put_dims(out, shard.box.offset, rank);
    put_dims(out, shard.box.extent, rank);
  }
  if ((flags & (kTileGrid | kOwnCorner)) == 0) put_dims(out, shard.grid.origin, rank);
  if ((flags & kTileGrid) == 0) put_dims(out, shard.grid.cell, rank);
  if ((flags & kAllPieces) == 0) {
    out.put_varint(shard.first_piece);
    out.put_varint(shard.pieces);
  }
}

Result<ShardRecord> get_shard(ByteReader& in, const TensorRecord& record) {
  const int rank = record.spec.shape.rank;
  const auto flags = in.get<uint8_t>();
  if ((flags & ~kFlagsKnown) != 0 || ((flags & kTileGrid) != 0 && (flags & kOwnCorner) != 0)) {
    return invalid_argument("a shard has unknown flags");
  }
  ShardRecord shard;
  shard.part = in.get<uint32_t>();
  shard.first_entry = in.get<uint64_t>();
  shard.box = Box::whole(record.spec.shape);
  if ((flags & kWholeTensor) == 0) {
    get_dims(in, shard.box.offset, rank);
    get_dims(in, shard.box.extent, rank);
  }
  shard.grid = tile_grid(record.tile);
  if ((flags & kOwnCorner) != 0) shard.grid.origin = shard.box.offset;
  if ((flags & (kTileGrid | kOwnCorner)) == 0) get_dims(in, shard.grid.origin, rank);
  if ((flags & kTileGrid) == 0) get_dims(in, shard.grid.cell, rank);
  if ((flags & kAllPieces) == 0) {
    shard.first_piece = in.get_varint();
    shard.pieces = in.get_varint();
  }
  if (!in.ok()) return invalid_argument("a shard is cut short");
  CAISSON_RETURN_IF_ERROR(check_grid_of(record, shard));
  const uint64_t count = piece_count(shard.grid, shard.box);
  if ((flags & kAllPieces) != 0) shard.pieces = count;
  CAISSON_RETURN_IF_ERROR(check_pieces(shard, count));
  return shard;
}

void put_record(ByteWriter& out, const TensorRecord& record) {
  CAISSON_CHECK(check_head(record).ok() && record.shards.size() <= kShardsMax);
  out.put_string(record.spec.name);
  out.put(static_cast<uint8_t>(record.spec.dtype.code));
  out.put(record.spec.dtype.bits);
  out.put(static_cast<uint8_t>(record.kind));
  out.put(static_cast<uint8_t>(record.spec.shape.rank));
  put_dims(out, record.spec.shape.dims, record.spec.shape.rank);
  put_dims(out, record.tile.dims, record.tile.rank);
  if (record.kind == TensorKind::kAlias) out.put_string(record.alias_of);
  out.put_varint(record.shards.size());
  for (const ShardRecord& shard : record.shards) put_shard(out, record, shard);
}

// Into a record that may have been another one, whose memory it takes over.
Status get_record(ByteReader& in, TensorRecord& record) {
  record.spec.name = in.get_string(kNameBytesMax);
  record.spec.dtype.code = static_cast<DTypeCode>(in.get<uint8_t>());
  record.spec.dtype.bits = in.get<uint8_t>();
  const auto kind = in.get<uint8_t>();
  const auto rank = in.get<uint8_t>();
  if (kind > static_cast<uint8_t>(TensorKind::kAlias) || rank > kRankMax) {
    return invalid_argument("a tensor is of an unknown kind or has more than 8 dimensions");
  }
  record.kind = static_cast<TensorKind>(kind);
  record.spec.shape = record.tile = {};
  record.spec.shape.rank = record.tile.rank = rank;
  get_dims(in, record.spec.shape.dims, rank);
  get_dims(in, record.tile.dims, rank);
  record.alias_of.clear();
  if (record.kind == TensorKind::kAlias) record.alias_of = in.get_string(kNameBytesMax);
  record.shards.clear();
  const uint64_t shards = in.get_count(kShardBytesMin);
  if (!in.ok()) return invalid_argument("a record is cut short or counts more than it holds");
  CAISSON_RETURN_IF_ERROR(check_head(record));
  if (record.kind == TensorKind::kAlias && shards != 0) {
    return invalid_argument("an alias is of another tensor and has no shards");
  }
  if (shards > kShardsMax) return invalid_argument("a tensor has more shards than it can");
  record.shards.reserve(static_cast<size_t>(shards));
  for (uint64_t i = 0; i < shards; ++i) {
    CAISSON_ASSIGN_OR_RETURN(ShardRecord shard, get_shard(in, record));
    record.shards.push_back(shard);
  }
  return ok_status();
}

// The checksum over what follows it, for pages and the index.
uint64_t checksum_of(const Uuid& salt, uint64_t offset, Bytes bytes) {
  return checksum64(bytes.subspan(kCheckedAt), salt_of(salt, offset));
}

// Checks checksum and magic of a page or an index of at least `header_bytes`.
Status check_frame(const Uuid& salt, uint64_t offset, Bytes bytes, std::string_view magic,
                   size_t header_bytes, std::string_view what) {
  if (bytes.size() < header_bytes) return corrupt_at(what, offset, "cut short");
  if (load_le<uint64_t>(bytes.data()) != checksum_of(salt, offset, bytes) &&
      !CAISSON_MUTANT(page_checksum)) {
    return corrupt_at(what, offset, "does not have its checksum");
  }
  if (as_text(bytes.subspan(kCheckedAt, kMagicBytes)) != magic) {
    return corrupt_at(what, offset, "does not start with \"" + std::string(magic) + "\"");
  }
  return ok_status();
}

}  // namespace

void DirectoryEncoder::begin_record(std::string_view name) {
  if (page_records_ > 0) return;
  page_.put_zeros(kPageHeaderBytes);
  page_first_name_ = name;
}

void DirectoryEncoder::add(const TensorRecord& record) {
  begin_record(record.spec.name);
  put_record(page_, record);
  end_record();
}

void DirectoryEncoder::add_encoded(std::string_view name, Bytes record) {
  begin_record(name);
  page_.put_bytes(record);
  end_record();
}

void DirectoryEncoder::end_record() {
  CAISSON_CHECK(page_.size() <= kPageBytesMax);
  ++page_records_;
  ++tensors_;
  if (page_.size() >= kPageBytesTarget) close_page();
}

void DirectoryEncoder::close_page() {
  if (page_records_ == 0) return;
  ByteVector page = std::exchange(page_, {}).take();
  std::memcpy(page.data() + kCheckedAt, kPageMagic.data(), kMagicBytes);
  store_le(page.data() + kCheckedAt + kMagicBytes, page_records_);
  store_le(page.data(), checksum_of(salt_, offset_, page));
  pages_.push_back({.first_name = std::exchange(page_first_name_, {}),
                    .offset = offset_,
                    .bytes = static_cast<uint32_t>(page.size()),
                    .records = std::exchange(page_records_, 0)});
  offset_ += page.size();
  ready_.insert(ready_.end(), page.begin(), page.end());
}

ByteVector DirectoryEncoder::take_pages() { return std::exchange(ready_, {}); }

ByteVector DirectoryEncoder::finish() {
  close_page();
  index_offset_ = offset_;
  ByteWriter index;
  index.put<uint64_t>(0);  // the checksum, below
  index.put_bytes(as_bytes(kIndexMagic));
  index.put<uint32_t>(0);
  index.put<uint64_t>(pages_.size());
  for (const PageInfo& page : pages_) {
    index.put<uint64_t>(page.offset);
    index.put<uint32_t>(page.bytes);
    index.put<uint32_t>(page.records);
    index.put_string(page.first_name);
  }
  store_le(index.mutable_bytes().data(), checksum_of(salt_, index_offset_, index.bytes()));
  ByteVector bytes = take_pages();
  bytes.insert(bytes.end(), index.bytes().begin(), index.bytes().end());
  return bytes;
}

Result<std::vector<DirectoryPage>> decode_page_index(const Uuid& salt, uint64_t index_offset,
                                                     Bytes index, std::string_view what) {
  const std::string where = std::string(what) + ": page index of the directory";
  CAISSON_RETURN_IF_ERROR(
      check_frame(salt, index_offset, index, kIndexMagic, kIndexHeaderBytes, where));
  const auto damaged = [&](std::string_view why) { return corrupt_at(where, index_offset, why); };
  ByteReader in(index.subspan(kCheckedAt + kMagicBytes));
  const auto reserved = in.get<uint32_t>();
  const auto count = in.get<uint64_t>();
  if (reserved != 0) return damaged("reserved bytes are not zero");
  if (count > in.remaining() / kPageInfoBytesMin) return damaged("counts more pages than it holds");
  std::vector<DirectoryPage> pages;
  pages.reserve(static_cast<size_t>(count));
  uint64_t end = 0;
  for (uint64_t i = 0; i < count; ++i) {
    DirectoryPage page;
    page.offset = in.get<uint64_t>();
    page.bytes = in.get<uint32_t>();
    page.records = in.get<uint32_t>();
    page.first_name = in.get_string(kNameBytesMax);
    if (!in.ok()) return damaged("an entry is cut short");
    if (page.offset != end || page.bytes > index_offset - end || page.bytes > kPageBytesMax ||
        page.bytes < kPageHeaderBytes || page.records == 0 || page.records > kPageRecordsMax ||
        page.records > (page.bytes - kPageHeaderBytes) / kRecordBytesMin) {
      return damaged("pages do not follow each other up to the index");
    }
    if (!check_tensor_name(page.first_name).ok()) return damaged("a page starts at no name");
    end += page.bytes;
    pages.push_back(std::move(page));
  }
  if (end != index_offset || in.remaining() != 0) {
    return damaged("pages do not follow each other up to the index");
  }
  return pages;
}

Result<std::vector<TensorRecord>> decode_page(const Uuid& salt, const DirectoryPage& page,
                                              Bytes bytes, std::string_view what) {
  std::vector<TensorRecord> records;
  records.reserve(std::min<size_t>(page.records, bytes.size() / kRecordBytesMin));
  const auto keep = [&](const TensorRecord& record, Bytes) {
    records.push_back(record);
    return ok_status();
  };
  CAISSON_RETURN_IF_ERROR(for_each_record(salt, page, bytes, what, keep));
  return records;
}

Status for_each_record(const Uuid& salt, const DirectoryPage& page, Bytes bytes,
                       std::string_view what,
                       const std::function<Status(const TensorRecord&, Bytes)>& visit) {
  const std::string where = std::string(what) + ": directory page";
  CAISSON_RETURN_IF_ERROR(
      check_frame(salt, page.offset, bytes, kPageMagic, kPageHeaderBytes, where));
  ByteReader in(bytes.subspan(kCheckedAt + kMagicBytes));
  const auto count = in.get<uint32_t>();
  if (bytes.size() != page.bytes || count != page.records || count == 0 ||
      count > kPageRecordsMax || count > in.remaining() / kRecordBytesMin) {
    return corrupt_at(where, page.offset, "is not what the page index says");
  }
  TensorRecord record;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t begin = bytes.size() - in.remaining();
    const uint64_t at = page.offset + begin;
    if (begin >= kPageBytesTarget) return corrupt_at(where, at, "the page should have ended here");
    const Status good = get_record(in, record);
    if (!good.ok()) return corrupt_at(where, at, good.message());
    const bool last = i + 1 == count;
    if ((i == 0 && record.spec.name != page.first_name) || (last && in.remaining() != 0)) {
      return corrupt_at(where, page.offset, "is not what the page index says");
    }
    const uint64_t end = bytes.size() - in.remaining();
    CAISSON_RETURN_IF_ERROR(visit(record, bytes.subspan(begin, end - begin)));
  }
  return ok_status();
}

void decode_record(Bytes encoded, TensorRecord& record) {
  ByteReader in(encoded);
  CAISSON_CHECK(get_record(in, record).ok() && in.remaining() == 0);
}

std::string_view name_of_record(Bytes encoded) {
  return ByteReader(encoded).get_string(kNameBytesMax);
}

}  // namespace caisson::format

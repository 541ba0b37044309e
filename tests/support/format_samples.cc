#include "tests/support/format_samples.h"

#include "io/base/check.h"

namespace caisson::testing {

using namespace format;

Uuid sample_uuid(uint8_t n) {
  Uuid uuid;
  for (size_t i = 0; i < uuid.bytes.size(); ++i) uuid.bytes[i] = static_cast<std::byte>(n * 16 + i);
  return uuid;
}

Digest sample_digest(uint8_t n) {
  Digest digest;
  for (size_t i = 0; i < digest.bytes.size(); ++i) {
    digest.bytes[i] = static_cast<std::byte>(n * 3 + i * 5);
  }
  return digest;
}

ObjectRef sample_ref(ObjectKind kind, uint32_t number) {
  return {.kind = kind, .save = sample_uuid(3), .writer = sample_uuid(4), .number = number};
}
ObjectRef sample_pack() { return sample_ref(ObjectKind::kPack, 5); }

ChunkEntry sample_entry(uint32_t offset_units, uint32_t raw_bytes) {
  return {.id = sample_digest(static_cast<uint8_t>(offset_units)),
          .stored_checksum = uint64_t{0x0123456789abcdef} + offset_units,
          .raw_bytes = raw_bytes,
          .stored_bytes = raw_bytes,
          .offset_units = offset_units,
          .pack = kPackSelf,
          .codec = 0,
          .flags = 0};
}

std::vector<ChunkEntry> sample_table_entries(size_t count) {
  std::vector<ChunkEntry> entries;
  for (size_t i = 0; i < count; ++i) {
    ChunkEntry entry = sample_entry(static_cast<uint32_t>(i * 20 + 128), 1000);
    entry.pack = static_cast<uint16_t>(i % 2);
    if (i % 4 == 1) {
      entry.codec = 1;
      entry.stored_bytes = 300;
    } else if (i % 4 == 2) {
      entry.pack = kPackInline;
      entry.offset_units = static_cast<uint32_t>(i);
    } else if (i % 4 == 3) {
      entry.codec = 4;
      entry.flags = kFlagHasBase;
      entry.reason = CodecReason::kBase;
      entry.stored_bytes = 580;
    }
    entries.push_back(entry);
  }
  return entries;
}

std::vector<Segment> sample_segments() {
  const auto units = [](uint64_t bytes) { return static_cast<uint32_t>(bytes / kOffsetUnit); };
  Segment first{.offset = kBlockBytes, .bytes = 5 * kBlockBytes, .entries = {}};
  for (uint32_t i = 0; i < 4; ++i) {
    first.entries.push_back(sample_entry(units(2 * kBlockBytes) + i * 17, 1000 + i));
  }
  Segment second{.offset = 6 * kBlockBytes, .bytes = 2 * kBlockBytes, .entries = {}};
  second.entries.push_back(sample_entry(units(7 * kBlockBytes), 4096));
  return {first, second};
}
uint64_t sample_footer_offset() { return 8 * kBlockBytes; }

BaseRef sample_base_ref() {
  return {.id = sample_digest(8),
          .raw_bytes = 2048,
          .stored_bytes = 1000,
          .offset_units = 99,
          .codec = 1,
          .pack = sample_pack()};
}

PartTrailer sample_part_trailer() {
  return {.part = sample_ref(ObjectKind::kPart, 6),
          .rank = 3,
          .entries = 200,
          .inline_offset = 2 * kBlockBytes,
          .inline_bytes = 5000,
          .directory_offset = 13'192,
          .directory_index_offset = 700,
          .directory_bytes = 900,
          .tensors = 12,
          .packs_offset = 14'092,
          .packs_bytes = 190,
          .raw_bytes = 1'000'000,
          .stored_bytes = 900'000,
          .body_digest = sample_digest(9)};
}

namespace {

TensorRecord record_of(std::string name, DType dtype, std::vector<uint64_t> extents) {
  TensorRecord record;
  record.spec = {.name = std::move(name), .dtype = dtype, .shape = Shape::of(extents)};
  record.tile = choose_tile(record.spec.shape, dtype);
  return record;
}

// All pieces of `box`, from entry `first_entry` on.
ShardRecord shard_of(const TensorRecord& record, const Box& box, uint32_t part,
                     uint64_t first_entry) {
  ShardRecord shard{.part = part,
                    .box = box,
                    .grid = choose_pieces(record.spec.shape, record.spec.dtype, record.tile, box),
                    .first_piece = 0,
                    .pieces = 0,
                    .first_entry = first_entry};
  shard.pieces = piece_count(shard.grid, box);
  return shard;
}

}  // namespace

std::vector<TensorRecord> sample_records() {
  std::vector<TensorRecord> records;
  constexpr DType kBf16{DTypeCode::kBfloat, 16};

  TensorRecord alias = record_of("a.head", kBf16, {4096, 1024});
  alias.kind = TensorKind::kAlias;
  alias.alias_of = "m.weight";
  records.push_back(alias);

  TensorRecord blob = record_of("blob/\u00fc.json", {DTypeCode::kUInt, 8}, {300});
  blob.kind = TensorKind::kBlob;
  blob.shards.push_back(shard_of(blob, Box::whole(blob.spec.shape), 0, 70));
  records.push_back(blob);

  TensorRecord empty = record_of("empty", {DTypeCode::kFloat, 32}, {0, 7});
  empty.shards.push_back(shard_of(empty, Box::whole(empty.spec.shape), 1, 0));
  records.push_back(empty);

  TensorRecord fp4 = record_of("fp4", {DTypeCode::kFloat4E2M1FN, 4}, {6, 10});
  fp4.shards.push_back(shard_of(fp4, Box::whole(fp4.spec.shape), 0, 3));
  records.push_back(fp4);

  TensorRecord sharded = record_of("m.weight", kBf16, {4096, 1024});
  for (uint32_t i = 0; i < 4; ++i) {
    Box box = Box::whole(sharded.spec.shape);
    box.offset[0] = i * 1024;
    box.extent[0] = 1024;
    sharded.shards.push_back(shard_of(sharded, box, i, 100 + i));
  }
  sharded.shards.front().first_piece = 1;  // a replica's share
  sharded.shards.front().pieces = 1;
  records.push_back(sharded);

  TensorRecord rows = record_of("rows", {DTypeCode::kFloat, 32}, {1024, 16384});
  Box few = Box::whole(rows.spec.shape);
  few.offset[0] = 5;
  few.extent[0] = 3;
  rows.shards.push_back(shard_of(rows, few, 2, 10));
  CAISSON_CHECK(rows.shards.front().grid.origin == few.offset);  // an own grid
  rows.shards.push_back(rows.shards.front());
  rows.shards.back().grid.origin[0] = 2;  // neither the tile grid nor its own corner
  rows.shards.back().grid.cell = {4, 16384};
  rows.shards.back().pieces = piece_count(rows.shards.back().grid, few);
  records.push_back(rows);

  TensorRecord scalar = record_of("scalar", {DTypeCode::kInt, 64}, {});
  scalar.shards.push_back(shard_of(scalar, Box::whole(scalar.spec.shape), 0, 1));
  records.push_back(scalar);
  return records;
}

Root sample_root() {
  Root root;
  root.object = sample_ref(ObjectKind::kRoot, 0);
  root.run = "llama/\u00e9";
  root.step = 1000;
  root.epoch = 2;
  root.created_unix_ns = 1'700'000'000'123'456'789;
  root.metadata_json = R"({"loss": 2.5})";
  for (uint32_t i = 0; i < 2; ++i) {
    root.parts.push_back({.part = {.object = sample_ref(ObjectKind::kPart, i),
                                   .bytes = 100'000,
                                   .digest = sample_digest(static_cast<uint8_t>(40 + i))},
                          .rank = i,
                          .entries = 50 + i,
                          .inline_offset = 4096,
                          .inline_bytes = 77,
                          .packs = 2});
  }
  root.directory = {.object = sample_ref(ObjectKind::kDirectory, 0),
                    .bytes = 70'000,
                    .digest = sample_digest(50)};
  root.directory_index_offset = 65'000;
  root.tensors = 7;
  root.raw_bytes = 123'456;
  root.stored_bytes = 100'000;
  root.packs = sample_pack_tables().packs.size();
  return root;
}

PackTables sample_pack_tables() {
  PackTables tables;
  for (uint32_t i = 0; i < kPacksPerBlock + 3; ++i) {  // two blocks
    tables.packs.push_back({.object = sample_ref(ObjectKind::kPack, i),
                            .bytes = 4096 * (i + 10),
                            .digest = sample_digest(static_cast<uint8_t>(i))});
  }
  tables.of_parts = {2, 0, kPacksPerBlock, 1};
  return tables;
}

StoreFile sample_store_file() {
  StoreFile store;
  store.uuid = sample_uuid(2);
  store.created_unix_ns = 1'700'000'000'000'000'001;
  return store;
}

std::vector<LogBody> sample_log_bodies() {
  const SealedRef old_root{
      .object = sample_ref(ObjectKind::kRoot, 0), .bytes = 500, .digest = sample_digest(1)};
  const SealedRef new_root{
      .object = sample_ref(ObjectKind::kRoot, 1), .bytes = 600, .digest = sample_digest(2)};
  return {OpenRecord{.save = sample_uuid(5), .run = "r", .step = 7, .epoch = 8, .bases = {1, 2}},
          ClaimRecord{.run = "r/s", .epoch = 3, .base = 4},
          CommitRecord{.save = sample_uuid(5),
                       .run = "r",
                       .step = 7,
                       .epoch = 8,
                       .root = old_root,
                       .replaces_same_step = true},
          PruneRecord{.checkpoint = 99},
          CondemnRecord{.objects = {sample_pack(), sample_ref(ObjectKind::kPart, 1)},
                        .saves = {sample_uuid(6)}},
          CloseRecord{.save = sample_uuid(5)},
          ReplaceRecord{.checkpoint = 9, .old_root = old_root, .new_root = new_root}};
}

LogRecord sample_log_record(const LogBody& body) {
  LogRecord record;
  record.seq = kSampleSeq;
  record.nonce = sample_uuid(1);
  record.writer = {.host = "node-17",
                   .boot_id = "c0ffee00-0000-4000-8000-000000000000",
                   .pid = 4242,
                   .pid_start_ticks = 123'456,
                   .unix_ns = -5};
  record.body = body;
  return record;
}

std::vector<std::string> sample_keys() {
  return {sample_pack().key(), sample_ref(ObjectKind::kRoot, 0xfedcba98).key(),
          sample_ref(ObjectKind::kDirectory, 0xffffff).key(),
          sample_ref(ObjectKind::kPart, 0x1000000).key()};
}

ByteVector sample_text(size_t bytes) {
  ByteVector text(bytes);
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<std::byte>(i / 7 % 11 * (i % 3));
  return text;
}

}  // namespace caisson::testing

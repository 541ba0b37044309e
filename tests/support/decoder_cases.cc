#include "tests/support/decoder_cases.h"

#include <algorithm>
#include <string>

#include "compression/codec.h"
#include "engine/format/directories.h"
#include "engine/format/directory.h"
#include "engine/format/log_record.h"
#include "engine/format/pack.h"
#include "engine/format/part.h"
#include "engine/format/record.h"
#include "engine/format/root.h"
#include "io/base/check.h"
#include "tests/support/format_samples.h"

namespace caisson::testing {
namespace {

using namespace format;

void reseal_nothing(MutableBytes) {}

// The length too, unless the content lies in a block and says that it fits.
void reseal_envelope(MutableBytes bytes) {
  if (bytes.size() < kEnvelopeBytes) return;
  const uint64_t room = bytes.size() - kEnvelopeBytes;
  if (bytes.size() != kBlockBytes || load_le<uint64_t>(bytes.data() + 24) > room) {
    store_le<uint64_t>(bytes.data() + 24, room);
  }
  const auto length = static_cast<size_t>(load_le<uint64_t>(bytes.data() + 24));
  Uuid salt;
  std::copy_n(bytes.begin() + 32, salt.bytes.size(), salt.bytes.begin());
  store_le(bytes.data() + 48,
           checksum64(bytes.subspan(kEnvelopeBytes, length), salt_of(salt, kEnvelopeBytes)));
  store_le(bytes.data() + 56, checksum64(bytes.first(56), salt_of(salt, 0)));
}

// A checksum that stands first and covers what follows.
void reseal_framed(MutableBytes bytes, uint64_t salt) {
  if (bytes.size() >= 8) store_le(bytes.data(), checksum64(bytes.subspan(8), salt));
}

void reseal_segment(MutableBytes bytes, uint64_t offset) {
  if (bytes.size() < 16) return;
  store_le(bytes.data() + 8, checksum64(bytes.subspan(16), pack_salt(sample_pack(), offset)));
}

void reseal_footer(MutableBytes bytes) {
  uint64_t offset = kBlockBytes;
  while (bytes.size() > kBlockBytes) {
    const MutableBytes block = bytes.first(kBlockBytes);
    reseal_segment(block, offset);
    offset += load_le<uint64_t>(block.data() + 64);
    bytes = bytes.subspan(kBlockBytes);
  }
  reseal_envelope(bytes);
}

std::vector<ByteVector> envelope_samples() {
  return {encode_envelope("CSN_TEST", sample_uuid(1), as_bytes("content")),
          encode_envelope("CSN_TEST", sample_uuid(2), {})};
}
Result<ByteVector> round_trip_envelope(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope, decode_envelope("CSN_TEST", bytes, "test"));
  // Features that this build does not know are legal, and gone after re-encoding.
  return encode_envelope("CSN_TEST", envelope.salt, envelope.payload);
}

std::vector<ByteVector> store_file_samples() { return {encode_store_file(sample_store_file())}; }
std::vector<ByteVector> spread_store_file_samples() {
  StoreFile spread = sample_store_file();
  spread.features.incompatible = kFeatureDirectories;
  return {encode_store_file(spread)};
}
Result<ByteVector> round_trip_store_file(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(StoreFile store, decode_store_file(bytes));
  store.features = {.incompatible = store.features.incompatible};  // the others may be unknown
  return encode_store_file(store);
}

std::vector<ByteVector> directories_samples() {
  return {encode_directories(sample_uuid(1), {"/disk2/ckpt"}),
          encode_directories(sample_uuid(1), {"/a", "/b/c", "/d e"})};
}
Result<ByteVector> round_trip_directories(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const auto paths, decode_directories(sample_uuid(1), bytes));
  return encode_directories(sample_uuid(1), paths);
}

std::vector<ByteVector> directory_marker_samples() {
  return {encode_directory_marker({.store = sample_uuid(1), .number = 1, .count = 2}),
          encode_directory_marker({.store = sample_uuid(2), .number = 6, .count = 7})};
}
Result<ByteVector> round_trip_directory_marker(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const DirectoryMarker marker, decode_directory_marker(bytes, "test"));
  return encode_directory_marker(marker);
}

std::vector<ByteVector> log_record_samples() {
  std::vector<ByteVector> samples;
  for (const LogBody& body : sample_log_bodies()) {
    samples.push_back(encode_log_record(sample_log_record(body)));
  }
  return samples;
}
Result<ByteVector> round_trip_log_record(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const LogRecord record, decode_log_record(kSampleSeq, bytes));
  return encode_log_record(record);
}

// The head alone; the tables behind it have the size that the sample's have.
std::vector<ByteVector> root_samples() { return {encode_root_head(sample_root())}; }
Result<ByteVector> round_trip_root(Bytes bytes) {
  const PackTables tables = sample_pack_tables();
  const uint64_t behind =
      packs_bytes(tables.packs.size()) + part_packs_bytes(tables.of_parts.size());
  CAISSON_ASSIGN_OR_RETURN(const Root root,
                           decode_root(sample_root().object, bytes.size() + behind, bytes, "root"));
  return encode_root_head(root);
}

constexpr uint64_t kSampleTablesOffset = 77777;
// How many rows a table of so many bytes has, where it has them.
uint64_t rows_in(uint64_t bytes, uint64_t per_block, uint64_t row_bytes) {
  const uint64_t rest = bytes % kTableBlockBytes;
  return bytes / kTableBlockBytes * per_block + (rest < 16 ? 0 : (rest - 16) / row_bytes);
}
void reseal_table(MutableBytes bytes, uint64_t offset) {
  while (!bytes.empty()) {
    const MutableBytes block = bytes.first(std::min(bytes.size(), kTableBlockBytes));
    reseal_framed(block, salt_of(sample_uuid(4), offset));
    offset += block.size();
    bytes = bytes.subspan(block.size());
  }
}
std::vector<ByteVector> packs_samples() {
  std::vector<ByteVector> samples;
  for (const size_t count : {sample_pack_tables().packs.size(), kPacksPerBlock, size_t{1}}) {
    PackTables tables = sample_pack_tables();
    tables.packs.resize(count);
    tables.of_parts.clear();
    samples.push_back(encode_pack_tables(sample_uuid(4), kSampleTablesOffset, tables));
  }
  return samples;
}
Result<ByteVector> round_trip_packs(Bytes bytes) {
  if (bytes.empty()) return corruption("an empty table has no blocks to read");
  CAISSON_ASSIGN_OR_RETURN(
      std::vector<SealedRef> packs,
      decode_packs(sample_uuid(4), kSampleTablesOffset, bytes,
                   rows_in(bytes.size(), kPacksPerBlock, kSealedRefBytes), "root"));
  return encode_pack_tables(sample_uuid(4), kSampleTablesOffset,
                            {.packs = std::move(packs), .of_parts = {}});
}

// Behind the packs, which are taken off again.
ByteVector part_packs_table(std::vector<uint32_t> rows) {
  const std::vector<SealedRef> packs = sample_pack_tables().packs;
  const uint64_t before = packs_bytes(packs.size());
  ByteVector both = encode_pack_tables(sample_uuid(4), kSampleTablesOffset - before,
                                       {.packs = packs, .of_parts = std::move(rows)});
  both.erase(both.begin(), both.begin() + static_cast<ptrdiff_t>(before));
  return both;
}
std::vector<ByteVector> part_packs_samples() {
  std::vector<uint32_t> many(kPartPacksPerBlock + 5, 3);
  return {part_packs_table(many), part_packs_table(sample_pack_tables().of_parts)};
}
Result<ByteVector> round_trip_part_packs(Bytes bytes) {
  if (bytes.empty()) return corruption("an empty table has no blocks to read");
  CAISSON_ASSIGN_OR_RETURN(
      std::vector<uint32_t> rows,
      decode_part_packs(sample_uuid(4), kSampleTablesOffset, bytes,
                        rows_in(bytes.size(), kPartPacksPerBlock, sizeof(uint32_t)),
                        sample_pack_tables().packs.size(), "root"));
  return part_packs_table(std::move(rows));
}

std::vector<ByteVector> pack_header_samples() { return {encode_pack_header(sample_pack())}; }
Result<ByteVector> round_trip_pack_header(Bytes bytes) {
  CAISSON_RETURN_IF_ERROR(check_pack_header(sample_pack(), bytes));
  return encode_pack_header(sample_pack());
}

std::vector<ByteVector> segment_samples() {
  std::vector<ByteVector> samples;
  Segment segment = sample_segments().front();
  samples.emplace_back(kBlockBytes);
  encode_segment_directory(sample_pack(), segment, samples.back());
  segment.entries.resize(1);
  samples.emplace_back(kBlockBytes);
  encode_segment_directory(sample_pack(), segment, samples.back());
  return samples;
}
Result<ByteVector> round_trip_segment(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const Segment segment,
                           decode_segment_directory(sample_pack(), kBlockBytes, bytes));
  ByteVector block(kBlockBytes);
  encode_segment_directory(sample_pack(), segment, block);
  return block;
}

std::vector<ByteVector> footer_samples() {
  const std::vector<Segment> segments = sample_segments();
  return {encode_pack_footer(sample_pack(), sample_footer_offset(), segments)};
}
Result<ByteVector> round_trip_footer(Bytes bytes) {
  const uint64_t pack_bytes = sample_footer_offset() + footer_samples().front().size();
  CAISSON_ASSIGN_OR_RETURN(const PackFooter footer,
                           decode_pack_footer(sample_pack(), pack_bytes, bytes));
  return encode_pack_footer(sample_pack(), footer.footer_offset, footer.segments);
}

std::vector<ByteVector> entry_block_samples() {
  std::vector<ByteVector> samples;
  for (const size_t count : {size_t{1}, size_t{5}, kEntriesPerBlock}) {
    samples.emplace_back(kBlockBytes);
    encode_entry_block(sample_uuid(7), 3, sample_table_entries(count), samples.back());
  }
  return samples;
}
Result<ByteVector> round_trip_entry_block(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const std::vector<ChunkEntry> entries,
                           decode_entry_block(sample_uuid(7), 3, bytes, "part"));
  ByteVector block(kBlockBytes);
  encode_entry_block(sample_uuid(7), 3, entries, block);
  return block;
}

std::vector<ByteVector> pack_list_samples() {
  return {encode_pack_list(sample_uuid(7), sample_pack_tables().packs),
          encode_pack_list(sample_uuid(7), {})};
}
Result<ByteVector> round_trip_pack_list(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const std::vector<SealedRef> packs,
                           decode_pack_list(sample_uuid(7), bytes, "part"));
  return encode_pack_list(sample_uuid(7), packs);
}

std::vector<ByteVector> part_trailer_samples() {
  return {encode_part_trailer(sample_part_trailer())};
}
Result<ByteVector> round_trip_part_trailer(Bytes bytes) {
  const PartTrailer sample = sample_part_trailer();
  const uint64_t part_bytes = sample.packs_offset + sample.packs_bytes + kBlockBytes;
  CAISSON_ASSIGN_OR_RETURN(const PartTrailer trailer,
                           decode_part_trailer(sample.part, part_bytes, bytes, "part"));
  return encode_part_trailer(trailer);
}

// A directory of one page.
struct OnePage {
  ByteVector page;
  ByteVector index;
  DirectoryPage info;
};
OnePage one_page(const std::vector<TensorRecord>& records) {
  DirectoryEncoder encoder(sample_uuid(9));
  for (const TensorRecord& record : records) encoder.add(record);
  const ByteVector all = encoder.finish();
  const auto split = all.begin() + static_cast<ptrdiff_t>(encoder.index_offset());
  return {.page = ByteVector(all.begin(), split),
          .index = ByteVector(split, all.end()),
          .info = {.first_name = records.front().spec.name,
                   .offset = 0,
                   .bytes = static_cast<uint32_t>(encoder.index_offset()),
                   .records = static_cast<uint32_t>(records.size())}};
}

std::vector<ByteVector> page_samples() {
  std::vector<ByteVector> samples;
  for (const TensorRecord& record : sample_records()) samples.push_back(one_page({record}).page);
  samples.push_back(one_page(sample_records()).page);
  return samples;
}
Result<ByteVector> round_trip_page(Bytes bytes) {
  if (bytes.size() < 16) return corruption("no page of this size is read");
  // What the index would say about these very bytes: everything else is refused at once.
  ByteReader in(bytes.subspan(16));
  const DirectoryPage info{.first_name = std::string(in.get_string(kNameBytesMax)),
                           .offset = 0,
                           .bytes = static_cast<uint32_t>(bytes.size()),
                           .records = load_le<uint32_t>(bytes.data() + 12)};
  CAISSON_ASSIGN_OR_RETURN(const std::vector<TensorRecord> records,
                           decode_page(sample_uuid(9), info, bytes, "directory"));
  return one_page(records).page;
}

constexpr uint64_t kSampleIndexOffset = 200'000;
ByteVector page_index(const std::vector<DirectoryPage>& pages) {
  ByteWriter out;
  out.put<uint64_t>(0);
  out.put_bytes(as_bytes("CSNI"));
  out.put<uint32_t>(0);
  out.put<uint64_t>(pages.size());
  for (const DirectoryPage& page : pages) {
    out.put<uint64_t>(page.offset);
    out.put<uint32_t>(page.bytes);
    out.put<uint32_t>(page.records);
    out.put_string(page.first_name);
  }
  reseal_framed(out.mutable_bytes(), salt_of(sample_uuid(9), kSampleIndexOffset));
  return out.take();
}
std::vector<ByteVector> page_index_samples() {
  return {page_index(
      {{"a", 0, 65'000, 100}, {"m.0.weight", 65'000, 70'000, 1}, {"z", 135'000, 65'000, 3}})};
}
Result<ByteVector> round_trip_page_index(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(
      const std::vector<DirectoryPage> pages,
      decode_page_index(sample_uuid(9), kSampleIndexOffset, bytes, "directory"));
  return page_index(pages);
}

std::vector<ByteVector> base_ref_samples() {
  ByteWriter out;
  put_base_ref(out, sample_base_ref());
  return {out.take()};
}
Result<ByteVector> round_trip_base_ref(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const BaseRef base, decode_base_ref(bytes, "chunk"));
  ByteWriter out;
  put_base_ref(out, base);
  return out.take();
}

std::vector<ByteVector> object_key_samples() {
  std::vector<ByteVector> samples;
  for (const std::string& key : sample_keys()) {
    const Bytes bytes = as_bytes(key);
    samples.emplace_back(bytes.begin(), bytes.end());
  }
  return samples;
}
Result<ByteVector> round_trip_object_key(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const ObjectRef ref, object_ref_of(as_text(bytes)));
  const std::string key = ref.key();
  return ByteVector(as_bytes(key).begin(), as_bytes(key).end());
}

constexpr size_t kZstdRawBytes = 5000;
std::vector<ByteVector> zstd_samples() {
  CodecContext context;
  const ByteVector raw = sample_text(kZstdRawBytes);
  ByteVector stored(raw.size());
  const size_t size = find_codec("zstd").value()->encode(context, {}, raw, {}, stored).value();
  stored.resize(size);
  return {stored};
}
// Different frames may hold the same bytes, so what comes back is the raw side.
Result<ByteVector> round_trip_zstd(Bytes bytes) {
  CodecContext context;
  ByteVector raw(kZstdRawBytes);
  CAISSON_RETURN_IF_ERROR(find_codec("zstd").value()->decode(context, {}, bytes, {}, raw));
  return zstd_samples().front();
}

// Sections of the float codecs. As with zstd, what comes back is the raw side.
ByteVector float_sample_raw() {
  ByteVector raw(6001);
  uint32_t state = 1;
  for (size_t i = 0; i + 4 <= raw.size(); i += 4) {
    state = state * 1664525 + 1013904223;
    store_le(raw.data() + i, (state & 0x807fffff) | ((120 + (state >> 13) % 9) << 23));
  }
  return raw;
}
template <uint8_t kCodec>
std::vector<ByteVector> float_samples() {
  const ByteVector raw = float_sample_raw();
  ByteVector stored(raw.size());
  CodecContext context;
  const ElementFormat fp32{.code = 2, .bits = 32};
  stored.resize(find_codec(kCodec).value()->encode(context, fp32, raw, {}, stored).value());
  CAISSON_CHECK(!stored.empty());
  return {stored};
}
template <uint8_t kCodec>
Result<ByteVector> round_trip_float(Bytes bytes) {
  CodecContext context;
  ByteVector raw(float_sample_raw().size());
  CAISSON_RETURN_IF_ERROR(find_codec(kCodec).value()->decode(context, {}, bytes, {}, raw));
  return float_samples<kCodec>().front();
}

// A quarter of the float sample's blocks are zero; its short last one is not.
std::vector<ByteVector> sparse_samples() {
  ByteVector raw = float_sample_raw();
  for (size_t at = 128; at + 64 <= raw.size(); at += 256) {
    std::fill_n(raw.data() + at, 64, std::byte{0});
  }
  ByteVector stored(raw.size());
  CodecContext context;
  const ElementFormat fp32{.code = 2, .bits = 32};
  stored.resize(find_codec("sparse").value()->encode(context, fp32, raw, {}, stored).value());
  CAISSON_CHECK(!stored.empty());
  return {stored};
}
Result<ByteVector> round_trip_sparse(Bytes bytes) {
  CodecContext context;
  ByteVector raw(float_sample_raw().size());
  CAISSON_RETURN_IF_ERROR(find_codec("sparse").value()->decode(context, {}, bytes, {}, raw));
  static const ByteVector sample = sparse_samples().front();
  return sample;
}

// The codecs with a base, which is the sample's bf16 rounding, or the sample with a few changes.
template <uint8_t kCodec>
ByteVector sample_base() {
  ByteVector base = float_sample_raw();
  base.resize(6000);
  if (kCodec == 5) {
    for (size_t i = 0; i < base.size(); i += 40) base[i] ^= std::byte{5};
    return base;
  }
  for (size_t i = 0; i < base.size() / 4; ++i) {
    const auto element = load_le<uint32_t>(base.data() + 4 * i);
    store_le(base.data() + 2 * i, static_cast<uint16_t>((element + 0x8000) >> 16));
  }
  base.resize(base.size() / 2);
  store_le(base.data() + 20, uint16_t{1});  // an exception
  return base;
}
template <uint8_t kCodec>
std::vector<ByteVector> based_samples() {
  ByteVector raw = float_sample_raw();
  raw.resize(6000);
  ByteVector stored(raw.size());
  CodecContext context;
  const ElementFormat fp32{.code = 2, .bits = 32};
  const Codec& codec = *find_codec(kCodec).value();
  stored.resize(codec.encode(context, fp32, raw, sample_base<kCodec>(), stored).value());
  CAISSON_CHECK(!stored.empty());
  return {stored};
}
template <uint8_t kCodec>
Result<ByteVector> round_trip_based(Bytes bytes) {
  CodecContext context;
  ByteVector raw(6000);
  const Codec& codec = *find_codec(kCodec).value();
  static const ByteVector sample = based_samples<kCodec>().front();
  CAISSON_RETURN_IF_ERROR(codec.decode(context, {}, bytes, sample_base<kCodec>(), raw));
  return sample;
}

}  // namespace

const std::vector<DecoderCase>& decoder_cases() {
  static const std::vector<DecoderCase> cases = {
      {"envelope", envelope_samples, reseal_envelope, round_trip_envelope},
      {"store_file", store_file_samples, reseal_envelope, round_trip_store_file},
      {"spread_store_file", spread_store_file_samples, reseal_envelope, round_trip_store_file},
      {"directories", directories_samples, reseal_envelope, round_trip_directories},
      {"directory_marker", directory_marker_samples, reseal_envelope, round_trip_directory_marker},
      {"log_record", log_record_samples, reseal_envelope, round_trip_log_record},
      {"root", root_samples, reseal_envelope, round_trip_root},
      {"packs", packs_samples, [](MutableBytes b) { reseal_table(b, kSampleTablesOffset); },
       round_trip_packs},
      {"part_packs", part_packs_samples,
       [](MutableBytes b) { reseal_table(b, kSampleTablesOffset); }, round_trip_part_packs},
      {"pack_header", pack_header_samples, reseal_envelope, round_trip_pack_header},
      {"segment", segment_samples, [](MutableBytes b) { reseal_segment(b, kBlockBytes); },
       round_trip_segment},
      {"pack_footer", footer_samples, reseal_footer, round_trip_footer},
      {"entry_block", entry_block_samples,
       [](MutableBytes b) { reseal_framed(b, salt_of(sample_uuid(7), 3 * kBlockBytes)); },
       round_trip_entry_block},
      {"pack_list", pack_list_samples, reseal_envelope, round_trip_pack_list},
      {"part_trailer", part_trailer_samples, reseal_envelope, round_trip_part_trailer},
      {"directory_page", page_samples,
       [](MutableBytes b) { reseal_framed(b, salt_of(sample_uuid(9), 0)); }, round_trip_page},
      {"page_index", page_index_samples,
       [](MutableBytes b) { reseal_framed(b, salt_of(sample_uuid(9), kSampleIndexOffset)); },
       round_trip_page_index},
      {"base_ref", base_ref_samples, reseal_nothing, round_trip_base_ref},
      {"object_key", object_key_samples, reseal_nothing, round_trip_object_key},
      {"zstd", zstd_samples, reseal_nothing, round_trip_zstd},
      {"planes", float_samples<2>, reseal_nothing, round_trip_float<2>},
      {"entropy", float_samples<3>, reseal_nothing, round_trip_float<3>},
      {"twin", based_samples<4>, reseal_nothing, round_trip_based<4>},
      {"delta", based_samples<5>, reseal_nothing, round_trip_based<5>},
      {"sparse", sparse_samples, reseal_nothing, round_trip_sparse},
  };
  return cases;
}

const DecoderCase& decoder_case(std::string_view name) {
  for (const DecoderCase& decoder : decoder_cases()) {
    if (decoder.name == name) return decoder;
  }
  CAISSON_CHECK(false);
}

bool check_decoder(const DecoderCase& decoder, Bytes input) {
  const Result<ByteVector> once = decoder.round_trip(input);
  if (!once.ok()) {
    CAISSON_CHECK(!once.status().message().empty());
    return false;
  }
  const Result<ByteVector> twice = decoder.round_trip(*once);
  CAISSON_CHECK(twice.ok());
  CAISSON_CHECK(*once == *twice);
  return true;
}

}  // namespace caisson::testing

// The format's types, one by one: what was put in comes out, and what no correct writer writes is
// refused with a message that says where. The bytes themselves are pinned by their digests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string_view>

#include "engine/format/record.h"
#include "tests/support/alloc_meter.h"
#include "tests/support/decoder_cases.h"
#include "tests/support/format_samples.h"

namespace caisson::format {
namespace {

using ::testing::HasSubstr;
using namespace ::caisson::testing;

template <typename T>
void expect_code(const Result<T>& result, StatusCode code, std::string_view text) {
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), code) << result.status().to_string();
  EXPECT_THAT(std::string(result.status().message()), HasSubstr(text));
}

TEST(Format, BytesStayAsTheyAre) {
  // A change here is a new format: it needs a feature bit or a version, never a new digest.
  ByteVector all, spread;
  for (const DecoderCase& decoder : decoder_cases()) {
    // An encoder may find a better form any day.
    static const std::set<std::string_view> codecs = {"zstd", "planes", "entropy",
                                                      "twin", "delta",  "sparse"};
    if (codecs.contains(decoder.name)) continue;
    // Of the feature that stores in several directories have.
    static const std::set<std::string_view> later = {"spread_store_file", "directories",
                                                     "directory_marker"};
    ByteVector& bytes = later.contains(decoder.name) ? spread : all;
    for (const ByteVector& sample : decoder.samples()) {
      bytes.insert(bytes.end(), sample.begin(), sample.end());
    }
  }
  EXPECT_EQ(to_hex(digest_of(all)), "cf3e2d5768d9697e0fff46e39163f794");
  EXPECT_EQ(to_hex(digest_of(spread)), "4d7210efd65526e2cc80e85357c78d9a");
}

TEST(Envelope, NewerVersionsAndFeatures) {
  const ByteVector good = encode_envelope("CSN_TEST", sample_uuid(1), as_bytes("x"));
  const auto with = [&](size_t at, uint8_t value) {
    ByteVector bytes = good;
    bytes[at] = static_cast<std::byte>(value);
    decoder_case("envelope").reseal(bytes);
    return bytes;
  };
  expect_code(decode_envelope("CSN_TEST", with(8, 2), "x"), StatusCode::kUnsupported, "version 2");
  expect_code(decode_envelope("CSN_TEST", with(8, 0), "x"), StatusCode::kCorruption, "version");
  expect_code(decode_envelope("CSN_TEST", with(10, 65), "x"), StatusCode::kCorruption, "header");
  expect_code(decode_envelope("CSN_TEST", with(20, 1), "x"), StatusCode::kUnsupported, "features");
  expect_code(decode_envelope("CSN_OTHR", good, "obj"), StatusCode::kCorruption, "obj at offset 0");
  // Compatible features are ignored; read-only-compatible ones forbid writing.
  const ByteVector compatible = with(12, 1), read_only = with(16, 1);
  EXPECT_TRUE(may_write(decode_envelope("CSN_TEST", compatible, "x").value().features));
  EXPECT_FALSE(may_write(decode_envelope("CSN_TEST", read_only, "x").value().features));
}

TEST(StoreFile, AloneMaySayThatPacksAreSpread) {
  const Features spread{.incompatible = kFeatureDirectories};
  const ByteVector bytes = encode_envelope("CSN_TEST", sample_uuid(1), as_bytes("x"), spread);
  expect_code(decode_envelope("CSN_TEST", bytes, "x"), StatusCode::kUnsupported, "features 1");
  EXPECT_TRUE(decode_envelope("CSN_TEST", bytes, "x", spread).ok());
  StoreFile store = sample_store_file();
  store.features = {.incompatible = 2};
  expect_code(decode_store_file(encode_store_file(store)), StatusCode::kUnsupported, "features 2");
}

TEST(Names, KeysAreCanonical) {
  const ObjectRef pack = sample_pack();
  EXPECT_EQ(pack.key(),
            "data/303132333435363738393a3b3c3d3e3f/404142434445464748494a4b4c4d4e4f-000005.pack");
  EXPECT_EQ(object_ref_of(pack.key()).value(), pack);
  const std::string base = pack.key().substr(0, pack.key().size() - 11);  // without 000005.pack
  for (const char* tail : {"00005.pack", "0000005.pack", "00000G.pack", "00000A.pack", "000005.bin",
                           "000005.pack.root", "000005", "100000000.pack", "-00005.pack"}) {
    EXPECT_FALSE(object_ref_of(base + tail).ok()) << tail;
  }
  EXPECT_EQ(log_key(18), "log/0000000000000012");
  EXPECT_EQ(snapshot_key(UINT64_MAX), "snapshots/ffffffffffffffff");
}

TEST(Names, Utf8AndRuns) {
  EXPECT_TRUE(is_utf8("a\u00fc\u20ac\U0001f600"));
  for (const char* bad : {"\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\x80", "\xc3", "a\xff"}) {
    EXPECT_FALSE(is_utf8(bad));
    EXPECT_FALSE(check_tensor_name(bad).ok());
    EXPECT_FALSE(check_run_name(bad).ok());
  }
  EXPECT_FALSE(check_tensor_name("").ok());
  EXPECT_FALSE(check_tensor_name(std::string_view("a\0b", 3)).ok());
  EXPECT_TRUE(check_tensor_name(std::string(4096, 'x')).ok());
  EXPECT_FALSE(check_tensor_name(std::string(4097, 'x')).ok());
  EXPECT_TRUE(check_run_name("llama/70b").ok());
  for (const char* bad : {"", "/a", "a/", "a//b", "a\nb", "a\x7f"}) {
    EXPECT_FALSE(check_run_name(bad).ok()) << bad;
  }
}

TEST(Chunk, EntriesOutOfRangeAreRefused) {
  ChunkEntry good = sample_entry(128, 1000);
  std::array<std::byte, kEntryBytes> bytes{};
  store_entry(bytes.data(), good);
  EXPECT_EQ(load_entry(bytes.data(), "p").value(), good);
  const auto refused = [&](size_t at, uint32_t value) {
    auto bad = bytes;
    store_le(bad.data() + at, value);
    return !load_entry(bad.data(), "p").ok();
  };
  EXPECT_TRUE(refused(24, 0));  // raw bytes
  EXPECT_TRUE(refused(24, kChunkRawBytesMax + 1));
  EXPECT_TRUE(refused(28, 0));  // stored bytes
  EXPECT_TRUE(refused(28, 1065));
  EXPECT_TRUE(refused(28, 999));                     // raw, but fewer
  EXPECT_TRUE(refused(36, kPackInline | 1u << 16));  // inline and encoded
  EXPECT_TRUE(refused(36, 2u << 24));                // unknown flag
  EXPECT_TRUE(refused(36, 8u << 24));
  EXPECT_TRUE(refused(36, 1u << 24));  // raw with a base
  // Why it has its codec is for display: what a later version says is taken, and told as such.
  good.reason = static_cast<CodecReason>(kCodecReasonMax);
  store_entry(bytes.data(), good);
  EXPECT_EQ(load_entry(bytes.data(), "p").value(), good);
  EXPECT_EQ(to_string(good.reason), "a reason of a newer version");
  EXPECT_EQ(to_string(CodecReason::kNotSmaller), "not smaller");
}

TEST(Pack, RoundTrip) {
  const std::vector<Segment> segments = sample_segments();
  const ByteVector footer = encode_pack_footer(sample_pack(), sample_footer_offset(), segments);
  const uint64_t bytes = sample_footer_offset() + footer.size();
  EXPECT_EQ(footer_offset_of(sample_pack(), bytes, Bytes(footer).last(kBlockBytes)).value(),
            sample_footer_offset());
  const PackFooter decoded = decode_pack_footer(sample_pack(), bytes, footer).value();
  ASSERT_EQ(decoded.segments.size(), segments.size());
  for (size_t i = 0; i < segments.size(); ++i) {
    EXPECT_EQ(decoded.segments[i].offset, segments[i].offset);
    EXPECT_EQ(decoded.segments[i].bytes, segments[i].bytes);
    EXPECT_EQ(decoded.segments[i].entries, segments[i].entries);
  }
  EXPECT_EQ(decoded.digest, digest_of(footer));
}

TEST(Pack, BytesOfAnotherPlaceOrPackAreRefused) {
  ObjectRef other = sample_pack();
  other.number += 1;
  const ByteVector header = encode_pack_header(sample_pack());
  EXPECT_TRUE(check_pack_header(sample_pack(), header).ok());
  EXPECT_EQ(check_pack_header(other, header).code(), StatusCode::kCorruption);
  ByteVector block(kBlockBytes);
  encode_segment_directory(sample_pack(), sample_segments().front(), block);
  expect_code(decode_segment_directory(other, kBlockBytes, block), StatusCode::kCorruption, "4096");
  expect_code(decode_segment_directory(sample_pack(), 2 * kBlockBytes, block),
              StatusCode::kCorruption, "at offset 8192");
  EXPECT_NE(pack_salt(other, 0), pack_salt(sample_pack(), 0));
  EXPECT_NE(pack_salt(sample_pack(), 64), pack_salt(sample_pack(), 0));
}

TEST(Pack, OverlappingChunksAreRefused) {
  ByteVector block(kBlockBytes);
  encode_segment_directory(sample_pack(), sample_segments().front(), block);
  // The second entry starts where the first does.
  std::copy_n(block.begin() + 96 + 32, 4, block.begin() + 96 + 40 + 32);
  decoder_case("segment").reseal(block);
  expect_code(decode_segment_directory(sample_pack(), kBlockBytes, block), StatusCode::kCorruption,
              "overlap");
}

TEST(Part, EntryBlocksKnowTheirPlace) {
  const std::vector<ChunkEntry> entries = sample_table_entries(5);
  ByteVector block(kBlockBytes);
  encode_entry_block(sample_uuid(7), 3, entries, block);
  EXPECT_EQ(decode_entry_block(sample_uuid(7), 3, block, "p").value(), entries);
  EXPECT_FALSE(decode_entry_block(sample_uuid(7), 2, block, "p").ok());
  expect_code(decode_entry_block(sample_uuid(8), 3, block, "p"), StatusCode::kCorruption,
              "p at offset 12288");
}

TEST(Part, TrailerRoundTrip) {
  const PartTrailer in = sample_part_trailer();
  const uint64_t bytes = in.packs_offset + in.packs_bytes + kBlockBytes;
  const PartTrailer out = decode_part_trailer(in.part, bytes, encode_part_trailer(in), "p").value();
  EXPECT_EQ(std::tie(out.part, out.rank, out.entries, out.inline_offset, out.inline_bytes,
                     out.directory_offset, out.directory_index_offset, out.directory_bytes),
            std::tie(in.part, in.rank, in.entries, in.inline_offset, in.inline_bytes,
                     in.directory_offset, in.directory_index_offset, in.directory_bytes));
  EXPECT_EQ(std::tie(out.tensors, out.packs_offset, out.packs_bytes, out.raw_bytes,
                     out.stored_bytes, out.body_digest),
            std::tie(in.tensors, in.packs_offset, in.packs_bytes, in.raw_bytes, in.stored_bytes,
                     in.body_digest));
  EXPECT_FALSE(decode_part_trailer(in.part, bytes - 1, encode_part_trailer(in), "p").ok());
}

TEST(Directory, RoundTripOverManyPages) {
  DirectoryEncoder encoder(sample_uuid(9));
  std::vector<TensorRecord> in;
  ByteVector bytes;
  for (int i = 0; i < 300; ++i) {
    for (TensorRecord& record : sample_records()) {
      record.spec.name += "." + std::to_string(i);
      encoder.add(record);
      in.push_back(std::move(record));
    }
    const ByteVector pages = encoder.take_pages();
    bytes.insert(bytes.end(), pages.begin(), pages.end());
  }
  const ByteVector rest = encoder.finish();
  bytes.insert(bytes.end(), rest.begin(), rest.end());
  EXPECT_EQ(encoder.tensors(), in.size());
  const std::vector<DirectoryPage> pages =
      decode_page_index(sample_uuid(9), encoder.index_offset(),
                        Bytes(bytes).subspan(encoder.index_offset()), "d")
          .value();
  EXPECT_GT(pages.size(), 1u);
  size_t next = 0;
  for (const DirectoryPage& page : pages) {
    const std::vector<TensorRecord> records =
        decode_page(sample_uuid(9), page, Bytes(bytes).subspan(page.offset, page.bytes), "d")
            .value();
    for (const TensorRecord& out : records) {
      ASSERT_LT(next, in.size());
      const TensorRecord& expected = in[next++];
      EXPECT_EQ(out.spec, expected.spec);
      EXPECT_EQ(out.kind, expected.kind);
      EXPECT_EQ(out.alias_of, expected.alias_of);
      EXPECT_EQ(out.tile, expected.tile);
      EXPECT_EQ(out.shards, expected.shards);
    }
  }
  EXPECT_EQ(next, in.size());
}

// A page of scalars with so many shards each, sealed; no encoder would write it.
ByteVector page_of_scalars(const std::vector<uint64_t>& shards) {
  ByteWriter page;
  page.put<uint64_t>(0);
  page.put_bytes(as_bytes("CSNT"));
  page.put<uint32_t>(static_cast<uint32_t>(shards.size()));
  for (size_t i = 0; i < shards.size(); ++i) {
    page.put_string(std::string(1, static_cast<char>('a' + i)));
    page.put<uint8_t>(static_cast<uint8_t>(DTypeCode::kUInt));
    page.put<uint8_t>(8);
    page.put<uint8_t>(0);  // a tensor
    page.put<uint8_t>(0);  // of no dimensions
    page.put_varint(shards[i]);
    for (uint64_t k = 0; k < shards[i]; ++k) {
      page.put<uint8_t>(1 | 2 | 4);  // everything of it, on the tile grid
      page.put<uint32_t>(0);
      page.put<uint64_t>(k);
    }
  }
  store_le(page.mutable_bytes().data(),
           checksum64(page.bytes().subspan(8), salt_of(sample_uuid(9), 0)));
  return page.take();
}
Result<std::vector<TensorRecord>> decode_scalars(Bytes page, size_t records) {
  return decode_page(sample_uuid(9),
                     {.first_name = "a",
                      .offset = 0,
                      .bytes = static_cast<uint32_t>(page.size()),
                      .records = static_cast<uint32_t>(records)},
                     page, "d");
}

TEST(Directory, APageAsksForNoMoreMemoryThanItsBound) {
  const ByteVector fits = page_of_scalars({3, 2, 5000});
  EXPECT_EQ(decode_scalars(fits, 3).value()[2].shards.size(), 5000u);
  // A shard in memory takes some twenty times its bytes here: refused before that is allocated.
  const ByteVector many = page_of_scalars({kShardsMax + 1});
  const uint64_t before = AllocMeter::bytes();
  expect_code(decode_scalars(many, 1), StatusCode::kCorruption, "more shards than it can");
  EXPECT_LT(AllocMeter::bytes() - before, 10'000u);
  expect_code(decode_scalars(page_of_scalars({6000, 1}), 2), StatusCode::kCorruption,
              "should have ended");
  expect_code(decode_scalars(page_of_scalars(std::vector<uint64_t>(kPageRecordsMax + 1, 0)),
                             kPageRecordsMax + 1),
              StatusCode::kCorruption, "not what the page index says");
}

TEST(Directory, AnEmptyOneIsAnIndexWithoutPages) {
  DirectoryEncoder encoder(sample_uuid(9));
  const ByteVector bytes = encoder.finish();
  EXPECT_EQ(encoder.index_offset(), 0u);
  EXPECT_TRUE(decode_page_index(sample_uuid(9), 0, bytes, "d").value().empty());
}

TEST(Root, RoundTrip) {
  const Root in = sample_root();
  const EncodedRoot encoded = encode_root(in, sample_pack_tables());
  const Bytes whole = encoded.bytes;
  EXPECT_EQ(encoded.sealed.bytes, whole.size());
  const auto head = static_cast<size_t>(root_head_bytes(whole.first(kEnvelopeBytes), "r").value());
  EXPECT_EQ(encoded.sealed.digest, digest_of(whole.first(head)));
  const Root out = decode_root(in.object, whole.size(), whole.first(head), "r").value();
  const PackTables tables = decode_pack_tables(out, whole.subspan(head), "r").value();
  EXPECT_EQ(tables.packs, sample_pack_tables().packs);
  EXPECT_EQ(tables.of_parts, sample_pack_tables().of_parts);
  EXPECT_EQ(std::tie(out.object, out.run, out.step, out.epoch, out.created_unix_ns,
                     out.metadata_json, out.packs, out.directory, out.directory_index_offset),
            std::tie(in.object, in.run, in.step, in.epoch, in.created_unix_ns, in.metadata_json,
                     in.packs, in.directory, in.directory_index_offset));
  EXPECT_EQ(std::tie(out.tensors, out.raw_bytes, out.stored_bytes),
            std::tie(in.tensors, in.raw_bytes, in.stored_bytes));
  ASSERT_EQ(out.parts.size(), in.parts.size());
  for (size_t i = 0; i < in.parts.size(); ++i) {
    EXPECT_EQ(std::tie(out.parts[i].part, out.parts[i].rank, out.parts[i].entries,
                       out.parts[i].inline_offset, out.parts[i].inline_bytes, out.parts[i].packs),
              std::tie(in.parts[i].part, in.parts[i].rank, in.parts[i].entries,
                       in.parts[i].inline_offset, in.parts[i].inline_bytes, in.parts[i].packs));
  }
  ObjectRef other = in.object;
  other.number = 1;
  expect_code(decode_root(other, whole.size(), whole.first(head), "r"), StatusCode::kCorruption,
              "is of");
  expect_code(decode_root(in.object, whole.size() + 1, whole.first(head), "r"),
              StatusCode::kCorruption, "do not fill");
  // Blocks that are sound by themselves, but not those that the head vouches for.
  PackTables others = sample_pack_tables();
  others.packs.back().bytes += 1;
  const ByteVector behind = encode_pack_tables(in.object.writer, head, others);
  ASSERT_EQ(behind.size(), whole.size() - head);
  expect_code(decode_pack_tables(out, behind, "r"), StatusCode::kCorruption, "not the head's");
}

TEST(StoreFile, UnknownHashIsUnsupported) {
  ByteVector bytes = encode_store_file(sample_store_file());
  bytes[kEnvelopeBytes + 16] = std::byte{2};
  decoder_case("store_file").reseal(bytes);
  expect_code(decode_store_file(bytes), StatusCode::kUnsupported, "hash kind 2");
}

TEST(Log, RoundTripOfEveryBody) {
  for (const LogBody& body : sample_log_bodies()) {
    const LogRecord in = sample_log_record(body);
    const LogRecord out = decode_log_record(in.seq, encode_log_record(in)).value();
    EXPECT_EQ(std::tie(out.seq, out.nonce, out.writer, out.body),
              std::tie(in.seq, in.nonce, in.writer, in.body));
    expect_code(decode_log_record(in.seq + 1, encode_log_record(in)), StatusCode::kCorruption,
                "log/0000000000001235");
  }
}

TEST(Log, UnknownTypesAreUnsupported) {
  ByteVector bytes = encode_log_record(sample_log_record(PruneRecord{.checkpoint = 1}));
  bytes[kEnvelopeBytes + 8] = std::byte{8};
  decoder_case("log_record").reseal(bytes);
  expect_code(decode_log_record(kSampleSeq, bytes), StatusCode::kUnsupported, "type 8");
}

}  // namespace
}  // namespace caisson::format

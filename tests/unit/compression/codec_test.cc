// Codecs: what is encoded decodes to itself, hostile bytes are corruption, the choice is stable.
#include "compression/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "compression/choose.h"

namespace caisson {
namespace {

ByteVector compressible(size_t bytes) {
  ByteVector data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i / 64 % 5);
  return data;
}
ByteVector random_bytes(size_t bytes) {
  std::mt19937_64 random(7);
  ByteVector data(bytes);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random());
  return data;
}
// bf16 of like magnitudes.
ByteVector numbers(size_t bytes) {
  ByteVector data = random_bytes(bytes);
  for (size_t at = 1; at < bytes; at += 2)
    data[at] = (data[at] & std::byte{0x81}) | std::byte{0x3c};
  return data;
}

TEST(Codec, Registry) {
  EXPECT_EQ(find_codec(uint8_t{0}).value()->id(), CodecId::kRaw);
  EXPECT_EQ(find_codec("zstd").value()->id(), CodecId::kZstd);
  EXPECT_EQ(find_codec(uint8_t{2}).value()->name(), "planes");
  EXPECT_EQ(find_codec(uint8_t{3}).value()->name(), "entropy");
  EXPECT_EQ(find_codec(uint8_t{4}).value()->name(), "twin");
  EXPECT_EQ(find_codec(uint8_t{5}).value()->name(), "delta");
  EXPECT_EQ(find_codec("sparse").value()->id(), CodecId::kSparse);
  // Codecs with a base are not asked for by name.
  EXPECT_EQ(find_codec("twin").status().code(), StatusCode::kInvalidArgument);
  for (const int id : {7, 255}) {
    EXPECT_EQ(find_codec(static_cast<uint8_t>(id)).status().code(), StatusCode::kUnsupported);
  }
  const Status unknown = find_codec("lz4").status();
  EXPECT_EQ(unknown.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(unknown.to_string(), ::testing::HasSubstr("\"raw\", \"zstd\""));
}

TEST(Codec, RoundTripsOrSaysThatNothingIsGained) {
  CodecContext context;
  for (const char* name : {"raw", "zstd"}) {
    const Codec& codec = *find_codec(name).value();
    for (const size_t bytes : {size_t{1}, size_t{300}, size_t{1} << 20}) {
      const ByteVector raw = compressible(bytes);
      ByteVector stored(bytes + 64), out(bytes);
      const size_t size = codec.encode(context, {}, raw, {}, stored).value();
      ASSERT_GT(size, 0u);
      ASSERT_LT(size, stored.size());
      ASSERT_TRUE(codec.decode(context, {}, Bytes(stored).first(size), {}, out).ok());
      EXPECT_EQ(out, raw);
    }
    const ByteVector noise = random_bytes(4096);
    ByteVector stored(noise.size());
    EXPECT_EQ(codec.encode(context, {}, noise, {}, stored).value(), 0u) << name;
  }
}

TEST(Codec, ZstdTakesExactlyOneFrameOfTheRightSize) {
  CodecContext context;
  const Codec& zstd = *find_codec("zstd").value();
  const ByteVector raw = compressible(5000);
  ByteVector stored(raw.size()), out(raw.size());
  stored.resize(zstd.encode(context, {}, raw, {}, stored).value());
  ASSERT_TRUE(zstd.decode(context, {}, stored, {}, out).ok());
  const auto refused = [&](Bytes bytes, size_t raw_bytes) {
    ByteVector into(raw_bytes);
    return zstd.decode(context, {}, bytes, {}, into).code() == StatusCode::kCorruption;
  };
  EXPECT_TRUE(refused(stored, raw.size() - 1));
  EXPECT_TRUE(refused(stored, raw.size() + 1));
  EXPECT_TRUE(refused({}, raw.size()));
  ByteVector twice = stored;
  twice.insert(twice.end(), stored.begin(), stored.end());
  EXPECT_TRUE(refused(twice, raw.size()));
  for (size_t size = 0; size < stored.size(); ++size) {
    EXPECT_TRUE(refused(Bytes(stored).first(size), raw.size())) << size;
  }
  // After failures the context still works.
  EXPECT_TRUE(zstd.decode(context, {}, stored, {}, out).ok());
}

TEST(Choose, NoiseIsRawTextIsZstdNumbersArePlanes) {
  CodecContext context;
  const ElementFormat bytes{.code = 1, .bits = 8}, bf16{.code = 4, .bits = 16};
  const ByteVector text = compressible(1 << 20), noise = random_bytes(1 << 20);
  EXPECT_EQ(choose_codec(context, bytes, text), CodecId::kZstd);
  EXPECT_EQ(choose_codec(context, bf16, noise), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, {.code = 17, .bits = 4}, noise), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bytes, noise), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bytes, Bytes(text).first(100)), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bytes, Bytes(text).first(1000)), CodecId::kZstd);
  EXPECT_EQ(choose_codec(context, bytes, {}), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bf16, {}), CodecId::kRaw);

  EXPECT_EQ(choose_codec(context, bf16, numbers(1 << 20)), CodecId::kBitPlanes);
}

// Sets to zero what lies in blocks [from, to) of every `of`.
ByteVector without_blocks(ByteVector bytes, size_t from, size_t to, size_t of) {
  for (size_t at = 0; at < bytes.size(); ++at) {
    const size_t block = at / 64 % of;
    if (block >= from && block < to) bytes[at] = std::byte{0};
  }
  return bytes;
}

TEST(Choose, RowsOfZerosAreLeftOutWhereTheyAreASixteenth) {
  CodecContext context;
  const ElementFormat bf16{.code = 4, .bits = 16}, fp4{.code = 17, .bits = 4},
      int16{.code = 0, .bits = 16};
  for (const size_t bytes : {size_t{1} << 20, size_t{37 * 128 * 64 + 1}}) {
    const ByteVector all = numbers(bytes);
    EXPECT_EQ(choose_codec(context, bf16, without_blocks(all, 0, 1, 37)), CodecId::kBitPlanes);
    EXPECT_EQ(choose_codec(context, bf16, without_blocks(all, 3, 8, 37)), CodecId::kSparse);
    EXPECT_EQ(choose_codec(context, bf16, without_blocks(all, 0, 36, 37)), CodecId::kSparse);
    EXPECT_EQ(choose_codec(context, bf16, ByteVector(bytes)), CodecId::kSparse);
    // Whatever it is that is kept, but not of integers.
    EXPECT_EQ(choose_codec(context, fp4, without_blocks(random_bytes(bytes), 3, 8, 37)),
              CodecId::kSparse);
    EXPECT_EQ(choose_codec(context, int16, without_blocks(all, 3, 8, 37)), CodecId::kZstd);
  }
  // Zeros in every block, as numbers of few bits have them, with rows of zeros or without.
  ByteVector few = numbers(1 << 20);
  for (size_t at = 0; at < few.size(); at += 2) few[at] = std::byte{0};
  EXPECT_EQ(choose_codec(context, bf16, few), CodecId::kZstd);
  EXPECT_EQ(choose_codec(context, bf16, without_blocks(few, 3, 8, 37)), CodecId::kZstd);
}

TEST(Choose, WhatAChunkTakesAloneIsKnownFromTheLook) {
  CodecContext context;
  const ElementFormat bf16{.code = 4, .bits = 16};
  const ByteVector all = numbers(1 << 20);
  for (const size_t zero : {0, 1, 9, 30}) {
    const ByteVector raw = without_blocks(all, 0, zero, 37);
    const CodecId chosen = choose_codec(context, bf16, raw);
    ByteVector stored(raw.size());
    const auto takes = static_cast<double>(find_codec(static_cast<uint8_t>(chosen))
                                               .value()
                                               ->encode(context, bf16, raw, {}, stored)
                                               .value());
    EXPECT_NEAR(static_cast<double>(bytes_alone(bf16, raw)) / takes, 1, 0.15) << zero;
  }
  EXPECT_EQ(bytes_alone(bf16, random_bytes(1 << 20)), 1u << 20);
  EXPECT_EQ(bytes_alone({.code = 1, .bits = 8}, ByteVector(1 << 20)), 1u << 20);
}

}  // namespace
}  // namespace caisson

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

TEST(Codec, Registry) {
  EXPECT_EQ(find_codec(uint8_t{0}).value()->id(), CodecId::kRaw);
  EXPECT_EQ(find_codec("zstd").value()->id(), CodecId::kZstd);
  EXPECT_EQ(find_codec(uint8_t{2}).value()->name(), "planes");
  EXPECT_EQ(find_codec(uint8_t{3}).value()->name(), "entropy");
  EXPECT_EQ(find_codec(uint8_t{4}).value()->name(), "twin");
  EXPECT_EQ(find_codec(uint8_t{5}).value()->name(), "delta");
  // Codecs with a base are not asked for by name.
  EXPECT_EQ(find_codec("twin").status().code(), StatusCode::kInvalidArgument);
  for (const int id : {7, 255}) {
    EXPECT_EQ(find_codec(static_cast<uint8_t>(id)).status().code(), StatusCode::kUnsupported);
  }
  const Status unknown = find_codec("lz4").status();
  EXPECT_EQ(unknown.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(find_codec("sparse").value()->id(), CodecId::kSparse);
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
  EXPECT_EQ(choose_codec(context, {.code = 17, .bits = 4}, text), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bytes, noise), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bytes, Bytes(text).first(100)), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bytes, Bytes(text).first(1000)), CodecId::kZstd);
  EXPECT_EQ(choose_codec(context, bytes, {}), CodecId::kRaw);
  EXPECT_EQ(choose_codec(context, bf16, {}), CodecId::kRaw);

  ByteVector numbers = noise;  // bf16 of like magnitudes
  for (size_t at = 1; at < numbers.size(); at += 2) numbers[at] &= std::byte{0x81};
  for (size_t at = 1; at < numbers.size(); at += 2) numbers[at] |= std::byte{0x3c};
  EXPECT_EQ(choose_codec(context, bf16, numbers), CodecId::kBitPlanes);
  // Rows that were never touched.
  std::fill(numbers.begin() + (1 << 18), numbers.begin() + 3 * (1 << 18), std::byte{0});
  EXPECT_EQ(choose_codec(context, bf16, numbers), CodecId::kZstd);
}

}  // namespace
}  // namespace caisson

// The table of hostile inputs: for every decoder, every truncation, every flipped bit, and every
// byte set to values that break lengths, counts and offsets, with and without the checksums made
// right again. A decoder answers with an error or a value, within a bound of memory; it never
// crashes and never gives another value for damaged bytes.
#include <gtest/gtest.h>

#include <array>

#include "tests/support/alloc_meter.h"
#include "tests/support/decoder_cases.h"

namespace caisson::testing {
namespace {

// What a decode, an encode and another decode may allocate for an input: a small multiple, and the
// messages.
constexpr uint64_t kBytesPerByte = 200;
constexpr uint64_t kBytesFixed = 512 << 10;

class Hostile : public ::testing::TestWithParam<DecoderCase> {
 protected:
  // Errors or the very same bytes: there is no other value for bytes that were damaged unsealed.
  void expect_refused_or_same(Bytes damaged, Bytes sample, const std::string& how) {
    const Result<ByteVector> out = GetParam().round_trip(damaged);
    if (!out.ok()) {
      const StatusCode code = out.status().code();
      EXPECT_TRUE(code == StatusCode::kCorruption || code == StatusCode::kUnsupported ||
                  code == StatusCode::kInvalidArgument)
          << how << ": " << out.status().to_string();
      return;
    }
    EXPECT_TRUE(std::ranges::equal(*out, sample) || std::ranges::equal(*out, damaged)) << how;
  }

  bool accepts_resealed(MutableBytes bytes) {
    GetParam().reseal(bytes);
    const uint64_t before = AllocMeter::bytes();
    const bool accepted = check_decoder(GetParam(), bytes);
    EXPECT_LE(AllocMeter::bytes() - before, kBytesFixed + kBytesPerByte * bytes.size());
    return accepted;
  }

  // Samples with long payloads are walked in steps, so that the whole table takes seconds.
  static size_t step_for(size_t bytes) { return bytes / 1500 + 1; }
};

TEST_P(Hostile, SamplesRoundTrip) {
  for (const ByteVector& sample : GetParam().samples()) {
    const Result<ByteVector> out = GetParam().round_trip(sample);
    ASSERT_TRUE(out.ok()) << out.status().to_string();
    EXPECT_EQ(*out, sample);
  }
}

TEST_P(Hostile, ResealingASampleChangesNothing) {
  for (const ByteVector& sample : GetParam().samples()) {
    ByteVector resealed = sample;
    GetParam().reseal(resealed);
    EXPECT_EQ(resealed, sample);
  }
}

TEST_P(Hostile, EveryTruncation) {
  for (const ByteVector& sample : GetParam().samples()) {
    for (size_t size = 0; size < sample.size(); size += step_for(sample.size())) {
      ByteVector cut(sample.begin(), sample.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_FALSE(GetParam().round_trip(cut).ok()) << "cut to " << size;
      accepts_resealed(cut);
    }
    ByteVector longer = sample;
    longer.push_back(std::byte{0});
    if (GetParam().name != "base_ref") {  // more bytes follow it: the stored form
      EXPECT_FALSE(GetParam().round_trip(longer).ok());
    }
    accepts_resealed(longer);
  }
}

TEST_P(Hostile, EveryBit) {
  for (const ByteVector& sample : GetParam().samples()) {
    ByteVector damaged = sample;
    for (size_t at = 0; at < sample.size(); at += step_for(sample.size())) {
      for (int bit = 0; bit < 8; ++bit) {
        damaged[at] ^= static_cast<std::byte>(1 << bit);
        expect_refused_or_same(damaged, sample,
                               "bit " + std::to_string(bit) + " of " + std::to_string(at));
        ByteVector resealed = damaged;
        accepts_resealed(resealed);
        damaged[at] = sample[at];
      }
    }
  }
}

TEST_P(Hostile, LengthsCountsAndOffsets) {
  constexpr std::array<uint64_t, 7> kValues = {
      0, 1, 0x7fff'ffff, 0xffff'ffff, uint64_t{1} << 63, UINT64_MAX, UINT64_MAX / 40};
  for (const ByteVector& sample : GetParam().samples()) {
    for (size_t at = 0; at + 8 <= sample.size(); at += step_for(sample.size())) {
      for (const uint64_t value : kValues) {
        ByteVector damaged = sample;
        store_le(damaged.data() + at, value);
        accepts_resealed(damaged);
        damaged = sample;
        store_le(damaged.data() + at, static_cast<uint32_t>(value));
        accepts_resealed(damaged);
      }
    }
  }
}

TEST_P(Hostile, HugeVarints) {
  // A varint of 2^64 - 1, of 2^63, one that never ends and one that is longer than it need be.
  const std::array<ByteVector, 4> kVarints = {
      ByteVector(9, std::byte{0xff}), ByteVector(9, std::byte{0x80}),
      ByteVector(11, std::byte{0x80}), ByteVector{std::byte{0x81}, std::byte{0x00}}};
  for (const ByteVector& sample : GetParam().samples()) {
    for (size_t at = 0; at + 12 <= sample.size(); at += step_for(sample.size())) {
      for (const ByteVector& varint : kVarints) {
        ByteVector damaged = sample;
        std::ranges::copy(varint, damaged.begin() + static_cast<ptrdiff_t>(at));
        if (varint.size() == 9) damaged[at + 9] = std::byte{0x01};
        accepts_resealed(damaged);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Decoders, Hostile, ::testing::ValuesIn(decoder_cases()),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace caisson::testing

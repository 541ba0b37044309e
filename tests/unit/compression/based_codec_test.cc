// Codecs 4 and 5, which have a base: every bit pattern comes back, targets of size hold on numbers
// that are roundings or near, hostile bytes are corruption, every table of kernels computes what
// the scalar one does.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>

#include "compression/codec.h"
#include "compression/twin_kernels.h"

namespace caisson {
namespace {

constexpr ElementFormat kFp32{.code = 2, .bits = 32};
constexpr ElementFormat kBf16{.code = 4, .bits = 16};

const Codec& twin() { return *find_codec(uint8_t{4}).value(); }
const Codec& delta() { return *find_codec(uint8_t{5}).value(); }

ByteVector bytes_of(std::initializer_list<unsigned> values) {
  ByteVector bytes;
  for (const unsigned value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

ByteVector noise(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  ByteVector data(bytes);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random());
  return data;
}

ByteVector normal_fp32(size_t elements, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> value(0, 0.02f);
  ByteVector data(4 * elements);
  for (size_t i = 0; i < elements; ++i) {
    const float x = value(random);
    std::memcpy(data.data() + 4 * i, &x, sizeof x);
  }
  return data;
}

enum class Rounding { kEven, kUp, kZero };

uint16_t rounded(uint32_t x, Rounding rounding) {
  const uint32_t half = rounding == Rounding::kUp     ? 0x8000
                        : rounding == Rounding::kEven ? 0x7fff + ((x >> 16) & 1)
                                                      : 0;
  return static_cast<uint16_t>((x + half) >> 16);
}

ByteVector rounded(Bytes fp32, Rounding rounding) {
  ByteVector out(fp32.size() / 2);
  for (size_t i = 0; i < out.size() / 2; ++i) {
    store_le(out.data() + 2 * i, rounded(load_le<uint32_t>(fp32.data() + 4 * i), rounding));
  }
  return out;
}

// The stored size; 0 when nothing was gained. Decodes whatever came out, from an odd address too.
size_t check(const Codec& codec, ElementFormat format, Bytes raw, Bytes base) {
  CodecContext context;
  ByteVector stored(raw.size());
  const Result<size_t> size = codec.encode(context, format, raw, base, stored);
  EXPECT_TRUE(size.ok()) << size.status().to_string();
  if (!size.ok() || *size == 0) return 0;
  EXPECT_LT(*size, stored.size());
  // Exactly the stored bytes, so that a sanitizer sees a read behind them.
  const ByteVector exact(stored.begin(), stored.begin() + static_cast<ptrdiff_t>(*size));
  ByteVector out(raw.size() + 1);
  const MutableBytes odd = MutableBytes(out).subspan(1);
  const Status status = codec.decode(context, {}, exact, base, odd);  // without the element kind
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_TRUE(std::equal(odd.begin(), odd.end(), raw.begin(), raw.end()));
  return *size;
}

TEST(Twin, HalvesTheRoundingsOfEveryKind) {
  for (const Rounding rounding : {Rounding::kEven, Rounding::kUp, Rounding::kZero}) {
    for (const size_t elements : {1024, 4095, 4096, 4097, 200'001}) {
      const ByteVector raw = normal_fp32(elements, elements);
      const size_t stored = check(twin(), kFp32, raw, rounded(raw, rounding));
      ASSERT_NE(stored, 0u) << elements;
      // The header, and few exceptions: one tie in 2^17.
      EXPECT_LE(stored, 48 + 2 * elements + 6 * (elements / 10'000 + 2));
    }
  }
}

TEST(Twin, KeepsEveryHighHalfWithEveryLowHalf) {
  // All 2^16 high halves, NaN payloads and infinities among them, each with the low halves around
  // the thresholds, after a run that makes the sample promise twins.
  for (const Rounding rounding : {Rounding::kEven, Rounding::kUp, Rounding::kZero}) {
    ByteVector raw = normal_fp32(1 << 20, 3);
    size_t at = 4096;
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      for (uint32_t high = 0; high < 0x10000; ++high, at += 4) {
        store_le(raw.data() + at, (high << 16) | low);
      }
    }
    EXPECT_NE(check(twin(), kFp32, raw, rounded(raw, rounding)), 0u);
  }
}

TEST(Twin, KeepsWhatItsBaseDoesNotPredict) {
  ByteVector raw = normal_fp32(100'000, 5);
  const ByteVector base = rounded(raw, Rounding::kEven);
  std::mt19937_64 random(6);
  for (size_t i = 0; i < 500; ++i) {
    store_le(raw.data() + 4 * (random() % 100'000), static_cast<uint32_t>(random()));
  }
  const size_t stored = check(twin(), kFp32, raw, base);
  EXPECT_GT(stored, 200'000u + 6 * 450);
  EXPECT_LT(stored, 200'048u + 6 * 510);
}

TEST(Twin, LeavesAloneWhatIsNone) {
  CodecContext context;
  const ByteVector raw = normal_fp32(10'000, 7);
  const ByteVector base = rounded(raw, Rounding::kEven);
  ByteVector stored(raw.size());
  EXPECT_EQ(twin().encode(context, kFp32, raw, noise(base.size(), 8), stored).value(), 0u);
  EXPECT_EQ(twin().encode(context, kFp32, raw, Bytes(base).first(100), stored).value(), 0u);
  EXPECT_EQ(twin().encode(context, kFp32, raw, {}, stored).value(), 0u);
  EXPECT_EQ(twin().encode(context, kBf16, raw, base, stored).value(), 0u);
  EXPECT_EQ(twin().encode(context, kFp32, Bytes(raw).first(4001), base, stored).value(), 0u);
  ByteVector small(20'048 + 64, std::byte{0x5a});
  EXPECT_EQ(twin().encode(context, kFp32, raw, base, MutableBytes(small).first(20'048)).value(),
            0u);
  for (size_t i = 20'048; i < small.size(); ++i) ASSERT_EQ(small[i], std::byte{0x5a});
}

// SPEC.md, "4 twin".
TEST(Twin, DecodesTheExampleOfTheSpecification) {
  CodecContext context;
  const ByteVector base = bytes_of({0x80, 0x3f, 0x81, 0x3f, 0x82, 0x3f});
  ByteVector stored = bytes_of({0x00, 0x80, 0, 0, 1, 0, 0, 0});
  stored.resize(48);
  for (const std::byte b : bytes_of({0x01, 0, 0xff, 0xff, 0, 0x80, 2, 0, 0, 0, 0x81, 0x3f})) {
    stored.push_back(b);
  }
  ByteVector raw(12);
  ASSERT_TRUE(twin().decode(context, {}, stored, base, raw).ok());
  EXPECT_EQ(raw, bytes_of({0x01, 0, 0x80, 0x3f, 0xff, 0xff, 0x80, 0x3f, 0, 0x80, 0x81, 0x3f}));
}

TEST(Delta, KeepsEveryBitAgainstAnyBase) {
  const ElementFormat formats[] = {{.code = 2, .bits = 64}, kFp32,
                                   {.code = 2, .bits = 16}, kBf16,
                                   {.code = 10, .bits = 8}, {.code = 5, .bits = 64},
                                   {.code = 0, .bits = 64}, {.code = 1, .bits = 8},
                                   {.code = 17, .bits = 4}};
  for (const ElementFormat format : formats) {
    SCOPED_TRACE("code " + std::to_string(format.code) + ", bits " + std::to_string(format.bits));
    for (const size_t bytes : {8192, 65536, 524'288, 524'296, 1'200'008}) {
      const ByteVector base = noise(bytes, bytes);
      ByteVector raw = base;
      EXPECT_LT(check(delta(), format, raw, base), 1000u);  // equal: sizes of planes alone
      for (size_t i = 0; i < raw.size(); i += 37) raw[i] ^= std::byte{0x41};
      check(delta(), format, raw, base);
      check(delta(), format, noise(bytes, 1), base);
    }
  }
  // Every bf16 against every distance that wraps; the equal other half is what is gained.
  ByteVector all(1 << 18), base(1 << 18);
  for (const unsigned distance : {1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
    for (unsigned i = 0; i < 1 << 16; ++i) {
      store_le(all.data() + 2 * i, static_cast<uint16_t>(i));
      store_le(base.data() + 2 * i, static_cast<uint16_t>(i + distance));
    }
    EXPECT_NE(check(delta(), kBf16, all, base), 0u) << distance;
  }
}

TEST(Delta, GainsWhatHardlyChanged) {
  const ByteVector before = normal_fp32(1 << 19, 1);
  ByteVector after = before;
  std::mt19937_64 random(2);
  std::normal_distribution<float> step(0, 2e-5f);
  for (size_t i = 0; i < after.size(); i += 4) {
    float x;
    std::memcpy(&x, after.data() + i, sizeof x);
    x += step(random);
    std::memcpy(after.data() + i, &x, sizeof x);
  }
  const ByteVector raw = rounded(after, Rounding::kEven);
  const size_t stored = check(delta(), kBf16, raw, rounded(before, Rounding::kEven));
  ASSERT_NE(stored, 0u);
  EXPECT_GT(static_cast<double>(raw.size()) / static_cast<double>(stored), 5);
}

// SPEC.md, "5 delta".
TEST(Delta, DecodesTheExampleOfTheSpecification) {
  CodecContext context;
  const ByteVector base = bytes_of({0x80, 0x3f, 0x80, 0xbf, 0x00, 0x80});
  ByteVector stored = bytes_of({2, 1});
  stored.resize(16);
  for (const std::byte b : bytes_of({3, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2})) stored.push_back(b);
  ByteVector raw(6);
  ASSERT_TRUE(delta().decode(context, {}, stored, base, raw).ok());
  EXPECT_EQ(raw, bytes_of({0x80, 0x3f, 0x81, 0xbf, 0, 0}));
}

TEST(BasedCodecs, HostileBytesAreCorruption) {
  CodecContext context;
  const ByteVector raw = normal_fp32(5000, 8);
  ByteVector wide = raw;  // for delta: some changes
  for (size_t i = 0; i < wide.size(); i += 52) wide[i] ^= std::byte{3};
  struct Case {
    const Codec& codec;
    ByteVector base;
  };
  for (const Case& c : {Case{twin(), rounded(raw, Rounding::kUp)}, Case{delta(), wide}}) {
    ByteVector stored(raw.size()), out(raw.size());
    stored.resize(c.codec.encode(context, kFp32, raw, c.base, stored).value());
    ASSERT_FALSE(stored.empty());
    const auto refused = [&](Bytes bytes, Bytes base, size_t raw_bytes) {
      ByteVector into(raw_bytes);
      return c.codec.decode(context, kFp32, bytes, base, into).code() == StatusCode::kCorruption;
    };
    for (size_t size = 0; size < stored.size(); size += size < 200 ? 1 : 97) {
      const ByteVector cut(stored.begin(), stored.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_TRUE(refused(cut, c.base, raw.size())) << size;
    }
    ByteVector longer = stored;
    longer.push_back(std::byte{0});
    EXPECT_TRUE(refused(longer, c.base, raw.size()));
    EXPECT_TRUE(refused(stored, c.base, raw.size() - 4));
    EXPECT_TRUE(refused(stored, c.base, raw.size() + 1));
    EXPECT_TRUE(refused(stored, Bytes(c.base).first(c.base.size() - 4), raw.size()));
    EXPECT_TRUE(refused(stored, {}, raw.size()));
    // Any other byte anywhere decodes to something or is refused; it never reads or writes outside.
    std::mt19937_64 random(11);
    for (int i = 0; i < 3000; ++i) {
      ByteVector bad = stored;
      const size_t at = random() % 3 == 0 ? random() % bad.size() : random() % 60;
      bad[at] = static_cast<std::byte>(random());
      (void)c.codec.decode(context, kFp32, bad, c.base, out);
    }
    EXPECT_TRUE(c.codec.decode(context, kFp32, stored, c.base, out).ok());
    EXPECT_EQ(out, raw);
  }
}

TEST(Twin, ExceptionsOutOfPlaceAreCorruption) {
  CodecContext context;
  const ByteVector base(6), low(6);
  ByteVector raw(12);
  const auto code_of = [&](uint32_t first, uint32_t second) {
    ByteVector stored(48 + 6 + 12);
    stored[4] = std::byte{2};
    store_le(stored.data() + 54, first);
    store_le(stored.data() + 60, second);
    return twin().decode(context, {}, stored, base, raw).code();
  };
  EXPECT_EQ(code_of(0, 2), StatusCode::kOk);
  EXPECT_EQ(code_of(1, 1), StatusCode::kCorruption);
  EXPECT_EQ(code_of(2, 1), StatusCode::kCorruption);
  EXPECT_EQ(code_of(1, 3), StatusCode::kCorruption);
  EXPECT_EQ(code_of(0xffffffff, 0), StatusCode::kCorruption);
}

TEST(TwinKernels, AreTheScalarOnes) {
  std::mt19937_64 random(1);
  for (const TwinKernels* kernels : runnable_twin_kernels()) {
    for (const uint16_t threshold : {kToNearestEven, kToNearestUp, kTowardZero, uint16_t{0}}) {
      for (const size_t n : {0, 1, 15, 16, 17, 31, 33, 64, 1000, 4096}) {
        SCOPED_TRACE(std::string(kernels->name) + ", " + std::to_string(threshold) + ", " +
                     std::to_string(n));
        ByteVector raw = noise(4 * n, random());
        ByteVector base = rounded(raw, Rounding::kUp);
        for (size_t i = 0; i + 1 < base.size(); i += 14)
          base[i] ^= static_cast<std::byte>(random());
        for (size_t i = 0; i < n; i += 5) {  // around the thresholds
          store_le(raw.data() + 4 * i, static_cast<uint16_t>(threshold + random() % 3 - 1));
        }
        ByteVector want_low(2 * n), low(2 * n), want_back(4 * n), back(4 * n);
        std::vector<uint16_t> want_wrong(n), wrong(n);
        want_wrong.resize(scalar_twin_kernels().split(threshold, raw.data(), base.data(), n,
                                                      want_low.data(), want_wrong.data()));
        wrong.resize(
            kernels->split(threshold, raw.data(), base.data(), n, low.data(), wrong.data()));
        EXPECT_EQ(low, want_low);
        EXPECT_EQ(wrong, want_wrong);
        scalar_twin_kernels().join(threshold, base.data(), low.data(), n, want_back.data());
        kernels->join(threshold, base.data(), low.data(), n, back.data());
        EXPECT_EQ(back, want_back);
      }
    }
  }
}

}  // namespace
}  // namespace caisson

// The float codecs: lossless for every bit pattern and length, never larger than raw, hostile bytes
// are corruption, and what exponents have in common is gained.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "compression/cascade.h"
#include "compression/codec.h"

namespace caisson {
namespace {

constexpr ElementFormat kBf16{.code = 4, .bits = 16};
constexpr ElementFormat kFp16{.code = 2, .bits = 16};
constexpr ElementFormat kFp32{.code = 2, .bits = 32};
constexpr ElementFormat kFp64{.code = 2, .bits = 64};
constexpr ElementFormat kE4M3{.code = 10, .bits = 8};
constexpr ElementFormat kE5M2{.code = 12, .bits = 8};
constexpr ElementFormat kComplex64{.code = 5, .bits = 64};
constexpr ElementFormat kFormats[] = {kBf16, kFp16, kFp32, kFp64, kE4M3, kE5M2, kComplex64};
constexpr const char* kNames[] = {"planes", "entropy"};

// The fp16 of an fp32, rounded to zero; what is too small for a normal one becomes zero.
uint16_t half_bits(uint32_t bits) {
  constexpr uint32_t kExponentDifference = 127 - 15;
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t exponent = bits >> 23 & 0xff;
  if (exponent <= kExponentDifference) return static_cast<uint16_t>(sign);
  const uint32_t magnitude = (bits & 0x7fffffff) >> 13;
  return static_cast<uint16_t>(sign | (magnitude - (kExponentDifference << 10)));
}

// Values of a normal distribution in the given format. An 8-bit float gets the top of its fp16.
ByteVector normal(ElementFormat format, size_t elements, double sigma, uint64_t seed,
                  bool positive = false) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> value(0, sigma);
  const size_t width = format.bits / 8u;
  ByteVector data(elements * width);
  for (size_t i = 0; i < elements; ++i) {
    const double x = positive ? std::abs(value(random)) : value(random);
    const auto single = static_cast<float>(x);
    uint32_t bits32;
    std::memcpy(&bits32, &single, sizeof bits32);
    std::byte* const to = data.data() + i * width;
    if (format.bits == 64 && format.code == 2) {
      std::memcpy(to, &x, sizeof x);
    } else if (format.bits == 64) {
      std::memcpy(to, &single, sizeof single);
      std::memcpy(to + 4, &single, sizeof single);
    } else if (format.bits == 32) {
      std::memcpy(to, &single, sizeof single);
    } else if (format.code == 4) {
      store_le(to, static_cast<uint16_t>(bits32 >> 16));
    } else {
      const uint16_t bits16 = half_bits(bits32);
      if (width == 2) {
        store_le(to, bits16);
      } else if (format.code == 12) {
        *to = static_cast<std::byte>(bits16 >> 8);
      } else {  // one exponent bit fewer, one mantissa bit more
        *to = static_cast<std::byte>(((bits16 >> 8) & 0x80) | ((bits16 >> 7) & 0x7f));
      }
    }
  }
  return data;
}

ByteVector noise(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  ByteVector data(bytes);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random());
  return data;
}

// The stored size; 0 when nothing was gained. Decodes whatever came out, from an odd address too.
size_t check(const Codec& codec, ElementFormat format, Bytes raw) {
  CodecContext context;
  ByteVector stored(raw.size());
  const Result<size_t> size = codec.encode(context, format, raw, {}, stored);
  EXPECT_TRUE(size.ok()) << size.status().to_string();
  if (!size.ok() || *size == 0) return 0;
  EXPECT_LT(*size, stored.size());
  // Exactly the stored bytes, so that a sanitizer sees a read behind them.
  const ByteVector exact(stored.begin(), stored.begin() + static_cast<ptrdiff_t>(*size));
  ByteVector out(raw.size() + 1);
  const MutableBytes odd = MutableBytes(out).subspan(1);
  const Status status = codec.decode(context, {}, exact, {}, odd);  // without the element kind
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_TRUE(std::equal(odd.begin(), odd.end(), raw.begin(), raw.end()));
  return *size;
}

TEST(FloatCodec, KeepsEveryBitOfEveryPattern) {
  for (const char* name : kNames) {
    const Codec& codec = *find_codec(name).value();
    for (const ElementFormat format : kFormats) {
      SCOPED_TRACE(std::string(name) + ", code " + std::to_string(format.code) + ", bits " +
                   std::to_string(format.bits));
      const size_t width = format.bits / 8u;
      for (const size_t elements : {1023, 1024, 4095, 4097, 65535, 65536, 65537, 200001}) {
        for (const size_t tail : {size_t{0}, width - 1}) {
          ByteVector raw = normal(format, elements, 0.02, elements);
          raw.resize(raw.size() + tail, std::byte{0xa5});
          check(codec, format, raw);
        }
      }
      // NaN payloads, infinities, denormals, both zeros: any bytes at all, and all the same.
      check(codec, format, noise(300'001, 9));
      check(codec, format, ByteVector(300'000, std::byte{0}));
      check(codec, format, ByteVector(300'000, std::byte{0xff}));
      // Every bf16 or fp16 there is, and a sample that promises what the rest does not keep.
      ByteVector all(1 << 17);
      for (size_t i = 0; i < all.size() / 2; ++i)
        store_le(all.data() + 2 * i, static_cast<uint16_t>(i));
      check(codec, format, all);
      ByteVector liar = normal(format, 1 << 18, 0.02, 4, true);
      const ByteVector wild = noise(4000, 5);
      std::copy(wild.begin(), wild.end(), liar.begin() + static_cast<ptrdiff_t>(width * 64 + 8));
      check(codec, format, liar);
    }
  }
}

TEST(FloatCodec, GainsWhatExponentsHaveInCommon) {
  struct Want {
    const char* codec;
    ElementFormat format;
    double ratio;
  };
  // The entropy of the exponents of a normal distribution is 2.55 bits: bf16 1.516, fp32 1.205.
  for (const Want want :
       {Want{"planes", kBf16, 1.48}, Want{"entropy", kBf16, 1.50}, Want{"planes", kFp32, 1.195},
        Want{"entropy", kFp32, 1.20}, Want{"planes", kFp16, 1.13}, Want{"planes", kFp64, 1.08}}) {
    const ByteVector raw = normal(want.format, 1 << 19, 0.02, 1);
    const size_t stored = check(*find_codec(want.codec).value(), want.format, raw);
    ASSERT_NE(stored, 0u);
    EXPECT_GE(static_cast<double>(raw.size()) / static_cast<double>(stored), want.ratio)
        << want.codec << ", bits " << int{want.format.bits};
  }
  // A sign that never changes is not stored.
  const ByteVector positive = normal(kFp32, 1 << 19, 0.02, 1, true);
  const size_t stored = check(*find_codec("planes").value(), kFp32, positive);
  EXPECT_GE(static_cast<double>(positive.size()) / static_cast<double>(stored), 1.235);
}

TEST(FloatCodec, LeavesAloneWhatGainsNothing) {
  CodecContext context;
  for (const char* name : kNames) {
    const Codec& codec = *find_codec(name).value();
    const ByteVector random = noise(1 << 20, 3);
    ByteVector stored(random.size() + 64);
    EXPECT_EQ(codec.encode(context, kBf16, random, {}, stored).value(), 0u);
    const ByteVector floats = normal(kBf16, 1 << 16, 1, 3);
    EXPECT_EQ(codec.encode(context, {.code = 1, .bits = 8}, floats, {}, stored).value(), 0u);
    // Into less room than it needs: nothing, and not a byte beyond.
    for (const size_t room : {size_t{0}, size_t{63}, size_t{64}, size_t{1000}, size_t{86'000}}) {
      ByteVector small(room + 64, std::byte{0x5a});
      EXPECT_EQ(codec.encode(context, kBf16, floats, {}, MutableBytes(small).first(room)).value(),
                0u);
      for (size_t i = room; i < small.size(); ++i) ASSERT_EQ(small[i], std::byte{0x5a});
    }
  }
}

TEST(FloatCodec, HostileBytesAreCorruption) {
  CodecContext context;
  for (const char* name : kNames) {
    const Codec& codec = *find_codec(name).value();
    const ByteVector raw = normal(kFp32, 5000, 0.02, 8, true);
    ByteVector stored(raw.size()), out(raw.size());
    stored.resize(codec.encode(context, kFp32, raw, {}, stored).value());
    ASSERT_FALSE(stored.empty());
    const auto refused = [&](Bytes bytes, size_t raw_bytes) {
      ByteVector into(raw_bytes);
      return codec.decode(context, kFp32, bytes, {}, into).code() == StatusCode::kCorruption;
    };
    for (size_t size = 0; size < stored.size(); size += size < 200 ? 1 : 97) {
      const ByteVector cut(stored.begin(), stored.begin() + static_cast<ptrdiff_t>(size));
      EXPECT_TRUE(refused(cut, raw.size())) << size;
    }
    ByteVector longer = stored;
    longer.push_back(std::byte{0});
    EXPECT_TRUE(refused(longer, raw.size()));
    EXPECT_TRUE(refused(stored, raw.size() - 4096));
    EXPECT_TRUE(refused(stored, raw.size() + 4096));
    // Any other byte anywhere decodes to something or is refused; it never reads or writes outside.
    std::mt19937_64 random(11);
    for (int i = 0; i < 3000; ++i) {
      ByteVector bad = stored;
      const size_t at = random() % 3 == 0 ? random() % bad.size() : random() % 40;
      bad[at] = static_cast<std::byte>(random());
      (void)codec.decode(context, kFp32, bad, {}, out);
    }
    EXPECT_TRUE(codec.decode(context, kFp32, stored, {}, out).ok());
    EXPECT_EQ(out, raw);
  }
}

TEST(Cascade, TakesTheCommonestFirstAndStopsWhenNothingIsGained) {
  SymbolCounts counts{};
  EXPECT_EQ(plan_cascade(counts).count, 0u);
  counts.fill(10);
  EXPECT_EQ(plan_cascade(counts).count, 0u);
  counts = {};
  counts[120] = 1000;
  const Cascade one = plan_cascade(counts);
  ASSERT_EQ(one.count, 1u);
  EXPECT_EQ(one.levels[0].bits, 1);
  EXPECT_EQ(one.levels[0].low, 120);
  counts[255] = 900;
  const Cascade two = plan_cascade(counts);
  EXPECT_LT(two.bits_a_symbol, 2.2);
}

}  // namespace
}  // namespace caisson

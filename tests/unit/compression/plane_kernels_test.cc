// Every table of plane kernels that this machine runs computes what the scalar one does, bit for
// bit.
#include "compression/plane_kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <random>
#include <string>
#include <vector>

namespace caisson {
namespace {

constexpr FloatLayout kLayouts[] = {FloatLayout::kBf16, FloatLayout::kFp32, FloatLayout::kFp16,
                                    FloatLayout::kFp64, FloatLayout::kE4M3, FloatLayout::kE5M2};
// Around the steps of every instruction set, and a few blocks.
constexpr size_t kCounts[] = {0,  1,  15,  16,  17,  31,   32,   33,  63,
                              64, 65, 127, 128, 129, 1000, 4096, 5001};

// Symbols around a centre, as exponents are, with now and then one from anywhere.
std::vector<uint8_t> symbols_of(std::mt19937_64& random, size_t n) {
  std::vector<uint8_t> symbols(n + kSlack);
  std::geometric_distribution<int> distance(0.4);
  const auto centre = static_cast<int>(random() % 256);
  for (size_t i = 0; i < n; ++i) {
    const int away = distance(random) * (random() % 2 == 0 ? 1 : -1);
    symbols[i] = static_cast<uint8_t>(random() % 50 == 0 ? random() : centre + away);
  }
  return symbols;
}

std::vector<std::byte> noise(std::mt19937_64& random, size_t bytes) {
  std::vector<std::byte> data(bytes);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random());
  return data;
}

struct Split {
  std::vector<uint8_t> symbols, top;
  std::vector<std::byte> low;
  TopBits seen;
};
Split split_with(const PlaneKernels& kernels, FloatLayout layout, const std::vector<std::byte>& raw,
                 size_t n) {
  Split out{.symbols = std::vector<uint8_t>(n + kSlack),
            .top = std::vector<uint8_t>(n),
            .low = std::vector<std::byte>(n * low_bytes(layout)),
            .seen = {}};
  kernels.split(layout, raw.data(), n, out.symbols.data(), out.top.data(), out.low.data(),
                &out.seen);
  out.symbols.resize(n);
  return out;
}

TEST(PlaneKernels, SplitIsTheScalarOnesAndJoinIsItsInverse) {
  std::mt19937_64 random(1);
  for (const PlaneKernels* kernels : runnable_plane_kernels()) {
    for (const FloatLayout layout : kLayouts) {
      for (const size_t n : kCounts) {
        SCOPED_TRACE(std::string(kernels->name) + ", layout " +
                     std::to_string(static_cast<int>(layout)) + ", " + std::to_string(n));
        const auto raw = noise(random, n * element_bytes(layout));
        const Split want = split_with(scalar_plane_kernels(), layout, raw, n);
        Split got = split_with(*kernels, layout, raw, n);
        EXPECT_EQ(got.symbols, want.symbols);
        EXPECT_EQ(got.top, want.top);
        EXPECT_EQ(got.low, want.low);
        EXPECT_EQ(got.seen.any, want.seen.any);
        EXPECT_EQ(got.seen.all, want.seen.all);
        std::vector<std::byte> back(raw.size());
        got.symbols.resize(n + kSlack);
        kernels->join(layout, got.symbols.data(), got.top.data(), got.low.data(), n, back.data());
        EXPECT_EQ(back, raw);
      }
    }
  }
}

TEST(PlaneKernels, LevelsAreTheScalarOnesAndDecode) {
  std::mt19937_64 random(2);
  for (const PlaneKernels* kernels : runnable_plane_kernels()) {
    for (unsigned bits = 1; bits <= kLevelBitsMax; ++bits) {
      for (const size_t n : kCounts) {
        const auto symbols = symbols_of(random, n);
        const unsigned room = 256 - ((1u << bits) - 1);
        // Half the windows where the symbols are, so that both codes and escapes happen.
        const unsigned near = n == 0 ? 0 : symbols[0] - std::min<unsigned>(symbols[0], 2);
        const unsigned low =
            random() % 2 == 0 ? std::min(near, room) : static_cast<unsigned>(random() % (room + 1));
        const Level level{.bits = static_cast<uint8_t>(bits), .low = static_cast<uint8_t>(low)};
        SCOPED_TRACE(std::string(kernels->name) + ", bits " + std::to_string(bits) + ", low " +
                     std::to_string(level.low) + ", " + std::to_string(n));
        std::vector<std::byte> want_planes(plane_bytes(n, bits)), planes(want_planes.size());
        std::vector<uint8_t> want_escapes(n + kSlack), escapes(n + kSlack);
        const size_t want = scalar_plane_kernels().encode_level(
            level, symbols.data(), n, want_planes.data(), want_escapes.data());
        const size_t escaped =
            kernels->encode_level(level, symbols.data(), n, planes.data(), escapes.data());
        ASSERT_EQ(escaped, want);
        EXPECT_EQ(planes, want_planes);
        want_escapes.resize(want);
        escapes.resize(want);
        EXPECT_EQ(escapes, want_escapes);

        std::vector<uint8_t> back(n + kSlack);
        escapes.resize(want + kSlack);
        EXPECT_EQ(kernels->decode_level(level, planes.data(), n, escapes.data(), want, back.data()),
                  want);
        back.resize(n);
        EXPECT_EQ(back, std::vector<uint8_t>(symbols.begin(), symbols.end() - kSlack));
        if (want == 0) continue;
        back.resize(n + kSlack);
        EXPECT_GT(
            kernels->decode_level(level, planes.data(), n, escapes.data(), want - 1, back.data()),
            want - 1);
      }
    }
  }
}

TEST(PlaneKernels, PackedBitsAreTheScalarOnesAndUnpack) {
  std::mt19937_64 random(3);
  for (const PlaneKernels* kernels : runnable_plane_kernels()) {
    for (const size_t n : kCounts) {
      for (const uint8_t mask : {uint8_t{0}, uint8_t{1}, uint8_t{0x7f}, uint8_t{0x95}}) {
        SCOPED_TRACE(std::string(kernels->name) + ", mask " + std::to_string(mask) + ", " +
                     std::to_string(n));
        const auto constant = static_cast<uint8_t>(random() & ~unsigned{mask});
        std::vector<uint8_t> top(n);
        for (uint8_t& t : top) t = static_cast<uint8_t>((random() & mask) | constant);
        const size_t bytes = plane_bytes(n, static_cast<unsigned>(std::popcount(mask)));
        std::vector<std::byte> want(bytes), planes(bytes);
        scalar_plane_kernels().pack_bits(mask, top.data(), n, want.data());
        kernels->pack_bits(mask, top.data(), n, planes.data());
        EXPECT_EQ(planes, want);
        std::vector<uint8_t> back(n + kSlack);
        kernels->unpack_bits(mask, constant, planes.data(), n, back.data());
        back.resize(n);
        EXPECT_EQ(back, top);
      }
    }
  }
}

// The areas of encoded elements, each of its exact size: a byte beyond is for a sanitizer to see.
struct Areas {
  std::vector<std::byte> top, low, symbols;
  std::vector<uint8_t> escapes;
  TopBits seen;

  Areas(const Coding& coding, size_t n)
      : top(coding.varying == 0xff
                ? n
                : plane_bytes(n, static_cast<unsigned>(std::popcount(coding.varying)))),
        low(n * low_bytes(coding.layout)),
        symbols(coding.level.bits == 0 ? n : plane_bytes(n, coding.level.bits)),
        escapes(n + kSlack) {}
  void encode(const PlaneKernels& kernels, const Coding& coding, const std::vector<std::byte>& raw,
              size_t n) {
    const size_t escaped = kernels.encode_elements(
        coding, raw.data(), n, {top.data(), low.data(), symbols.data()}, escapes.data(), &seen);
    escapes.resize(escaped);
  }
  size_t decode(const PlaneKernels& kernels, const Coding& coding, size_t n, size_t escape_count,
                std::vector<std::byte>& raw) {
    escapes.resize(escape_count + kSlack);
    return kernels.decode_elements(coding, {top.data(), low.data(), symbols.data()}, n,
                                   escapes.data(), escape_count, raw.data());
  }
};

void check_elements(const PlaneKernels& kernels, Coding coding, const std::vector<std::byte>& raw,
                    size_t n) {
  Areas want(coding, n), got(coding, n);
  want.encode(scalar_plane_kernels(), coding, raw, n);
  got.encode(kernels, coding, raw, n);
  EXPECT_EQ(got.top, want.top);
  EXPECT_EQ(got.low, want.low);
  EXPECT_EQ(got.symbols, want.symbols);
  EXPECT_EQ(got.escapes, want.escapes);
  EXPECT_EQ(got.seen.any, want.seen.any);
  EXPECT_EQ(got.seen.all, want.seen.all);
  const size_t escaped = want.escapes.size();
  coding.constant = static_cast<uint8_t>(want.seen.all & ~coding.varying);
  std::vector<std::byte> want_back(raw.size()), back(raw.size());
  EXPECT_EQ(want.decode(scalar_plane_kernels(), coding, n, escaped, want_back), escaped);
  EXPECT_EQ(got.decode(kernels, coding, n, escaped, back), escaped);
  EXPECT_EQ(back, want_back);
  if (coding.varying == 0xff) {
    EXPECT_EQ(back, raw);
  }
  if (escaped > 0) {
    EXPECT_GT(got.decode(kernels, coding, n, escaped - 1, back), escaped - 1);
  }
}

TEST(PlaneKernels, ElementsAreTheScalarOnesAndDecode) {
  std::mt19937_64 random(4);
  for (const PlaneKernels* kernels : runnable_plane_kernels()) {
    for (const FloatLayout layout : kLayouts) {
      for (const size_t n : kCounts) {
        for (unsigned bits = 0; bits <= kLevelBitsMax; ++bits) {
          const unsigned room = 256 - ((1u << bits) - 1);
          Coding coding{.layout = layout,
                        .level = {.bits = static_cast<uint8_t>(bits),
                                  .low = static_cast<uint8_t>(random() % std::min(room, 256u))},
                        .varying = static_cast<uint8_t>(random() % 3 == 0 ? 0xff : random())};
          SCOPED_TRACE(
              std::string(kernels->name) + ", layout " + std::to_string(static_cast<int>(layout)) +
              ", " + std::to_string(n) + ", bits " + std::to_string(bits) + ", low " +
              std::to_string(coding.level.low) + ", varying " + std::to_string(coding.varying));
          check_elements(*kernels, coding, noise(random, n * element_bytes(layout)), n);
        }
      }
    }
  }
}

}  // namespace
}  // namespace caisson

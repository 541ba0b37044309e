// Every codec on every element kind and pattern, from any address and of any length: what it takes
// comes back bit for bit, is smaller than raw, and nothing is written outside of the room given.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "compression/codec.h"

namespace caisson {
namespace {

struct Kind {
  const char* name;
  ElementFormat format;
};
// DLPack's codes; kinds of less than a byte are bytes to a codec.
constexpr Kind kKinds[] = {
    {"fp64", {2, 64}},     {"fp32", {2, 32}},     {"fp16", {2, 16}},       {"bf16", {4, 16}},
    {"e3m4", {7, 8}},      {"e4m3", {8, 8}},      {"e4m3b11", {9, 8}},     {"e4m3fn", {10, 8}},
    {"e4m3fnuz", {11, 8}}, {"e5m2", {12, 8}},     {"e5m2fnuz", {13, 8}},   {"e8m0", {14, 8}},
    {"fp6 e2m3", {15, 6}}, {"fp6 e3m2", {16, 6}}, {"fp4 e2m1", {17, 4}},   {"complex64", {5, 64}},
    {"int8", {0, 8}},      {"int32", {0, 32}},    {"int64", {0, 64}},      {"uint16", {1, 16}},
    {"bool", {6, 8}},      {"bytes", {1, 8}},     {"complex128", {5, 128}}};

using Fill = std::function<void(std::mt19937_64&, MutableBytes)>;
struct Pattern {
  const char* name;
  Fill fill;
};

// Words of four bytes by number.
Fill words(std::function<uint32_t(std::mt19937_64&, size_t)> word) {
  return [word](std::mt19937_64& random, MutableBytes bytes) {
    for (size_t i = 0; i + 4 <= bytes.size(); i += 4)
      store_le(bytes.data() + i, word(random, i / 4));
  };
}

std::vector<Pattern> patterns() {
  using Random = std::mt19937_64;
  const auto any = [](Random& random) { return static_cast<uint32_t>(random()); };
  return {
      {"noise", words([any](Random& r, size_t) { return any(r); })},
      {"zeros", words([](Random&, size_t) { return 0u; })},
      {"ones", words([](Random&, size_t) { return ~0u; })},
      {"minus zero", words([](Random&, size_t) { return 0x80008000u; })},
      {"NaN payloads", words([any](Random& r, size_t) { return 0x7f807f80u | any(r); })},
      {"infinities",
       words([](Random&, size_t i) { return i % 2 == 0 ? 0x7f800000u : 0xff800000u; })},
      {"denormals", words([any](Random& r, size_t) { return any(r) & 0x807f807fu; })},
      {"near one",
       words([any](Random& r, size_t) { return 0x3f800000u | (any(r) & 0x80ffffffu); })},
      {"tf32", words([any](Random& r, size_t) {
         return (0x3c000000u | (any(r) & 0x83ffffffu)) & ~0x1fffu;
       })},
      {"counter", words([](Random&, size_t i) { return static_cast<uint32_t>(i); })},
      {"mostly zero", words([any](Random& r, size_t) { return r() % 50 == 0 ? any(r) : 0u; })},
      {"rows of numbers", words([any](Random& r, size_t i) {
         return i / 96 % 5 < 2 ? 0x3c000000u | (any(r) & 0x83ffffffu) : 0u;
       })},
      // Where a sample looks all is well; between, every element escapes.
      {"a liar",
       words([any](Random& r, size_t i) { return i / 512 % 8 == 1 ? any(r) : 0x3f803f80u; })},
      {"every other escapes",
       words([any](Random& r, size_t i) { return i % 2 == 0 ? 0x3c803c80u : any(r); })},
  };
}

void check(const Codec& codec, ElementFormat format, Bytes raw, Bytes base) {
  constexpr size_t kGuard = 64;
  constexpr std::byte kMark{0x5a};
  CodecContext context;
  ByteVector stored(raw.size() + kGuard, kMark);
  const Result<size_t> size =
      codec.encode(context, format, raw, base, MutableBytes(stored).first(raw.size()));
  ASSERT_TRUE(size.ok()) << size.status().to_string();
  ASSERT_TRUE(
      std::all_of(stored.end() - kGuard, stored.end(), [](std::byte b) { return b == kMark; }));
  if (*size == 0) return;
  ASSERT_LE(*size, raw.size());
  stored.resize(*size);
  stored.shrink_to_fit();
  ByteVector out(raw.size() + kGuard, kMark);
  const Status status =
      codec.decode(context, format, stored, base, MutableBytes(out).first(raw.size()));
  ASSERT_TRUE(status.ok()) << status.to_string();
  ASSERT_TRUE(std::equal(raw.begin(), raw.end(), out.begin()));
  ASSERT_TRUE(std::all_of(out.end() - kGuard, out.end(), [](std::byte b) { return b == kMark; }));
}

// A base as a codec wants it: of the same size and near, or half as large for a twin.
ByteVector base_for(const Codec& codec, Bytes raw, std::mt19937_64& random) {
  ByteVector base;
  if (codec.id() == CodecId::kTwin) {
    for (size_t i = 0; i + 4 <= raw.size(); i += 4)
      base.insert(base.end(), {raw[i + 2], raw[i + 3]});
  } else {
    base.assign(raw.begin(), raw.end());
  }
  for (size_t i = 0; i < base.size(); i += 1 + random() % 40) base[i] ^= std::byte{1};
  return base;
}

TEST(CodecPatterns, ComeBackWhateverTheKind) {
  std::mt19937_64 random(1);
  for (uint8_t id = 0; id < kCodecs; ++id) {
    const Codec& codec = *find_codec(id).value();
    for (const Kind& kind : kKinds) {
      for (const Pattern& pattern : patterns()) {
        for (const size_t bytes : {size_t{0}, size_t{3}, size_t{4100}, size_t{270'001}}) {
          SCOPED_TRACE(std::string(codec.name()) + ", " + kind.name + ", " + pattern.name + ", " +
                       std::to_string(bytes));
          const size_t odd = random() % 8;
          ByteVector room(bytes + odd);
          pattern.fill(random, room);
          const Bytes raw = Bytes(room).subspan(odd);
          const ByteVector base = codec.needs_base() ? base_for(codec, raw, random) : ByteVector();
          check(codec, kind.format, raw, base);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

}  // namespace
}  // namespace caisson

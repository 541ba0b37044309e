#include "tests/golden/golden_coded.h"

#include <algorithm>
#include <bit>
#include <iterator>

namespace caisson::testing {
namespace {

struct FloatKind {
  const char* name;
  DType dtype;
  unsigned element_bits;  // of one number; a complex one has two
  unsigned exponent_bits;
};
constexpr FloatKind kKinds[] = {
    {"moment.f32", {DTypeCode::kFloat, 32}, 32, 8},
    {"half.f16", {DTypeCode::kFloat, 16}, 16, 5},
    {"double.f64", {DTypeCode::kFloat, 64}, 64, 11},
    {"complex.c64", {DTypeCode::kComplex, 64}, 32, 8},
    {"fp8.e4m3", {DTypeCode::kFloat8E4M3FN, 8}, 8, 4},
    {"fp8.e5m2", {DTypeCode::kFloat8E5M2, 8}, 8, 5},
};

// splitmix64
class Noise {
 public:
  explicit Noise(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    state_ += 0x9e3779b97f4a7c15;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_;
};

// Numbers below 1 whose magnitudes halve in frequency, of any binary float; at times all ones,
// which is a NaN, and all zeros.
ByteVector numbers(uint64_t seed, size_t count, unsigned bits, unsigned exponent_bits) {
  Noise noise(seed);
  ByteVector made;
  for (size_t i = 0; i < count; ++i) {
    const uint64_t n = noise.next();
    const unsigned mantissa_bits = bits - 1 - exponent_bits;
    const uint64_t bias = (uint64_t{1} << (exponent_bits - 1)) - 1;
    const uint64_t less =
        std::min<uint64_t>(static_cast<uint64_t>(std::countr_zero(n | 1ull << 40)) / 2, bias - 1);
    uint64_t number = noise.next() & ((uint64_t{1} << mantissa_bits) - 1);
    number |= (bias - 1 - less) << mantissa_bits;
    number |= (n >> 63) << (bits - 1);
    if (n % 997 == 0) number = ~uint64_t{0};
    if (n % 991 == 0) number = 0;
    for (unsigned b = 0; b < bits; b += 8)
      made.push_back(static_cast<std::byte>(number >> b & 0xff));
  }
  return made;
}

GoldenTensor tensor(std::string name, DType dtype, std::vector<uint64_t> extents,
                    ByteVector bytes) {
  GoldenTensor made;
  made.spec = {.name = std::move(name), .dtype = dtype, .shape = Shape::of(extents)};
  made.bytes = std::move(bytes);
  return made;
}

// Rounded to bf16: to even where `up` is false, else ties up.
ByteVector rounded(const ByteVector& master, bool up) {
  ByteVector made;
  for (size_t at = 0; at < master.size(); at += 4) {
    const auto bits = load_le<uint32_t>(master.data() + at);
    const uint32_t half = (bits + (up ? 0x8000 : 0x7fff + (bits >> 16 & 1))) >> 16;
    made.push_back(static_cast<std::byte>(half & 0xff));
    made.push_back(static_cast<std::byte>(half >> 8 & 0xff));
  }
  return made;
}

std::vector<GoldenTensor> state(uint64_t seed) {
  constexpr uint64_t kCount = 64 * 96;
  std::vector<GoldenTensor> made;
  for (const bool up : {false, true}) {
    const std::string name = up ? "up" : "even";
    made.push_back(tensor("master." + name, {DTypeCode::kFloat, 32}, {64, 96},
                          numbers(seed + up, kCount, 32, 8)));
    made.push_back(tensor("weight." + name, {DTypeCode::kBfloat, 16}, {64, 96},
                          rounded(made.back().bytes, up)));
  }
  for (const FloatKind& kind : kKinds) {
    const size_t parts = kind.dtype.bits / kind.element_bits;
    made.push_back(tensor(
        kind.name, kind.dtype, {kCount},
        numbers(seed + 10 + made.size(), kCount * parts, kind.element_bits, kind.exponent_bits)));
  }
  ByteVector rows = numbers(seed + 30, kCount, 32, 8);
  std::fill_n(rows.begin(), rows.size() / 2, std::byte{0});
  made.push_back(tensor("rows.f32", {DTypeCode::kFloat, 32}, {64, 96}, rows));
  made.push_back(tensor("alone.bf16", {DTypeCode::kBfloat, 16}, {96, 64},
                        rounded(numbers(seed + 31, kCount, 32, 8), false)));
  ByteVector counts(4 * kCount);
  for (size_t i = 0; i < kCount; ++i) store_le(counts.data() + 4 * i, static_cast<uint32_t>(i * i));
  made.push_back(tensor("counts.i32", {DTypeCode::kInt, 32}, {96, 64}, counts));
  return made;
}

// Every 13th element of 2 bytes a little larger.
void change(ByteVector& bytes) {
  for (size_t at = 0; at < bytes.size(); at += 26) {
    bytes[at] = static_cast<std::byte>((std::to_integer<unsigned>(bytes[at]) + 1) & 0xff);
  }
}

}  // namespace

std::vector<GoldenCheckpoint> coded_checkpoints() {
  std::vector<GoldenTensor> later = state(1000);
  for (GoldenTensor& one : later) {
    if (one.spec.name == "alone.bf16" || one.spec.name == "counts.i32") change(one.bytes);
  }
  return {{"coded/1", state(1)}, {"coded/2", state(1000)}, {"coded/3", later}};
}

}  // namespace caisson::testing

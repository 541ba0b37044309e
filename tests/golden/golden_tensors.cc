#include "tests/golden/golden_tensors.h"

#include "io/base/check.h"

namespace caisson::testing {
namespace {

// splitmix64: bytes that do not compress.
ByteVector noise(uint64_t seed, size_t bytes) {
  ByteVector data(bytes);
  uint64_t state = seed;
  for (size_t i = 0; i < bytes; ++i) {
    state += 0x9e3779b97f4a7c15;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    data[i] = static_cast<std::byte>((z ^ (z >> 31)) & 0xff);
  }
  return data;
}

// Bytes that compress very well, but differ from place to place.
ByteVector steps(size_t bytes) {
  ByteVector data(bytes);
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<std::byte>(i / 4096 % 251);
  return data;
}

GoldenTensor tensor(std::string name, DType dtype, std::vector<uint64_t> extents,
                    ByteVector bytes) {
  GoldenTensor made;
  made.spec = {.name = std::move(name), .dtype = dtype, .shape = Shape::of(extents)};
  made.bytes = std::move(bytes);
  const uint64_t elements = element_count(made.spec.shape).value();
  CAISSON_CHECK(packed_bytes(elements, dtype).value() == made.bytes.size());
  return made;
}

std::vector<GoldenTensor> all_kinds(uint64_t weight_seed) {
  using Code = DTypeCode;
  std::vector<GoldenTensor> made;
  made.push_back(tensor("weight.bf16", {Code::kBfloat, 16}, {48, 64}, noise(weight_seed, 6144)));
  made.push_back(tensor("master.f32", {Code::kFloat, 32}, {40, 50}, noise(2, 8000)));
  made.push_back(tensor("norm.f16", {Code::kFloat, 16}, {33}, noise(3, 66)));
  made.push_back(tensor("double.f64", {Code::kFloat, 64}, {3, 5, 7}, noise(4, 840)));
  made.push_back(tensor("complex.c64", {Code::kComplex, 64}, {9}, noise(5, 72)));
  made.push_back(tensor("fp8.e4m3", {Code::kFloat8E4M3FN, 8}, {33, 3}, noise(6, 99)));
  made.push_back(tensor("fp8.e5m2", {Code::kFloat8E5M2, 8}, {80, 64}, noise(7, 5120)));
  made.push_back(tensor("fp6.e2m3", {Code::kFloat6E2M3FN, 6}, {4, 4}, noise(8, 12)));
  made.push_back(tensor("fp4", {Code::kFloat4E2M1FN, 4}, {64, 160}, noise(9, 5120)));
  made.push_back(tensor("fp4.scale", {Code::kFloat8E8M0FNU, 8}, {64, 5}, noise(10, 320)));
  made.push_back(tensor("mask.bool", {Code::kBool, 8}, {3, 3}, ByteVector(9, std::byte{1})));
  made.push_back(tensor("step", {Code::kInt, 64}, {}, noise(11, 8)));
  made.push_back(tensor("empty", {Code::kFloat, 32}, {0, 7}, {}));
  made.push_back(tensor("tokens.u8", {Code::kUInt, 8}, {1024, 1024}, steps(1 << 20)));
  made.push_back(tensor("\u00fcber/\u5c64.0", {Code::kInt, 32}, {5}, noise(12, 20)));
  made.push_back(tensor("config.json", {Code::kUInt, 8}, {6000}, steps(6000)));
  made.back().blob = true;
  made.push_back(tensor("rng", {Code::kUInt, 8}, {40}, noise(13, 40)));
  made.back().blob = true;
  GoldenTensor alias;
  alias.spec = made.front().spec;
  alias.spec.name = "head.bf16";
  alias.alias_of = "weight.bf16";
  made.push_back(alias);
  return made;
}

}  // namespace

std::vector<GoldenCheckpoint> golden_checkpoints() {
  return {{"golden/1", all_kinds(1)},
          {"golden/2", all_kinds(100)},
          {"sharded/7",
           {tensor("columns", {DTypeCode::kBfloat, 16}, {48, 64}, noise(20, 6144)),
            tensor("replicated", {DTypeCode::kUInt, 8}, {1024, 1024}, steps(1 << 20)),
            tensor("rows", {DTypeCode::kFloat, 32}, {30, 50}, noise(21, 6000)),
            // One row for rank 0, which the tile grid would cut too finely: a grid of its own.
            tensor("uneven", {DTypeCode::kUInt, 8}, {3, 126000}, steps(378000))}}};
}

}  // namespace caisson::testing

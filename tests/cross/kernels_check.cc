// Every table of kernels of this machine against the scalar one, without a test library: built by a
// cross compiler and run under an emulator (run.sh), for instruction sets that the host lacks.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "compression/plane_kernels.h"
#include "compression/twin_kernels.h"
#include "io/base/bytes.h"

namespace caisson {
namespace {

int failures = 0;
void expect(bool same, const char* table, const char* what, size_t n) {
  if (same) return;
  std::printf("%s: %s of %zu elements is not what the scalar kernel makes\n", table, what, n);
  ++failures;
}

ByteVector noise(std::mt19937_64& random, size_t bytes) {
  ByteVector data(bytes);
  for (std::byte& byte : data) byte = static_cast<std::byte>(random());
  return data;
}

void check_planes(const PlaneKernels& kernels, FloatLayout layout, size_t n,
                  std::mt19937_64& random) {
  const PlaneKernels& scalar = scalar_plane_kernels();
  const ByteVector raw = noise(random, n * element_bytes(layout));
  std::vector<uint8_t> want_symbols(n + kSlack), want_top(n), symbols(n + kSlack), top(n);
  ByteVector want_low(n * low_bytes(layout)), low(want_low.size()), back(raw.size());
  TopBits want_seen, seen;
  scalar.split(layout, raw.data(), n, want_symbols.data(), want_top.data(), want_low.data(),
               &want_seen);
  kernels.split(layout, raw.data(), n, symbols.data(), top.data(), low.data(), &seen);
  const bool equal = std::equal(symbols.begin(), symbols.end() - kSlack, want_symbols.begin()) &&
                     top == want_top && low == want_low;
  expect(equal && seen.any == want_seen.any && seen.all == want_seen.all, kernels.name, "split", n);
  kernels.join(layout, want_symbols.data(), want_top.data(), want_low.data(), n, back.data());
  expect(back == raw, kernels.name, "join", n);
}

void check_elements(const PlaneKernels& kernels, FloatLayout layout, size_t n,
                    std::mt19937_64& random) {
  const PlaneKernels& scalar = scalar_plane_kernels();
  const Coding coding{.layout = layout, .level = {.bits = 2, .low = 100}, .varying = 0x7f};
  const ByteVector raw = noise(random, n * element_bytes(layout));
  ByteVector want_top(plane_bytes(n, 7)), top(want_top.size());
  ByteVector want_low(n * low_bytes(layout)), low(want_low.size());
  ByteVector want_symbols(plane_bytes(n, 2)), symbols(want_symbols.size());
  std::vector<uint8_t> want(n + kSlack), escapes(n + kSlack);
  TopBits want_seen, seen;
  const size_t want_count = scalar.encode_elements(
      coding, raw.data(), n, {want_top.data(), want_low.data(), want_symbols.data()}, want.data(),
      &want_seen);
  const size_t count = kernels.encode_elements(
      coding, raw.data(), n, {top.data(), low.data(), symbols.data()}, escapes.data(), &seen);
  expect(
      count == want_count && std::equal(want.begin(), want.begin() + want_count, escapes.begin()),
      kernels.name, "escapes", n);
  expect(top == want_top && low == want_low && symbols == want_symbols, kernels.name, "areas", n);
  ByteVector want_back(raw.size()), back(raw.size());
  const ConstElementAreas from{top.data(), low.data(), symbols.data()};
  scalar.decode_elements(coding, from, n, escapes.data(), count, want_back.data());
  kernels.decode_elements(coding, from, n, escapes.data(), count, back.data());
  expect(back == want_back, kernels.name, "decoded elements", n);
}

void check_twins(const TwinKernels& kernels, uint16_t threshold, size_t n,
                 std::mt19937_64& random) {
  const TwinKernels& scalar = scalar_twin_kernels();
  ByteVector raw = noise(random, 4 * n);
  ByteVector base(2 * n);
  for (size_t i = 0; i < n; ++i) {
    if (i % 5 == 0) store_le(raw.data() + 4 * i, static_cast<uint16_t>(threshold + i % 3 - 1));
    const auto high = load_le<uint16_t>(raw.data() + 4 * i + 2);
    const bool up = load_le<uint16_t>(raw.data() + 4 * i) > threshold;
    store_le(base.data() + 2 * i, static_cast<uint16_t>(high + (up ? 1 : 0) + (i % 37 == 9)));
  }
  ByteVector want_low(2 * n), low(2 * n), want_back(4 * n), back(4 * n);
  std::vector<uint16_t> want(n), wrong(n);
  want.resize(scalar.split(threshold, raw.data(), base.data(), n, want_low.data(), want.data()));
  wrong.resize(kernels.split(threshold, raw.data(), base.data(), n, low.data(), wrong.data()));
  expect(low == want_low && wrong == want, kernels.name, "twin split", n);
  scalar.join(threshold, base.data(), low.data(), n, want_back.data());
  kernels.join(threshold, base.data(), low.data(), n, back.data());
  expect(back == want_back, kernels.name, "twin join", n);
}

int run() {
  std::mt19937_64 random(1);
  for (const size_t n : {0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 1000, 4096}) {
    for (const PlaneKernels* kernels : runnable_plane_kernels()) {
      for (uint8_t layout = 1; layout <= static_cast<uint8_t>(FloatLayout::kE5M2); ++layout) {
        check_planes(*kernels, static_cast<FloatLayout>(layout), n, random);
        check_elements(*kernels, static_cast<FloatLayout>(layout), n, random);
      }
    }
    for (const TwinKernels* kernels : runnable_twin_kernels()) {
      for (const uint16_t threshold : {kToNearestEven, kToNearestUp, kTowardZero}) {
        check_twins(*kernels, threshold, n, random);
      }
    }
  }
  std::printf("%s and %s against scalar: %d differences\n", plane_kernels().name,
              twin_kernels().name, failures);
  return failures == 0 && std::strcmp(plane_kernels().name, "scalar") != 0 ? 0 : 1;
}

}  // namespace
}  // namespace caisson

int main() { return caisson::run(); }

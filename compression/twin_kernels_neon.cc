// The twin kernels with NEON, which every AArch64 machine has: 8 elements a step.
#include <arm_neon.h>

#include "compression/twin_kernels_impl.h"

namespace caisson {
namespace {

constexpr size_t kStep = 8;

uint16x8_t load(const std::byte* from) {
  return vreinterpretq_u16_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(from)));
}

// base, less one where low > threshold.
uint16x8_t predict(uint16x8_t threshold, uint16x8_t base, uint16x8_t low) {
  return vaddq_u16(base, vcgtq_u16(low, threshold));
}

size_t split(uint16_t threshold, const std::byte* raw, const std::byte* base, size_t n,
             std::byte* low, uint16_t* wrong) {
  const uint16x8_t thresholds = vdupq_n_u16(threshold);
  size_t count = 0;
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const uint16x8_t a = load(raw + 4 * i);
    const uint16x8_t b = load(raw + 4 * i + 16);
    const uint16x8_t lows = vuzp1q_u16(a, b);
    vst1q_u8(reinterpret_cast<uint8_t*>(low + 2 * i), vreinterpretq_u8_u16(lows));
    const uint16x8_t right =
        vceqq_u16(vuzp2q_u16(a, b), predict(thresholds, load(base + 2 * i), lows));
    if (vminvq_u16(right) != 0) continue;  // nearly always
    count += split_twins(threshold, raw, base, i, i + kStep, low, wrong + count);
  }
  return count + split_twins(threshold, raw, base, i, n, low, wrong + count);
}

void join(uint16_t threshold, const std::byte* base, const std::byte* low, size_t n,
          std::byte* raw) {
  const uint16x8_t thresholds = vdupq_n_u16(threshold);
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const uint16x8_t lows = load(low + 2 * i);
    const uint16x8_t highs = predict(thresholds, load(base + 2 * i), lows);
    auto* const to = reinterpret_cast<uint8_t*>(raw + 4 * i);
    vst1q_u8(to, vreinterpretq_u8_u16(vzip1q_u16(lows, highs)));
    vst1q_u8(to + 16, vreinterpretq_u8_u16(vzip2q_u16(lows, highs)));
  }
  join_twins(threshold, base, low, i, n, raw);
}

}  // namespace

const TwinKernels& neon_twin_kernels() {
  static constexpr TwinKernels kKernels = {.name = "neon", .split = &split, .join = &join};
  return kKernels;
}

}  // namespace caisson

// The plane kernels with NEON, which every AArch64 machine has: 16 elements a step divided and put
// together. Levels and planes of bits are the scalar ones: there are no words of masks to build
// them from.
#include <arm_neon.h>

#include "compression/huffman_bits.h"
#include "compression/plane_kernels_impl.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

constexpr size_t kStep = 16;

const uint8_t* octets(const std::byte* from) { return reinterpret_cast<const uint8_t*>(from); }
uint8_t* octets(std::byte* to) { return reinterpret_cast<uint8_t*>(to); }

void split(FloatLayout layout, const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top,
           std::byte* low, TopBits* seen) {
  const uint8x16_t sign = vdupq_n_u8(0x80);
  uint8x16_t any = vdupq_n_u8(0);
  uint8x16_t all = vdupq_n_u8(0xff);
  const auto halves = [&](size_t i, uint8x16_t lower, uint8x16_t upper) {
    vst1q_u8(symbols + i, vorrq_u8(vshlq_n_u8(upper, 1), vshrq_n_u8(lower, 7)));
    const uint8x16_t tops = vbslq_u8(sign, upper, lower);
    vst1q_u8(top + i, tops);
    any = vorrq_u8(any, tops);
    all = vandq_u8(all, tops);
  };
  size_t i = 0;
  if (layout == FloatLayout::kBf16) {
    for (; i + kStep <= n; i += kStep) {
      const uint8x16x2_t x = vld2q_u8(octets(raw) + 2 * i);
      halves(i, x.val[0], x.val[1]);
    }
  } else if (layout == FloatLayout::kFp32) {
    for (; i + kStep <= n; i += kStep) {
      const uint8x16x4_t x = vld4q_u8(octets(raw) + 4 * i);
      vst2q_u8(octets(low) + 2 * i, uint8x16x2_t{{x.val[0], x.val[1]}});
      halves(i, x.val[2], x.val[3]);
    }
  }
  std::array<uint8_t, kStep> bytes;
  vst1q_u8(bytes.data(), any);
  for (const uint8_t byte : bytes) seen->any |= byte;
  vst1q_u8(bytes.data(), all);
  for (const uint8_t byte : bytes) seen->all &= byte;
  split_elements(layout, raw + i * element_bytes(layout), n - i, symbols + i, top + i,
                 low + i * low_bytes(layout), seen);
}

void join(FloatLayout layout, const uint8_t* symbols, const uint8_t* top, const std::byte* low,
          size_t n, std::byte* raw) {
  const uint8x16_t sign = vdupq_n_u8(0x80);
  const auto lower = [&](size_t i) {
    return vbslq_u8(sign, vshlq_n_u8(vld1q_u8(symbols + i), 7), vld1q_u8(top + i));
  };
  const auto upper = [&](size_t i) {
    return vbslq_u8(sign, vld1q_u8(top + i), vshrq_n_u8(vld1q_u8(symbols + i), 1));
  };
  size_t i = 0;
  if (layout == FloatLayout::kBf16) {
    for (; i + kStep <= n; i += kStep) {
      vst2q_u8(octets(raw) + 2 * i, uint8x16x2_t{{lower(i), upper(i)}});
    }
  } else if (layout == FloatLayout::kFp32) {
    for (; i + kStep <= n; i += kStep) {
      const uint8x16x2_t rest = vld2q_u8(octets(low) + 2 * i);
      vst4q_u8(octets(raw) + 4 * i, uint8x16x4_t{{rest.val[0], rest.val[1], lower(i), upper(i)}});
    }
  }
  join_elements(layout, symbols + i, top + i, low + i * low_bytes(layout), n - i,
                raw + i * element_bytes(layout));
}

size_t encode_elements(const Coding& coding, const std::byte* raw, size_t n, ElementAreas to,
                       uint8_t* escapes, TopBits* seen) {
  return encode_in_passes(neon_plane_kernels(), coding, raw, n, to, escapes, seen);
}

size_t decode_elements(const Coding& coding, ConstElementAreas from, size_t n,
                       const uint8_t* escapes, size_t escape_count, std::byte* raw) {
  return decode_in_passes(neon_plane_kernels(), coding, from, n, escapes, escape_count, raw);
}

PlaneKernels with_neon(PlaneKernels kernels) {
  kernels.name = "neon";
  kernels.split = &split;
  kernels.join = &join;
  kernels.encode_elements = &encode_elements;
  kernels.decode_elements = &decode_elements;
  return kernels;
}

}  // namespace

const PlaneKernels& neon_plane_kernels() {
  static const PlaneKernels kKernels = with_neon(scalar_plane_kernels());
  return kKernels;
}

}  // namespace caisson

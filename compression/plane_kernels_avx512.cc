// The plane kernels with AVX-512: a group is one register, planes are its masks, escapes are
// compressed and expanded by VBMI2. Compiled for that instruction set alone; called only where the
// machine has it.
#include <immintrin.h>

#include <array>
#include <bit>

#include "compression/plane_kernels_impl.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

__m512i load(const void* from) { return _mm512_loadu_si512(from); }
void store(void* to, __m512i value) { _mm512_storeu_si512(to, value); }
__m512i bytes_of(uint8_t value) { return _mm512_set1_epi8(static_cast<char>(value)); }

// Positions for the permutations below, made once.
struct Positions {
  alignas(64) uint8_t even8[64];  // the even bytes of two registers
  alignas(64) uint8_t odd8[64];
  alignas(64) uint8_t interleave8[2][64];  // the lower or upper halves of two, byte by byte
  alignas(64) uint16_t even16[32];
  alignas(64) uint16_t odd16[32];
  alignas(64) uint16_t interleave16[2][32];
  constexpr Positions() : even8(), odd8(), interleave8(), even16(), odd16(), interleave16() {
    for (unsigned i = 0; i < 64; ++i) {
      even8[i] = static_cast<uint8_t>(2 * i);
      odd8[i] = static_cast<uint8_t>(2 * i + 1);
      for (unsigned half = 0; half < 2; ++half) {
        interleave8[half][i] = static_cast<uint8_t>(32 * half + i / 2 + 64 * (i % 2));
      }
    }
    for (unsigned i = 0; i < 32; ++i) {
      even16[i] = static_cast<uint16_t>(2 * i);
      odd16[i] = static_cast<uint16_t>(2 * i + 1);
      for (unsigned half = 0; half < 2; ++half) {
        interleave16[half][i] = static_cast<uint16_t>(16 * half + i / 2 + 32 * (i % 2));
      }
    }
  }
};
constexpr Positions kPositions;

struct TopSeen {
  __m512i any = _mm512_setzero_si512();
  __m512i all = _mm512_set1_epi8(-1);
};

// The symbols and tops of 64 bf16 elements.
void split_halves(__m512i a, __m512i b, uint8_t* symbols, uint8_t* top, TopSeen& seen) {
  const __m512i low = _mm512_permutex2var_epi8(a, load(kPositions.even8), b);
  const __m512i high = _mm512_permutex2var_epi8(a, load(kPositions.odd8), b);
  const __m512i lowest = _mm512_and_si512(_mm512_srli_epi16(low, 7), bytes_of(1));
  store(symbols, _mm512_or_si512(_mm512_add_epi8(high, high), lowest));
  // The sign from `high`, the rest from `low`.
  const __m512i tops = _mm512_ternarylogic_epi32(bytes_of(0x80), high, low, 0xca);
  store(top, tops);
  seen.any = _mm512_or_si512(seen.any, tops);
  seen.all = _mm512_and_si512(seen.all, tops);
}

void finish(const TopSeen& vectors, TopBits* seen) {
  alignas(64) uint8_t any[64];
  alignas(64) uint8_t all[64];
  store(any, vectors.any);
  store(all, vectors.all);
  for (size_t i = 0; i < 64; ++i) {
    seen->any |= any[i];
    seen->all &= all[i];
  }
}

void split(FloatLayout layout, const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top,
           std::byte* low, TopBits* seen) {
  size_t i = 0;
  TopSeen vectors;
  if (layout == FloatLayout::kBf16) {
    for (; i + kGroup <= n; i += kGroup) {
      split_halves(load(raw + 2 * i), load(raw + 2 * i + 64), symbols + i, top + i, vectors);
    }
  } else if (layout == FloatLayout::kFp32) {
    for (; i + kGroup <= n; i += kGroup) {
      __m512i high[2];
      for (size_t half = 0; half < 2; ++half) {
        const __m512i a = load(raw + 4 * i + 128 * half);
        const __m512i b = load(raw + 4 * i + 128 * half + 64);
        high[half] = _mm512_permutex2var_epi16(a, load(kPositions.odd16), b);
        store(low + 2 * i + 64 * half, _mm512_permutex2var_epi16(a, load(kPositions.even16), b));
      }
      split_halves(high[0], high[1], symbols + i, top + i, vectors);
    }
  }
  if (i != 0) finish(vectors, seen);
  split_elements(layout, raw + i * element_bytes(layout), n - i, symbols + i, top + i,
                 low + i * low_bytes(layout), seen);
}

// 64 bf16 elements, 32 to each of two registers.
void join_halves(const uint8_t* symbols, const uint8_t* top, __m512i high[2]) {
  const __m512i s = load(symbols);
  const __m512i t = load(top);
  const __m512i sign = bytes_of(0x80);
  const __m512i upper = _mm512_ternarylogic_epi32(sign, t, _mm512_srli_epi16(s, 1), 0xca);
  const __m512i lower = _mm512_ternarylogic_epi32(sign, _mm512_slli_epi16(s, 7), t, 0xca);
  for (size_t half = 0; half < 2; ++half) {
    high[half] = _mm512_permutex2var_epi8(lower, load(kPositions.interleave8[half]), upper);
  }
}

void join(FloatLayout layout, const uint8_t* symbols, const uint8_t* top, const std::byte* low,
          size_t n, std::byte* raw) {
  size_t i = 0;
  __m512i high[2];
  if (layout == FloatLayout::kBf16) {
    for (; i + kGroup <= n; i += kGroup) {
      join_halves(symbols + i, top + i, high);
      store(raw + 2 * i, high[0]);
      store(raw + 2 * i + 64, high[1]);
    }
  } else if (layout == FloatLayout::kFp32) {
    for (; i + kGroup <= n; i += kGroup) {
      join_halves(symbols + i, top + i, high);
      for (size_t half = 0; half < 2; ++half) {
        const __m512i rest = load(low + 2 * i + 64 * half);
        for (size_t quarter = 0; quarter < 2; ++quarter) {
          store(
              raw + 4 * i + 128 * half + 64 * quarter,
              _mm512_permutex2var_epi16(rest, load(kPositions.interleave16[quarter]), high[half]));
        }
      }
    }
  }
  join_elements(layout, symbols + i, top + i, low + i * low_bytes(layout), n - i,
                raw + i * element_bytes(layout));
}

size_t encode_level(Level level, const uint8_t* symbols, size_t n, std::byte* planes,
                    uint8_t* escapes) {
  const unsigned width = (1u << level.bits) - 1;
  const __m512i lows = bytes_of(level.low);
  const __m512i widths = bytes_of(static_cast<uint8_t>(width));
  size_t escaped = 0;
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    const __m512i v = load(symbols + i);
    const __m512i from_low = _mm512_sub_epi8(v, lows);
    const __mmask64 outside = _mm512_cmpge_epu8_mask(from_low, widths);
    for (unsigned j = 0; j < level.bits; ++j) {
      const __mmask64 word =
          _mm512_test_epi8_mask(from_low, bytes_of(static_cast<uint8_t>(1u << j))) | outside;
      store_le(planes, static_cast<uint64_t>(word));
      planes += sizeof(uint64_t);
    }
    const __m512i escape = _mm512_mask_sub_epi8(v, _mm512_cmpge_epu8_mask(v, lows), v, widths);
    // Through a register: compressing to memory is slow on some machines.
    store(escapes + escaped, _mm512_maskz_compress_epi8(outside, escape));
    escaped += static_cast<size_t>(__builtin_popcountll(outside));
  }
  if (i == n) return escaped;
  return escaped + encode_group(level, width, symbols + i, n - i, planes, escapes + escaped);
}

size_t decode_level(Level level, const std::byte* planes, size_t n, const uint8_t* escapes,
                    size_t escape_count, uint8_t* symbols) {
  const unsigned width = (1u << level.bits) - 1;
  const __m512i lows = bytes_of(level.low);
  const __m512i widths = bytes_of(static_cast<uint8_t>(width));
  size_t used = 0;
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    __m512i code = lows;
    uint64_t outside = ~uint64_t{0};
    for (unsigned j = 0; j < level.bits; ++j) {
      const auto word = load_le<uint64_t>(planes);
      planes += sizeof word;
      outside &= word;
      code = _mm512_mask_add_epi8(code, word, code, bytes_of(static_cast<uint8_t>(1u << j)));
    }
    const auto count = static_cast<size_t>(__builtin_popcountll(outside));
    if (used + count > escape_count) return escape_count + 1;
    const __m512i escape = _mm512_maskz_expand_epi8(outside, load(escapes + used));
    used += count;
    const __m512i symbol =
        _mm512_mask_add_epi8(escape, _mm512_cmpge_epu8_mask(escape, lows), escape, widths);
    store(symbols + i, _mm512_mask_mov_epi8(code, outside, symbol));
  }
  if (i == n) return used;
  return decode_group(level, width, planes, n - i, escapes, used, escape_count, symbols + i);
}

void pack_bits(uint8_t mask, const uint8_t* top, size_t n, std::byte* planes) {
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    const __m512i v = load(top + i);
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      store_le(planes, static_cast<uint64_t>(
                           _mm512_test_epi8_mask(v, bytes_of(static_cast<uint8_t>(rest & -rest)))));
      planes += sizeof(uint64_t);
    }
  }
  if (i < n) pack_group(mask, top + i, n - i, planes);
}

void unpack_bits(uint8_t mask, uint8_t constant, const std::byte* planes, size_t n, uint8_t* top) {
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    __m512i v = bytes_of(static_cast<uint8_t>(constant & ~mask));
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      const __m512i bit = bytes_of(static_cast<uint8_t>(rest & -rest));
      v = _mm512_or_si512(v, _mm512_maskz_mov_epi8(load_le<uint64_t>(planes), bit));
      planes += sizeof(uint64_t);
    }
    store(top + i, v);
  }
  if (i < n) unpack_group(mask, constant, planes, n - i, top + i);
}

}  // namespace

const PlaneKernels& avx512_plane_kernels() {
  static constexpr PlaneKernels kKernels = {
      .name = "avx512",
      .split = &split,
      .join = &join,
      .encode_level = &encode_level,
      .decode_level = &decode_level,
      .pack_bits = &pack_bits,
      .unpack_bits = &unpack_bits,
  };
  return kKernels;
}

}  // namespace caisson

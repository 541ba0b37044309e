// The plane kernels with AVX2 and BMI2: 32 bytes a step, escapes gathered eight at a time by pext.
// Compiled for that instruction set alone; called only where the machine has it.
#include <immintrin.h>

#include <array>
#include <bit>
#include <cstring>

#include "compression/plane_kernels_impl.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

constexpr size_t kStep = 32;  // elements of one step of split and join

__m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
__m256i bytes_of(uint8_t value) { return _mm256_set1_epi8(static_cast<char>(value)); }
// 16-bit lanes of two vectors that are below 256, as bytes in order.
__m256i narrow(__m256i a, __m256i b) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8);
}
__m256i at_least(__m256i a, __m256i b) { return _mm256_cmpeq_epi8(_mm256_max_epu8(a, b), a); }

// The symbols and tops of 32 bf16 elements, and what was seen of the tops.
struct TopSeen {
  __m256i any = _mm256_setzero_si256();
  __m256i all = _mm256_set1_epi8(-1);
};
void split_halves(__m256i a, __m256i b, uint8_t* symbols, uint8_t* top, TopSeen& seen) {
  const __m256i low8 = _mm256_set1_epi16(0xff);
  const __m256i mantissa = _mm256_set1_epi16(0x7f);
  const __m256i sign = _mm256_set1_epi16(0x80);
  store(symbols, narrow(_mm256_and_si256(_mm256_srli_epi16(a, 7), low8),
                        _mm256_and_si256(_mm256_srli_epi16(b, 7), low8)));
  const auto top_of = [&](__m256i x) {
    return _mm256_or_si256(_mm256_and_si256(x, mantissa),
                           _mm256_and_si256(_mm256_srli_epi16(x, 8), sign));
  };
  const __m256i tops = narrow(top_of(a), top_of(b));
  store(top, tops);
  seen.any = _mm256_or_si256(seen.any, tops);
  seen.all = _mm256_and_si256(seen.all, tops);
}

void finish(const TopSeen& vectors, TopBits* seen) {
  alignas(32) std::array<uint8_t, 32> any;
  alignas(32) std::array<uint8_t, 32> all;
  store(any.data(), vectors.any);
  store(all.data(), vectors.all);
  for (size_t i = 0; i < any.size(); ++i) {
    seen->any |= any[i];
    seen->all &= all[i];
  }
}

void split(FloatLayout layout, const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top,
           std::byte* low, TopBits* seen) {
  size_t i = 0;
  TopSeen vectors;
  if (layout == FloatLayout::kBf16) {
    for (; i + kStep <= n; i += kStep) {
      split_halves(load(raw + 2 * i), load(raw + 2 * i + 32), symbols + i, top + i, vectors);
    }
  } else if (layout == FloatLayout::kFp32) {
    const __m256i low16 = _mm256_set1_epi32(0xffff);
    for (; i + kStep <= n; i += kStep) {
      __m256i high[2];
      for (size_t half = 0; half < 2; ++half) {
        const __m256i a = load(raw + 4 * i + 64 * half);
        const __m256i b = load(raw + 4 * i + 64 * half + 32);
        high[half] = _mm256_permute4x64_epi64(
            _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16)), 0xd8);
        store(
            low + 2 * i + 32 * half,
            _mm256_permute4x64_epi64(
                _mm256_packus_epi32(_mm256_and_si256(a, low16), _mm256_and_si256(b, low16)), 0xd8));
      }
      split_halves(high[0], high[1], symbols + i, top + i, vectors);
    }
  }
  if (i != 0) finish(vectors, seen);
  split_elements(layout, raw + i * element_bytes(layout), n - i, symbols + i, top + i,
                 low + i * low_bytes(layout), seen);
}

// 16 bf16 elements.
__m256i join_halves(const uint8_t* symbols, const uint8_t* top) {
  const __m256i s =
      _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(symbols)));
  const __m256i t = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(top)));
  const __m256i mantissa = _mm256_and_si256(t, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_slli_epi16(_mm256_srli_epi16(t, 7), 15);
  return _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(s, 7), mantissa), sign);
}

void join(FloatLayout layout, const uint8_t* symbols, const uint8_t* top, const std::byte* low,
          size_t n, std::byte* raw) {
  constexpr size_t kHalf = kStep / 2;
  size_t i = 0;
  if (layout == FloatLayout::kBf16) {
    for (; i + kHalf <= n; i += kHalf) store(raw + 2 * i, join_halves(symbols + i, top + i));
  } else if (layout == FloatLayout::kFp32) {
    for (; i + kHalf <= n; i += kHalf) {
      const __m256i high = join_halves(symbols + i, top + i);
      const __m256i rest = load(low + 2 * i);
      const __m256i a = _mm256_unpacklo_epi16(rest, high);  // elements 0-3 and 8-11
      const __m256i b = _mm256_unpackhi_epi16(rest, high);  // elements 4-7 and 12-15
      store(raw + 4 * i, _mm256_permute2x128_si256(a, b, 0x20));
      store(raw + 4 * i + 32, _mm256_permute2x128_si256(a, b, 0x31));
    }
  }
  join_elements(layout, symbols + i, top + i, low + i * low_bytes(layout), n - i,
                raw + i * element_bytes(layout));
}

// Bit `bit` of 64 bytes.
uint64_t plane(__m256i a, __m256i b, int bit) {
  const __m128i shift = _mm_cvtsi32_si128(7 - bit);
  const auto low = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(a, shift)));
  const auto high = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_sll_epi16(b, shift)));
  return low | (uint64_t{high} << 32);
}

// 32 bytes, all ones where the bit of `word` is set.
__m256i spread(uint32_t word) {
  const __m256i which = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2,
                                         2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bits = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
  const __m256i words = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)), which);
  return _mm256_cmpeq_epi8(_mm256_and_si256(words, bits), bits);
}

// A byte of ones for each bit of `bits`.
uint64_t widen(uint64_t bits) { return _pdep_u64(bits, 0x0101010101010101ull) * 0xff; }

template <unsigned kBits>
size_t encode_groups(uint8_t low, const uint8_t* symbols, size_t groups, std::byte* planes,
                     uint8_t* escapes) {
  constexpr uint8_t kWidth = (1u << kBits) - 1;
  const __m256i lows = bytes_of(low);
  const __m256i widths = bytes_of(kWidth);
  uint8_t* const start = escapes;
  for (size_t group = 0; group < groups; ++group) {
    __m256i code[2];
    __m256i escape[2];
    uint32_t outside[2];
    for (size_t half = 0; half < 2; ++half) {
      const __m256i v = load(symbols + group * kGroup + half * 32);
      const __m256i from_low = _mm256_sub_epi8(v, lows);
      const __m256i out = at_least(from_low, widths);
      code[half] = _mm256_or_si256(from_low, out);
      escape[half] = _mm256_sub_epi8(v, _mm256_and_si256(at_least(v, lows), widths));
      outside[half] = static_cast<uint32_t>(_mm256_movemask_epi8(out));
    }
    for (unsigned j = 0; j < kBits; ++j) {
      store_le(planes, plane(code[0], code[1], static_cast<int>(j)));
      planes += sizeof(uint64_t);
    }
    for (size_t half = 0; half < 2; ++half) {
      if (outside[half] == 0) continue;
      alignas(32) std::array<uint64_t, 4> eights;
      store(eights.data(), escape[half]);
      for (size_t i = 0; i < eights.size(); ++i) {
        const uint64_t bits = (outside[half] >> (8 * i)) & 0xff;
        const uint64_t gathered = _pext_u64(eights[i], widen(bits));
        std::memcpy(escapes, &gathered, sizeof gathered);
        escapes += __builtin_popcountll(bits);
      }
    }
  }
  return static_cast<size_t>(escapes - start);
}

template <unsigned kBits>
size_t decode_groups(uint8_t low, const std::byte* planes, size_t groups, const uint8_t* escapes,
                     size_t escape_count, uint8_t* symbols) {
  constexpr uint8_t kWidth = (1u << kBits) - 1;
  const __m256i lows = bytes_of(low);
  const __m256i widths = bytes_of(kWidth);
  size_t used = 0;
  for (size_t group = 0; group < groups; ++group) {
    std::array<uint64_t, kBits> words;
    uint64_t outside = ~uint64_t{0};
    for (unsigned j = 0; j < kBits; ++j) {
      words[j] = load_le<uint64_t>(planes);
      planes += sizeof(uint64_t);
      outside &= words[j];
    }
    if (used + static_cast<size_t>(__builtin_popcountll(outside)) > escape_count)
      return escape_count + 1;
    for (size_t half = 0; half < 2; ++half) {
      __m256i code = lows;
      for (unsigned j = 0; j < kBits; ++j) {
        const __m256i bit = spread(static_cast<uint32_t>(words[j] >> (32 * half)));
        code = _mm256_add_epi8(code, _mm256_and_si256(bit, bytes_of(uint8_t(1u << j))));
      }
      const auto out = static_cast<uint32_t>(outside >> (32 * half));
      if (out != 0) {
        // Built in registers: four small stores read back as one load would wait for each other.
        uint64_t eights[4];
        for (size_t i = 0; i < 4; ++i) {
          const uint64_t bits = (out >> (8 * i)) & 0xff;
          uint64_t next;
          std::memcpy(&next, escapes + used, sizeof next);
          eights[i] = _pdep_u64(next, widen(bits));
          used += static_cast<size_t>(__builtin_popcountll(bits));
        }
        const __m256i escape =
            _mm256_set_epi64x(static_cast<long long>(eights[3]), static_cast<long long>(eights[2]),
                              static_cast<long long>(eights[1]), static_cast<long long>(eights[0]));
        const __m256i symbol =
            _mm256_add_epi8(escape, _mm256_and_si256(at_least(escape, lows), widths));
        code = _mm256_blendv_epi8(code, symbol, spread(out));
      }
      store(symbols + group * kGroup + half * 32, code);
    }
  }
  return used;
}

using EncodeGroups = size_t (*)(uint8_t, const uint8_t*, size_t, std::byte*, uint8_t*);
using DecodeGroups = size_t (*)(uint8_t, const std::byte*, size_t, const uint8_t*, size_t,
                                uint8_t*);
constexpr std::array<EncodeGroups, kLevelBitsMax> kEncode = {
    &encode_groups<1>, &encode_groups<2>, &encode_groups<3>, &encode_groups<4>,
    &encode_groups<5>, &encode_groups<6>, &encode_groups<7>};
constexpr std::array<DecodeGroups, kLevelBitsMax> kDecode = {
    &decode_groups<1>, &decode_groups<2>, &decode_groups<3>, &decode_groups<4>,
    &decode_groups<5>, &decode_groups<6>, &decode_groups<7>};

size_t encode_level(Level level, const uint8_t* symbols, size_t n, std::byte* planes,
                    uint8_t* escapes) {
  const size_t groups = n / kGroup;
  const size_t escaped = kEncode[level.bits - 1u](level.low, symbols, groups, planes, escapes);
  if (groups * kGroup == n) return escaped;
  return escaped +
         encode_group(level, (1u << level.bits) - 1, symbols + groups * kGroup, n - groups * kGroup,
                      planes + plane_bytes(groups * kGroup, level.bits), escapes + escaped);
}

size_t decode_level(Level level, const std::byte* planes, size_t n, const uint8_t* escapes,
                    size_t escape_count, uint8_t* symbols) {
  const size_t groups = n / kGroup;
  const size_t used =
      kDecode[level.bits - 1u](level.low, planes, groups, escapes, escape_count, symbols);
  if (groups * kGroup == n || used > escape_count) return used;
  return decode_group(level, (1u << level.bits) - 1,
                      planes + plane_bytes(groups * kGroup, level.bits), n - groups * kGroup,
                      escapes, used, escape_count, symbols + groups * kGroup);
}

void pack_bits(uint8_t mask, const uint8_t* top, size_t n, std::byte* planes) {
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    const __m256i a = load(top + i);
    const __m256i b = load(top + i + 32);
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      store_le(planes, plane(a, b, std::countr_zero(rest)));
      planes += sizeof(uint64_t);
    }
  }
  if (i < n) pack_group(mask, top + i, n - i, planes);
}

void unpack_bits(uint8_t mask, uint8_t constant, const std::byte* planes, size_t n, uint8_t* top) {
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    __m256i a = bytes_of(static_cast<uint8_t>(constant & ~mask));
    __m256i b = a;
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      const __m256i bit = bytes_of(static_cast<uint8_t>(rest & -rest));
      const auto word = load_le<uint64_t>(planes);
      a = _mm256_or_si256(a, _mm256_and_si256(spread(static_cast<uint32_t>(word)), bit));
      b = _mm256_or_si256(b, _mm256_and_si256(spread(static_cast<uint32_t>(word >> 32)), bit));
      planes += sizeof word;
    }
    store(top + i, a);
    store(top + i + 32, b);
  }
  if (i < n) unpack_group(mask, constant, planes, n - i, top + i);
}

size_t encode_elements(const Coding& coding, const std::byte* raw, size_t n, ElementAreas to,
                       uint8_t* escapes, TopBits* seen) {
  return encode_in_passes(avx2_plane_kernels(), coding, raw, n, to, escapes, seen);
}

size_t decode_elements(const Coding& coding, ConstElementAreas from, size_t n,
                       const uint8_t* escapes, size_t escape_count, std::byte* raw) {
  return decode_in_passes(avx2_plane_kernels(), coding, from, n, escapes, escape_count, raw);
}

}  // namespace

const PlaneKernels& avx2_plane_kernels() {
  static constexpr PlaneKernels kKernels = {
      .name = "avx2",
      .split = &split,
      .join = &join,
      .encode_level = &encode_level,
      .decode_level = &decode_level,
      .pack_bits = &pack_bits,
      .unpack_bits = &unpack_bits,
      .encode_elements = &encode_elements,
      .decode_elements = &decode_elements,
  };
  return kKernels;
}

}  // namespace caisson

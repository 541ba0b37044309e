// The plane kernels with AVX-512: a group is one register. Its planes are the transpose of an 8 x
// 64 matrix of bits: GFNI transposes eight 8 x 8 ones, VBMI gathers their rows. Escapes are
// compressed and expanded by VBMI2. Compiled for these instruction sets alone; called only where
// the machine has them.
#include <immintrin.h>

#include <array>
#include <bit>

#include "compression/huffman_bits.h"
#include "compression/plane_kernels_impl.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

__m512i load(const void* from) { return _mm512_loadu_si512(from); }
void store(void* to, __m512i value) { _mm512_storeu_si512(to, value); }
// A zero that the compiler takes for anything: for instructions that zero what their mask leaves
// out and yet, on some machines, wait for what was in that register before.
__m512i fresh_zero() {
  __m512i zero = _mm512_setzero_si512();
  __asm__("" : "+v"(zero));
  return zero;
}
__m512i bytes_of(uint8_t value) { return _mm512_set1_epi8(static_cast<char>(value)); }

// Positions for the permutations below, made once.
struct Positions {
  alignas(64) uint8_t even8[64];  // the even bytes of two registers
  alignas(64) uint8_t odd8[64];
  alignas(64) uint8_t interleave8[2][64];  // the lower or upper halves of two, byte by byte
  alignas(64) uint16_t even16[32];
  alignas(64) uint16_t odd16[32];
  alignas(64) uint16_t interleave16[2][32];
  alignas(64) uint8_t reverse8[64];       // the bytes of each word, the last one first
  alignas(64) uint8_t rows[64];           // byte i of word j from byte j of word i
  alignas(64) uint8_t reversed_rows[64];  // the same, then reverse8
  // The last byte first, in the order that unpacking the lower halves of lanes, then the upper
  // ones, makes straight.
  alignas(64) uint8_t last_first[64];
  constexpr Positions()
      : even8(),
        odd8(),
        interleave8(),
        even16(),
        odd16(),
        interleave16(),
        reverse8(),
        rows(),
        reversed_rows(),
        last_first() {
    for (unsigned i = 0; i < 64; ++i) {
      even8[i] = static_cast<uint8_t>(2 * i);
      odd8[i] = static_cast<uint8_t>(2 * i + 1);
      for (unsigned half = 0; half < 2; ++half) {
        interleave8[half][i] = static_cast<uint8_t>(32 * half + i / 2 + 64 * (i % 2));
      }
      reverse8[i] = static_cast<uint8_t>(i / 8 * 8 + 7 - i % 8);
      rows[i] = static_cast<uint8_t>(8 * (i % 8) + i / 8);
      reversed_rows[i] = static_cast<uint8_t>(8 * (7 - i % 8) + i / 8);
      last_first[i] = static_cast<uint8_t>(63 - (i % 16 / 8 * 32 + i / 16 * 8 + i % 8));
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

// Byte i of each word: bit i.
__m512i units() { return _mm512_set1_epi64(static_cast<long long>(0x8040201008040201ull)); }

// Named with a mask because compilers warn of the undefined register that the plain intrinsic
// takes.
__m512i permute(const uint8_t (&positions)[64], __m512i bytes) {
  return _mm512_permutexvar_epi8(load(positions), bytes);
}

// Word j gets bit j of the 64 bytes.
__m512i planes_of(__m512i bytes) {
  const __m512i reversed = _mm512_shuffle_epi8(bytes, load(kPositions.reverse8));
  return permute(kPositions.rows, _mm512_gf2p8affine_epi64_epi8(units(), reversed, 0));
}
// The inverse.
__m512i bytes_of_planes(__m512i planes) {
  return _mm512_gf2p8affine_epi64_epi8(units(), permute(kPositions.reversed_rows, planes), 0);
}

struct TopSeen {
  __m512i any = _mm512_setzero_si512();
  __m512i all = _mm512_set1_epi8(-1);

  void see(__m512i tops) {
    any = _mm512_or_si512(any, tops);
    all = _mm512_and_si512(all, tops);
  }
  void add_to(TopBits* seen) const {
    alignas(64) uint8_t anys[64];
    alignas(64) uint8_t alls[64];
    store(anys, any);
    store(alls, all);
    for (size_t i = 0; i < 64; ++i) {
      seen->any |= anys[i];
      seen->all &= alls[i];
    }
  }
};

// 64 elements of these layouts are split and joined in registers.
template <FloatLayout kLayout>
constexpr bool kInRegisters = kLayout == FloatLayout::kBf16 || kLayout == FloatLayout::kFp32;

struct Parts64 {
  __m512i symbols, tops;
};

// The parts of 64 elements; the lows of fp32 go to `low`.
template <FloatLayout kLayout>
Parts64 split64(const std::byte* raw, std::byte* low) {
  static_assert(kInRegisters<kLayout>);
  __m512i half[2];  // bf16 elements
  if constexpr (kLayout == FloatLayout::kBf16) {
    half[0] = load(raw);
    half[1] = load(raw + 64);
  } else {
    for (size_t i = 0; i < 2; ++i) {
      const __m512i a = load(raw + 128 * i);
      const __m512i b = load(raw + 128 * i + 64);
      half[i] = _mm512_permutex2var_epi16(a, load(kPositions.odd16), b);
      store(low + 64 * i, _mm512_permutex2var_epi16(a, load(kPositions.even16), b));
    }
  }
  const __m512i lower = _mm512_permutex2var_epi8(half[0], load(kPositions.even8), half[1]);
  const __m512i upper = _mm512_permutex2var_epi8(half[0], load(kPositions.odd8), half[1]);
  // Twice the upper byte, and the highest bit of the lower one: a | (b & c).
  const __m512i symbols = _mm512_ternarylogic_epi32(_mm512_add_epi8(upper, upper),
                                                    _mm512_srli_epi16(lower, 7), bytes_of(1), 0xf8);
  // The sign from `upper`, the rest from `lower`.
  return {symbols, _mm512_ternarylogic_epi32(bytes_of(0x80), upper, lower, 0xca)};
}

// The inverse.
template <FloatLayout kLayout>
void join64(Parts64 parts, const std::byte* low, std::byte* raw) {
  static_assert(kInRegisters<kLayout>);
  const __m512i sign = bytes_of(0x80);
  const __m512i upper =
      _mm512_ternarylogic_epi32(sign, parts.tops, _mm512_srli_epi16(parts.symbols, 1), 0xca);
  const __m512i lower =
      _mm512_ternarylogic_epi32(sign, _mm512_slli_epi16(parts.symbols, 7), parts.tops, 0xca);
  for (size_t half = 0; half < 2; ++half) {
    const __m512i high = _mm512_permutex2var_epi8(lower, load(kPositions.interleave8[half]), upper);
    if constexpr (kLayout == FloatLayout::kBf16) {
      store(raw + 64 * half, high);
    } else {
      const __m512i rest = load(low + 64 * half);
      for (size_t i = 0; i < 2; ++i) {
        store(raw + 128 * half + 64 * i,
              _mm512_permutex2var_epi16(rest, load(kPositions.interleave16[i]), high));
      }
    }
  }
}

// A level, as registers.
struct LevelLanes {
  __m512i lows, widths;
  __mmask8 words;  // of a group
  size_t group_bytes;
  explicit LevelLanes(Level level)
      : lows(bytes_of(level.low)),
        widths(bytes_of(static_cast<uint8_t>((1u << level.bits) - 1))),
        words(static_cast<__mmask8>((1u << level.bits) - 1)),
        group_bytes(level.bits * sizeof(uint64_t)) {}
};

// Gives the number of escapes.
size_t encode64(const LevelLanes& level, __m512i symbols, std::byte* planes, uint8_t* escapes) {
  const __m512i from_low = _mm512_sub_epi8(symbols, level.lows);
  const __mmask64 outside = _mm512_cmpge_epu8_mask(from_low, level.widths);
  _mm512_mask_storeu_epi64(planes, level.words, planes_of(_mm512_min_epu8(from_low, level.widths)));
  const __m512i escape = _mm512_mask_sub_epi8(symbols, _mm512_cmpge_epu8_mask(symbols, level.lows),
                                              symbols, level.widths);
  // Through a register: compressing to memory is slow on some machines.
  store(escapes, _mm512_mask_compress_epi8(fresh_zero(), outside, escape));
  return static_cast<size_t>(__builtin_popcountll(outside));
}

// The inverse. `used` grows by the escapes that the codes call for.
__m512i decode64(const LevelLanes& level, const std::byte* planes, const uint8_t* escapes,
                 size_t& used) {
  const __m512i code = bytes_of_planes(_mm512_maskz_loadu_epi64(level.words, planes));
  const __mmask64 outside = _mm512_cmpeq_epu8_mask(code, level.widths);
  // Slack allows this as long as `used` is within bounds.
  const __m512i escape = _mm512_mask_expand_epi8(fresh_zero(), outside, load(escapes + used));
  used += static_cast<size_t>(__builtin_popcountll(outside));
  const __m512i symbol = _mm512_mask_add_epi8(escape, _mm512_cmpge_epu8_mask(escape, level.lows),
                                              escape, level.widths);
  return _mm512_mask_mov_epi8(_mm512_add_epi8(code, level.lows), outside, symbol);
}

template <FloatLayout kLayout>
size_t split_groups(const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top, std::byte* low,
                    TopBits* seen) {
  TopSeen vectors;
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    const Parts64 parts =
        split64<kLayout>(raw + i * element_bytes(kLayout), low + i * low_bytes(kLayout));
    store(symbols + i, parts.symbols);
    store(top + i, parts.tops);
    vectors.see(parts.tops);
  }
  if (i != 0) vectors.add_to(seen);
  return i;
}

void split(FloatLayout layout, const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top,
           std::byte* low, TopBits* seen) {
  size_t i = 0;
  if (layout == FloatLayout::kBf16) {
    i = split_groups<FloatLayout::kBf16>(raw, n, symbols, top, low, seen);
  } else if (layout == FloatLayout::kFp32) {
    i = split_groups<FloatLayout::kFp32>(raw, n, symbols, top, low, seen);
  }
  split_elements(layout, raw + i * element_bytes(layout), n - i, symbols + i, top + i,
                 low + i * low_bytes(layout), seen);
}

template <FloatLayout kLayout>
size_t join_groups(const uint8_t* symbols, const uint8_t* top, const std::byte* low, size_t n,
                   std::byte* raw) {
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    join64<kLayout>({load(symbols + i), load(top + i)}, low + i * low_bytes(kLayout),
                    raw + i * element_bytes(kLayout));
  }
  return i;
}

void join(FloatLayout layout, const uint8_t* symbols, const uint8_t* top, const std::byte* low,
          size_t n, std::byte* raw) {
  size_t i = 0;
  if (layout == FloatLayout::kBf16) {
    i = join_groups<FloatLayout::kBf16>(symbols, top, low, n, raw);
  } else if (layout == FloatLayout::kFp32) {
    i = join_groups<FloatLayout::kFp32>(symbols, top, low, n, raw);
  }
  join_elements(layout, symbols + i, top + i, low + i * low_bytes(layout), n - i,
                raw + i * element_bytes(layout));
}

size_t encode_level(Level level, const uint8_t* symbols, size_t n, std::byte* planes,
                    uint8_t* escapes) {
  const LevelLanes lanes(level);
  size_t escaped = 0;
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup, planes += lanes.group_bytes) {
    escaped += encode64(lanes, load(symbols + i), planes, escapes + escaped);
  }
  if (i == n) return escaped;
  return escaped +
         encode_group(level, (1u << level.bits) - 1, symbols + i, n - i, planes, escapes + escaped);
}

size_t decode_level(Level level, const std::byte* planes, size_t n, const uint8_t* escapes,
                    size_t escape_count, uint8_t* symbols) {
  const LevelLanes lanes(level);
  size_t used = 0;
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup, planes += lanes.group_bytes) {
    store(symbols + i, decode64(lanes, planes, escapes, used));
    if (used > escape_count) return used;
  }
  if (i == n) return used;
  return decode_group(level, (1u << level.bits) - 1, planes, n - i, escapes, used, escape_count,
                      symbols + i);
}

// The planes of the bits that `mask` names, to their place.
void pack64(__mmask8 mask, size_t words, __m512i tops, std::byte* planes) {
  const auto first = static_cast<__mmask8>((1u << words) - 1);
  _mm512_mask_storeu_epi64(planes, first,
                           _mm512_mask_compress_epi64(fresh_zero(), mask, planes_of(tops)));
}
__m512i unpack64(__mmask8 mask, size_t words, __m512i constants, const std::byte* planes) {
  const auto first = static_cast<__mmask8>((1u << words) - 1);
  const __m512i stored = _mm512_maskz_loadu_epi64(first, planes);
  return _mm512_or_si512(bytes_of_planes(_mm512_mask_expand_epi64(fresh_zero(), mask, stored)),
                         constants);
}

void pack_bits(uint8_t mask, const uint8_t* top, size_t n, std::byte* planes) {
  const auto words = static_cast<size_t>(std::popcount(mask));
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup, planes += words * sizeof(uint64_t)) {
    pack64(mask, words, load(top + i), planes);
  }
  if (i < n) pack_group(mask, top + i, n - i, planes);
}

void unpack_bits(uint8_t mask, uint8_t constant, const std::byte* planes, size_t n, uint8_t* top) {
  const auto words = static_cast<size_t>(std::popcount(mask));
  const __m512i constants = bytes_of(static_cast<uint8_t>(constant & ~mask));
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup, planes += words * sizeof(uint64_t)) {
    store(top + i, unpack64(mask, words, constants, planes));
  }
  if (i < n) unpack_group(mask, constant, planes, n - i, top + i);
}

// Elements are read this far ahead: what the processor's own prefetching does is not enough.
constexpr size_t kPrefetchBytes = 2048;

// Whole groups in one pass, nothing between the steps but registers.
template <FloatLayout kLayout>
size_t encode_groups(Coding coding, const std::byte* raw, size_t groups, ElementAreas to,
                     uint8_t* escapes, TopBits* seen) {
  const LevelLanes lanes(coding.level);
  const auto words = static_cast<size_t>(std::popcount(coding.varying));
  TopSeen vectors;
  size_t escaped = 0;
  for (size_t i = 0; i < groups; ++i) {
    const std::byte* const from = raw + i * kGroup * element_bytes(kLayout);
    for (size_t j = 0; j < element_bytes(kLayout); ++j) {
      _mm_prefetch(from + kPrefetchBytes + 64 * j, _MM_HINT_T0);
    }
    const Parts64 parts = split64<kLayout>(from, to.low + i * kGroup * low_bytes(kLayout));
    vectors.see(parts.tops);
    if (words == 8) {
      store(to.top + i * kGroup, parts.tops);
    } else {
      pack64(coding.varying, words, parts.tops, to.top + i * words * sizeof(uint64_t));
    }
    if (coding.level.bits == 0) {
      store(to.symbols + i * kGroup, parts.symbols);
    } else {
      escaped +=
          encode64(lanes, parts.symbols, to.symbols + i * lanes.group_bytes, escapes + escaped);
    }
  }
  if (groups != 0) vectors.add_to(seen);
  return escaped;
}

template <FloatLayout kLayout>
size_t decode_groups(Coding coding, ConstElementAreas from, size_t groups, const uint8_t* escapes,
                     size_t escape_count, std::byte* raw) {
  const LevelLanes lanes(coding.level);
  const auto words = static_cast<size_t>(std::popcount(coding.varying));
  const __m512i constants = bytes_of(static_cast<uint8_t>(coding.constant & ~coding.varying));
  size_t used = 0;
  for (size_t i = 0; i < groups; ++i) {
    Parts64 parts;
    if (words == 8) {
      parts.tops = load(from.top + i * kGroup);
    } else {
      parts.tops =
          unpack64(coding.varying, words, constants, from.top + i * words * sizeof(uint64_t));
    }
    if (coding.level.bits == 0) {
      parts.symbols = load(from.symbols + i * kGroup);
    } else {
      parts.symbols = decode64(lanes, from.symbols + i * lanes.group_bytes, escapes, used);
      if (used > escape_count) break;
    }
    join64<kLayout>(parts, from.low + i * kGroup * low_bytes(kLayout),
                    raw + i * kGroup * element_bytes(kLayout));
  }
  return used;
}

size_t encode_elements(const Coding& coding, const std::byte* raw, size_t n, ElementAreas to,
                       uint8_t* escapes, TopBits* seen) {
  const size_t groups = n / kGroup;
  size_t escaped = 0;
  if (coding.layout == FloatLayout::kBf16) {
    escaped = encode_groups<FloatLayout::kBf16>(coding, raw, groups, to, escapes, seen);
  } else if (coding.layout == FloatLayout::kFp32) {
    escaped = encode_groups<FloatLayout::kFp32>(coding, raw, groups, to, escapes, seen);
  } else {
    return encode_in_passes(avx512_plane_kernels(), coding, raw, n, to, escapes, seen);
  }
  const size_t done = groups * kGroup;
  if (done == n) return escaped;
  return escaped + encode_in_passes(avx512_plane_kernels(), coding,
                                    raw + done * element_bytes(coding.layout), n - done,
                                    to.behind(coding, done), escapes + escaped, seen);
}

size_t decode_elements(const Coding& coding, ConstElementAreas from, size_t n,
                       const uint8_t* escapes, size_t escape_count, std::byte* raw) {
  const size_t groups = n / kGroup;
  size_t used = 0;
  if (coding.layout == FloatLayout::kBf16) {
    used = decode_groups<FloatLayout::kBf16>(coding, from, groups, escapes, escape_count, raw);
  } else if (coding.layout == FloatLayout::kFp32) {
    used = decode_groups<FloatLayout::kFp32>(coding, from, groups, escapes, escape_count, raw);
  } else {
    return decode_in_passes(avx512_plane_kernels(), coding, from, n, escapes, escape_count, raw);
  }
  const size_t done = groups * kGroup;
  if (done == n || used > escape_count) return used;
  return used + decode_in_passes(avx512_plane_kernels(), coding, from.behind(coding, done),
                                 n - done, escapes + used, escape_count - used,
                                 raw + done * element_bytes(coding.layout));
}

// Codes by symbol, in registers.
class CodeLanes {
 public:
  explicit CodeLanes(const HuffmanCodes& codes) {
    alignas(64) std::array<uint8_t, 256> lower;
    alignas(64) std::array<uint8_t, 256> upper;
    for (size_t s = 0; s < codes.size(); ++s) {
      lower[s] = static_cast<uint8_t>(codes[s].bits);
      upper[s] = static_cast<uint8_t>(codes[s].bits >> 8 | codes[s].length << 3);
    }
    for (size_t i = 0; i < 4; ++i) {
      lower_[i] = load(lower.data() + 64 * i);
      upper_[i] = load(upper.data() + 64 * i);
    }
  }
  // The lower eight bits of the codes of 64 symbols.
  __m512i lower(__m512i symbols) const { return find(lower_, symbols); }
  // Their upper three bits, and above these their lengths.
  __m512i upper(__m512i symbols) const { return find(upper_, symbols); }

 private:
  static __m512i find(const __m512i (&table)[4], __m512i symbols) {
    return _mm512_mask_mov_epi8(_mm512_permutex2var_epi8(table[0], symbols, table[1]),
                                _mm512_movepi8_mask(symbols),
                                _mm512_permutex2var_epi8(table[2], symbols, table[3]));
  }
  __m512i lower_[4], upper_[4];
};

// Four codes each, the first one lowest, and how many bits they are together.
struct FourCodes {
  alignas(64) std::array<uint64_t, 16> bits;
  alignas(64) std::array<uint64_t, 16> lengths;
};

// Codes of 16 bits to codes of four; eight words of them.
void join_codes(__m512i codes, __m512i lengths, uint64_t* bits, uint64_t* bit_counts) {
  const __m512i low16 = _mm512_set1_epi32(0xffff);
  const __m512i length = _mm512_and_si512(lengths, low16);
  const __m512i twos = _mm512_or_si512(_mm512_and_si512(codes, low16),
                                       _mm512_sllv_epi32(_mm512_srli_epi32(codes, 16), length));
  const __m512i two_lengths = _mm512_add_epi32(length, _mm512_srli_epi32(lengths, 16));
  const __m512i low32 = _mm512_set1_epi64(0xffffffff);
  const __m512i two_length = _mm512_and_si512(two_lengths, low32);
  store(bits, _mm512_or_si512(_mm512_and_si512(twos, low32),
                              _mm512_sllv_epi64(_mm512_srli_epi64(twos, 32), two_length)));
  store(bit_counts, _mm512_add_epi64(two_length, _mm512_srli_epi64(two_lengths, 32)));
}

std::byte* write_codes(const HuffmanCodes& codes, const uint8_t* symbols, size_t n, std::byte* to) {
  const CodeLanes lanes(codes);
  BitWriter bits(to);
  FourCodes fours;
  for (size_t i = add_codes(codes, symbols, n, kGroup, bits); i != 0; i -= kGroup) {
    const __m512i group = permute(kPositions.last_first, load(symbols + i - kGroup));
    const __m512i lower = lanes.lower(group);
    const __m512i both = lanes.upper(group);
    const __m512i upper = _mm512_and_si512(both, bytes_of(7));
    const __m512i length = _mm512_and_si512(_mm512_srli_epi16(both, 3), bytes_of(0x1f));
    const __m512i zero = _mm512_setzero_si512();
    join_codes(_mm512_unpacklo_epi8(lower, upper), _mm512_unpacklo_epi8(length, zero),
               fours.bits.data(), fours.lengths.data());
    join_codes(_mm512_unpackhi_epi8(lower, upper), _mm512_unpackhi_epi8(length, zero),
               fours.bits.data() + 8, fours.lengths.data() + 8);
    for (size_t j = 0; j < fours.bits.size(); ++j) {
      bits.add(fours.bits[j], static_cast<unsigned>(fours.lengths[j]));
      bits.flush();
    }
  }
  bits.add(1, 1);
  return bits.finish();
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
      .encode_elements = &encode_elements,
      .decode_elements = &decode_elements,
      .write_codes = &write_codes,
  };
  return kKernels;
}

}  // namespace caisson

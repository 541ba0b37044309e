// The plane kernels with AVX2 and BMI2: 32 bytes a step, escapes gathered and spread eight at a
// time by a table of shuffles. Compiled for that instruction set alone; called only where the
// machine has it.
#include <immintrin.h>

#include <array>
#include <bit>
#include <utility>

#include "compression/huffman_bits.h"
#include "compression/plane_kernels_impl.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

__m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
__m256i bytes_of(uint8_t value) { return _mm256_set1_epi8(static_cast<char>(value)); }
// 16-bit lanes of two vectors that are below 256, as bytes in order.
__m256i narrow(__m256i a, __m256i b) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi16(a, b), 0xd8);
}
__m256i at_least(__m256i a, __m256i b) { return _mm256_cmpeq_epi8(_mm256_max_epu8(a, b), a); }

// For each byte of bits, which bytes of eight are gathered, and where eight gathered ones are
// spread.
struct Shuffles {
  static constexpr uint8_t kZero = 0x80;
  alignas(64) uint8_t gather[256][8];
  alignas(64) uint8_t spread[256][8];
  constexpr Shuffles() : gather(), spread() {
    for (unsigned bits = 0; bits < 256; ++bits) {
      uint8_t count = 0;
      for (uint8_t i = 0; i < 8; ++i) {
        gather[bits][i] = kZero;
        spread[bits][i] = kZero;
      }
      for (uint8_t i = 0; i < 8; ++i) {
        if ((bits >> i & 1) == 0) continue;
        gather[bits][count] = i;
        spread[bits][i] = count++;
      }
    }
  }
};
constexpr Shuffles kShuffles;

// The shuffle of sixteen bytes by two tables' rows, the second for the upper eight.
__m128i shuffle_of(const uint8_t (&rows)[256][8], uint64_t bits) {
  const __m128i row = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows[bits & 0xff]));
  return _mm_castpd_si128(
      _mm_loadh_pd(_mm_castsi128_pd(row), reinterpret_cast<const double*>(rows[bits >> 8 & 0xff])));
}

// How many of the first `count` bits are set.
size_t set_below(uint64_t bits, unsigned count) {
  return static_cast<size_t>(__builtin_popcountll(_bzhi_u64(bits, count)));
}

// Those of 64 bytes whose bit is set, to `to`; writes up to 8 bytes beyond. That the bits below say
// where each eight goes keeps them from waiting for each other.
void gather64(const __m256i bytes[2], uint64_t bits, uint8_t* to) {
  const __m128i upper = _mm_set_epi64x(0x0808080808080808, 0);
  for (unsigned i = 0; i < 4; ++i) {
    const __m256i half = bytes[i / 2];
    const __m128i from =
        i % 2 == 0 ? _mm256_castsi256_si128(half) : _mm256_extracti128_si256(half, 1);
    const __m128i gathered =
        _mm_shuffle_epi8(from, _mm_add_epi8(shuffle_of(kShuffles.gather, bits >> (16 * i)), upper));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + set_below(bits, 16 * i)), gathered);
    _mm_storeh_pd(reinterpret_cast<double*>(to + set_below(bits, 16 * i + 8)),
                  _mm_castsi128_pd(gathered));
  }
}

// The inverse: zeros where the bit is not set. Reads up to 8 bytes beyond.
void spread64(const uint8_t* from, uint64_t bits, __m256i bytes[2]) {
  const __m128i upper = _mm_set_epi64x(0x0808080808080808, 0);
  __m128i spread[4];
  for (unsigned i = 0; i < 4; ++i) {
    const __m128i low =
        _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from + set_below(bits, 16 * i)));
    const __m128i both = _mm_castpd_si128(
        _mm_loadh_pd(_mm_castsi128_pd(low),
                     reinterpret_cast<const double*>(from + set_below(bits, 16 * i + 8))));
    spread[i] =
        _mm_shuffle_epi8(both, _mm_add_epi8(shuffle_of(kShuffles.spread, bits >> (16 * i)), upper));
  }
  bytes[0] = _mm256_set_m128i(spread[1], spread[0]);
  bytes[1] = _mm256_set_m128i(spread[3], spread[2]);
}

// What was seen of tops.
struct TopSeen {
  __m256i any = _mm256_setzero_si256();
  __m256i all = _mm256_set1_epi8(-1);

  void see(__m256i tops) {
    any = _mm256_or_si256(any, tops);
    all = _mm256_and_si256(all, tops);
  }
  void add_to(TopBits* seen) const {
    alignas(32) std::array<uint8_t, 32> anys;
    alignas(32) std::array<uint8_t, 32> alls;
    store(anys.data(), any);
    store(alls.data(), all);
    for (size_t i = 0; i < anys.size(); ++i) {
      seen->any |= anys[i];
      seen->all &= alls[i];
    }
  }
};

// These layouts are split and joined in registers, a group of 64 at a time.
struct Parts64 {
  __m256i symbols[2], tops[2];
};

// The parts of 64 elements; the lows of fp32 go to `low`.
template <FloatLayout kLayout>
Parts64 split64(const std::byte* raw, std::byte* low) {
  const __m256i low8 = _mm256_set1_epi16(0xff);
  const __m256i low16 = _mm256_set1_epi32(0xffff);
  const __m256i mantissa = _mm256_set1_epi8(0x7f);
  Parts64 parts;
  for (size_t half = 0; half < 2; ++half) {
    __m256i x[2];  // bf16 elements
    for (size_t i = 0; i < 2; ++i) {
      const size_t quarter = 2 * half + i;
      if constexpr (kLayout == FloatLayout::kBf16) {
        x[i] = load(raw + 32 * quarter);
      } else {
        const __m256i a = load(raw + 64 * quarter);
        const __m256i b = load(raw + 64 * quarter + 32);
        x[i] = _mm256_permute4x64_epi64(
            _mm256_packus_epi32(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16)), 0xd8);
        store(
            low + 32 * quarter,
            _mm256_permute4x64_epi64(
                _mm256_packus_epi32(_mm256_and_si256(a, low16), _mm256_and_si256(b, low16)), 0xd8));
      }
    }
    const __m256i lower = narrow(_mm256_and_si256(x[0], low8), _mm256_and_si256(x[1], low8));
    const __m256i upper = narrow(_mm256_srli_epi16(x[0], 8), _mm256_srli_epi16(x[1], 8));
    const __m256i lowest = _mm256_and_si256(_mm256_srli_epi16(lower, 7), bytes_of(1));
    parts.symbols[half] = _mm256_or_si256(_mm256_add_epi8(upper, upper), lowest);
    parts.tops[half] =
        _mm256_or_si256(_mm256_and_si256(lower, mantissa), _mm256_andnot_si256(mantissa, upper));
  }
  return parts;
}

// The inverse.
template <FloatLayout kLayout>
void join64(const Parts64& parts, const std::byte* low, std::byte* raw) {
  const __m256i mantissa = _mm256_set1_epi8(0x7f);
  for (size_t half = 0; half < 2; ++half) {
    const __m256i symbols = parts.symbols[half];
    const __m256i tops = parts.tops[half];
    const __m256i lower =
        _mm256_or_si256(_mm256_and_si256(tops, mantissa),
                        _mm256_andnot_si256(mantissa, _mm256_slli_epi16(symbols, 7)));
    const __m256i upper = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(symbols, 1), mantissa),
                                          _mm256_andnot_si256(mantissa, tops));
    const __m256i a = _mm256_unpacklo_epi8(lower, upper);  // elements 0-7 and 16-23
    const __m256i b = _mm256_unpackhi_epi8(lower, upper);  // elements 8-15 and 24-31
    const __m256i high[2] = {_mm256_permute2x128_si256(a, b, 0x20),
                             _mm256_permute2x128_si256(a, b, 0x31)};
    for (size_t i = 0; i < 2; ++i) {
      const size_t quarter = 2 * half + i;
      if constexpr (kLayout == FloatLayout::kBf16) {
        store(raw + 32 * quarter, high[i]);
      } else {
        const __m256i rest = load(low + 32 * quarter);
        const __m256i c = _mm256_unpacklo_epi16(rest, high[i]);
        const __m256i d = _mm256_unpackhi_epi16(rest, high[i]);
        store(raw + 64 * quarter, _mm256_permute2x128_si256(c, d, 0x20));
        store(raw + 64 * quarter + 32, _mm256_permute2x128_si256(c, d, 0x31));
      }
    }
  }
}

// The highest bits of 64 bytes.
uint64_t top_plane(__m256i a, __m256i b) {
  return static_cast<uint32_t>(_mm256_movemask_epi8(a)) |
         (uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(b))} << 32);
}
// Bit `bit` of 64 bytes.
uint64_t plane(__m256i a, __m256i b, int bit) {
  return top_plane(_mm256_slli_epi16(a, 7 - bit), _mm256_slli_epi16(b, 7 - bit));
}

// 32 bytes, all ones where the bit of the word is set.
__m256i spread(const std::byte* word) {
  const __m256i which = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2,
                                         2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
  const __m256i bits = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
  const __m256i words = _mm256_shuffle_epi8(_mm256_set1_epi32(load_le<int32_t>(word)), which);
  return _mm256_cmpeq_epi8(_mm256_and_si256(words, bits), bits);
}

// Gives the number of escapes.
template <unsigned kBits>
size_t encode64(uint8_t low, const __m256i symbols[2], std::byte* planes, uint8_t* escapes) {
  const __m256i lows = bytes_of(low);
  const __m256i widths = bytes_of((1u << kBits) - 1);
  __m256i code[2];
  __m256i escape[2];
  for (size_t half = 0; half < 2; ++half) {
    const __m256i v = symbols[half];
    code[half] = _mm256_min_epu8(_mm256_sub_epi8(v, lows), widths);
    escape[half] = _mm256_sub_epi8(v, _mm256_and_si256(at_least(v, lows), widths));
  }
  for (unsigned j = 0; j < kBits; ++j) {
    store_le(planes + j * sizeof(uint64_t), plane(code[0], code[1], static_cast<int>(j)));
  }
  const uint64_t outside =
      top_plane(_mm256_cmpeq_epi8(code[0], widths), _mm256_cmpeq_epi8(code[1], widths));
  gather64(escape, outside, escapes);
  return static_cast<size_t>(__builtin_popcountll(outside));
}

// The inverse. `used` grows by the escapes that the codes call for.
template <unsigned kBits>
void decode64(uint8_t low, const std::byte* planes, const uint8_t* escapes, size_t& used,
              __m256i symbols[2]) {
  const __m256i lows = bytes_of(low);
  const __m256i widths = bytes_of((1u << kBits) - 1);
  uint64_t outside = ~uint64_t{0};
  for (unsigned j = 0; j < kBits; ++j) outside &= load_le<uint64_t>(planes + j * sizeof outside);
  __m256i escape[2];
  // Slack allows this as long as `used` is within bounds.
  spread64(escapes + used, outside, escape);
  used += static_cast<size_t>(__builtin_popcountll(outside));
  for (size_t half = 0; half < 2; ++half) {
    __m256i code = _mm256_setzero_si256();
    for (unsigned j = 0; j < kBits; ++j) {
      const __m256i bit = spread(planes + j * sizeof(uint64_t) + half * sizeof(uint32_t));
      code = _mm256_or_si256(code, _mm256_and_si256(bit, bytes_of(uint8_t(1u << j))));
    }
    const __m256i e = escape[half];
    const __m256i symbol = _mm256_add_epi8(e, _mm256_and_si256(at_least(e, lows), widths));
    symbols[half] =
        _mm256_blendv_epi8(_mm256_add_epi8(code, lows), symbol, _mm256_cmpeq_epi8(code, widths));
  }
}

// The planes of the bits that `mask` names.
void pack64(uint8_t mask, __m256i a, __m256i b, std::byte* planes) {
  planes += std::popcount(mask) * sizeof(uint64_t);
  for (unsigned rest = mask; rest != 0; rest = rest << 1 & 0xff) {
    if ((rest & 0x80) != 0) {
      planes -= sizeof(uint64_t);
      store_le(planes, top_plane(a, b));
    }
    a = _mm256_add_epi8(a, a);
    b = _mm256_add_epi8(b, b);
  }
}
void unpack64(uint8_t mask, __m256i constants, const std::byte* planes, __m256i tops[2]) {
  tops[0] = constants;
  tops[1] = constants;
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const __m256i bit = bytes_of(static_cast<uint8_t>(rest & -rest));
    for (size_t half = 0; half < 2; ++half) {
      const __m256i set = spread(planes + half * sizeof(uint32_t));
      tops[half] = _mm256_or_si256(tops[half], _mm256_and_si256(set, bit));
    }
    planes += sizeof(uint64_t);
  }
}

template <unsigned kBits>
size_t encode_level_groups(uint8_t low, const uint8_t* symbols, size_t groups, std::byte* planes,
                           uint8_t* escapes) {
  size_t escaped = 0;
  for (size_t i = 0; i < groups; ++i) {
    const __m256i both[2] = {load(symbols + i * kGroup), load(symbols + i * kGroup + 32)};
    escaped += encode64<kBits>(low, both, planes + i * kBits * sizeof(uint64_t), escapes + escaped);
  }
  return escaped;
}

template <unsigned kBits>
size_t decode_level_groups(uint8_t low, const std::byte* planes, size_t groups,
                           const uint8_t* escapes, size_t escape_count, uint8_t* symbols) {
  size_t used = 0;
  for (size_t i = 0; i < groups && used <= escape_count; ++i) {
    __m256i both[2];
    decode64<kBits>(low, planes + i * kBits * sizeof(uint64_t), escapes, used, both);
    store(symbols + i * kGroup, both[0]);
    store(symbols + i * kGroup + 32, both[1]);
  }
  return used;
}

// Elements are read this far ahead: what the processor's own prefetching does is not enough.
constexpr size_t kPrefetchBytes = 2048;

// Whole groups in one pass, nothing between the steps but registers. kBits is that of the level.
template <FloatLayout kLayout, unsigned kBits>
size_t encode_groups(const Coding& coding, const std::byte* raw, size_t groups, ElementAreas to,
                     uint8_t* escapes, TopBits* seen) {
  const uint8_t varying = coding.varying;
  const uint8_t low = coding.level.low;
  const size_t top_bytes = std::popcount(varying) * sizeof(uint64_t);
  TopSeen vectors;
  size_t escaped = 0;
  for (size_t i = 0; i < groups; ++i) {
    const std::byte* const from = raw + i * kGroup * element_bytes(kLayout);
    for (size_t j = 0; j < element_bytes(kLayout); ++j) {
      _mm_prefetch(from + kPrefetchBytes + 64 * j, _MM_HINT_T0);
    }
    const Parts64 parts = split64<kLayout>(from, to.low + i * kGroup * low_bytes(kLayout));
    vectors.see(parts.tops[0]);
    vectors.see(parts.tops[1]);
    if (varying == 0xff) {
      store(to.top + i * kGroup, parts.tops[0]);
      store(to.top + i * kGroup + 32, parts.tops[1]);
    } else {
      pack64(varying, parts.tops[0], parts.tops[1], to.top + i * top_bytes);
    }
    if constexpr (kBits == 0) {
      store(to.symbols + i * kGroup, parts.symbols[0]);
      store(to.symbols + i * kGroup + 32, parts.symbols[1]);
    } else {
      escaped += encode64<kBits>(low, parts.symbols, to.symbols + i * kBits * sizeof(uint64_t),
                                 escapes + escaped);
    }
  }
  if (groups != 0) vectors.add_to(seen);
  return escaped;
}

template <FloatLayout kLayout, unsigned kBits>
size_t decode_groups(const Coding& coding, ConstElementAreas from, size_t groups,
                     const uint8_t* escapes, size_t escape_count, std::byte* raw) {
  const uint8_t varying = coding.varying;
  const uint8_t low = coding.level.low;
  const size_t top_bytes = std::popcount(varying) * sizeof(uint64_t);
  const __m256i constants = bytes_of(static_cast<uint8_t>(coding.constant & ~varying));
  size_t used = 0;
  for (size_t i = 0; i < groups; ++i) {
    Parts64 parts;
    if (varying == 0xff) {
      parts.tops[0] = load(from.top + i * kGroup);
      parts.tops[1] = load(from.top + i * kGroup + 32);
    } else {
      unpack64(varying, constants, from.top + i * top_bytes, parts.tops);
    }
    if constexpr (kBits == 0) {
      parts.symbols[0] = load(from.symbols + i * kGroup);
      parts.symbols[1] = load(from.symbols + i * kGroup + 32);
    } else {
      decode64<kBits>(low, from.symbols + i * kBits * sizeof(uint64_t), escapes, used,
                      parts.symbols);
      if (used > escape_count) return used;
    }
    join64<kLayout>(parts, from.low + i * kGroup * low_bytes(kLayout),
                    raw + i * kGroup * element_bytes(kLayout));
  }
  return used;
}

// The functions above for each number of bits.
using Bits = std::make_index_sequence<kLevelBitsMax + 1>;
template <FloatLayout kLayout, size_t... kBits>
constexpr auto encoders(std::index_sequence<kBits...>) {
  return std::array{&encode_groups<kLayout, kBits>...};
}
template <FloatLayout kLayout, size_t... kBits>
constexpr auto decoders(std::index_sequence<kBits...>) {
  return std::array{&decode_groups<kLayout, kBits>...};
}
template <size_t... kBits>
constexpr auto level_encoders(std::index_sequence<kBits...>) {
  return std::array{&encode_level_groups<kBits + 1>...};
}
template <size_t... kBits>
constexpr auto level_decoders(std::index_sequence<kBits...>) {
  return std::array{&decode_level_groups<kBits + 1>...};
}
constexpr auto kLevelEncoders = level_encoders(std::make_index_sequence<kLevelBitsMax>());
constexpr auto kLevelDecoders = level_decoders(std::make_index_sequence<kLevelBitsMax>());

size_t encode_level(Level level, const uint8_t* symbols, size_t n, std::byte* planes,
                    uint8_t* escapes) {
  const size_t groups = n / kGroup;
  const size_t escaped =
      kLevelEncoders[level.bits - 1u](level.low, symbols, groups, planes, escapes);
  if (groups * kGroup == n) return escaped;
  return escaped +
         encode_group(level, (1u << level.bits) - 1, symbols + groups * kGroup, n - groups * kGroup,
                      planes + plane_bytes(groups * kGroup, level.bits), escapes + escaped);
}

size_t decode_level(Level level, const std::byte* planes, size_t n, const uint8_t* escapes,
                    size_t escape_count, uint8_t* symbols) {
  const size_t groups = n / kGroup;
  const size_t used =
      kLevelDecoders[level.bits - 1u](level.low, planes, groups, escapes, escape_count, symbols);
  if (groups * kGroup == n || used > escape_count) return used;
  return decode_group(level, (1u << level.bits) - 1,
                      planes + plane_bytes(groups * kGroup, level.bits), n - groups * kGroup,
                      escapes, used, escape_count, symbols + groups * kGroup);
}

// Split and join are the passes above with symbols as bytes and every bit of top.
void split(FloatLayout layout, const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top,
           std::byte* low, TopBits* seen) {
  const ElementAreas to{reinterpret_cast<std::byte*>(top), low,
                        reinterpret_cast<std::byte*>(symbols)};
  size_t i = 0;
  if (layout == FloatLayout::kBf16) {
    encode_groups<FloatLayout::kBf16, 0>({}, raw, n / kGroup, to, nullptr, seen);
    i = n / kGroup * kGroup;
  } else if (layout == FloatLayout::kFp32) {
    encode_groups<FloatLayout::kFp32, 0>({}, raw, n / kGroup, to, nullptr, seen);
    i = n / kGroup * kGroup;
  }
  split_elements(layout, raw + i * element_bytes(layout), n - i, symbols + i, top + i,
                 low + i * low_bytes(layout), seen);
}

void join(FloatLayout layout, const uint8_t* symbols, const uint8_t* top, const std::byte* low,
          size_t n, std::byte* raw) {
  const ConstElementAreas from{reinterpret_cast<const std::byte*>(top), low,
                               reinterpret_cast<const std::byte*>(symbols)};
  size_t i = 0;
  if (layout == FloatLayout::kBf16) {
    decode_groups<FloatLayout::kBf16, 0>({}, from, n / kGroup, nullptr, 0, raw);
    i = n / kGroup * kGroup;
  } else if (layout == FloatLayout::kFp32) {
    decode_groups<FloatLayout::kFp32, 0>({}, from, n / kGroup, nullptr, 0, raw);
    i = n / kGroup * kGroup;
  }
  join_elements(layout, symbols + i, top + i, low + i * low_bytes(layout), n - i,
                raw + i * element_bytes(layout));
}

void pack_bits(uint8_t mask, const uint8_t* top, size_t n, std::byte* planes) {
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    pack64(mask, load(top + i), load(top + i + 32), planes);
    planes += std::popcount(mask) * sizeof(uint64_t);
  }
  if (i < n) pack_group(mask, top + i, n - i, planes);
}

void unpack_bits(uint8_t mask, uint8_t constant, const std::byte* planes, size_t n, uint8_t* top) {
  const __m256i constants = bytes_of(static_cast<uint8_t>(constant & ~mask));
  size_t i = 0;
  for (; i + kGroup <= n; i += kGroup) {
    __m256i tops[2];
    unpack64(mask, constants, planes, tops);
    store(top + i, tops[0]);
    store(top + i + 32, tops[1]);
    planes += std::popcount(mask) * sizeof(uint64_t);
  }
  if (i < n) unpack_group(mask, constant, planes, n - i, top + i);
}

size_t encode_elements(const Coding& coding, const std::byte* raw, size_t n, ElementAreas to,
                       uint8_t* escapes, TopBits* seen) {
  static constexpr auto kBf16 = encoders<FloatLayout::kBf16>(Bits());
  static constexpr auto kFp32 = encoders<FloatLayout::kFp32>(Bits());
  if (coding.layout != FloatLayout::kBf16 && coding.layout != FloatLayout::kFp32) {
    return encode_in_passes(avx2_plane_kernels(), coding, raw, n, to, escapes, seen);
  }
  const auto& encode = coding.layout == FloatLayout::kBf16 ? kBf16 : kFp32;
  const size_t escaped = encode[coding.level.bits](coding, raw, n / kGroup, to, escapes, seen);
  const size_t done = n / kGroup * kGroup;
  if (done == n) return escaped;
  return escaped + encode_in_passes(avx2_plane_kernels(), coding,
                                    raw + done * element_bytes(coding.layout), n - done,
                                    to.behind(coding, done), escapes + escaped, seen);
}

size_t decode_elements(const Coding& coding, ConstElementAreas from, size_t n,
                       const uint8_t* escapes, size_t escape_count, std::byte* raw) {
  static constexpr auto kBf16 = decoders<FloatLayout::kBf16>(Bits());
  static constexpr auto kFp32 = decoders<FloatLayout::kFp32>(Bits());
  if (coding.layout != FloatLayout::kBf16 && coding.layout != FloatLayout::kFp32) {
    return decode_in_passes(avx2_plane_kernels(), coding, from, n, escapes, escape_count, raw);
  }
  const auto& decode = coding.layout == FloatLayout::kBf16 ? kBf16 : kFp32;
  const size_t used =
      decode[coding.level.bits](coding, from, n / kGroup, escapes, escape_count, raw);
  const size_t done = n / kGroup * kGroup;
  if (done == n || used > escape_count) return used;
  return used + decode_in_passes(avx2_plane_kernels(), coding, from.behind(coding, done), n - done,
                                 escapes + used, escape_count - used,
                                 raw + done * element_bytes(coding.layout));
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
      .write_codes = &write_codes_in_turn,
  };
  return kKernels;
}

}  // namespace caisson

#include "io/base/hash_blocks.h"

#include <cstring>
#include <vector>

#include "io/base/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace caisson {

namespace {

constexpr uint64_t kPrime32 = 0x9E3779B1;
constexpr size_t kStripes = kHashBlockBytes / kHashStripeBytes;
constexpr size_t kScrambleAt = kHashSecretBytes - kHashStripeBytes;  // in the secret

void portable_blocks(HashLanes& lanes, const std::byte* from, std::byte* to, CopyStores /*stores*/,
                     size_t blocks, const std::byte* secret) {
  for (; blocks > 0; --blocks, from += kHashBlockBytes) {
    for (size_t stripe = 0; stripe < kStripes; ++stripe) {
      hash_stripe(lanes, from + stripe * kHashStripeBytes, secret + stripe * 8);
    }
    for (size_t i = 0; i < 8; ++i) {
      uint64_t& lane = lanes.lanes[i];
      lane = (lane ^ (lane >> 47) ^ load_le<uint64_t>(secret + kScrambleAt + i * 8)) * kPrime32;
    }
    if (to != nullptr) {
      std::memcpy(to, from, kHashBlockBytes);
      to += kHashBlockBytes;
    }
  }
}

#if defined(__x86_64__)

enum class Copy : uint8_t { kNone, kCached, kPastCaches };

Copy copy_of(const std::byte* to, CopyStores stores) {
  if (to == nullptr) return Copy::kNone;
  const bool aligned = reinterpret_cast<uintptr_t>(to) % kPastCachesAlignment == 0;
  return stores == CopyStores::kPastCaches && aligned ? Copy::kPastCaches : Copy::kCached;
}

__attribute__((target("avx2"), always_inline)) inline __m256i load(const void* at) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(at));
}

// What a copying loop asks for early: one block ahead, and never past the end, since a tile's next
// run lies elsewhere, and what is fetched in vain is missing in bandwidth. A loop that only reads
// is as well served by the processor itself (26 GB/s against 31 without).
inline const std::byte* next_block(const std::byte* from, size_t blocks) {
  return blocks > 1 ? from + kHashBlockBytes : from;
}
inline void prefetch(const std::byte* at) {
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
}

template <Copy kCopy>
__attribute__((target("avx2"))) void avx2_loop(HashLanes& lanes, const std::byte* from,
                                               std::byte* to, size_t blocks,
                                               const std::byte* secret) {
  __m256i acc[2] = {load(lanes.lanes.data()), load(lanes.lanes.data() + 4)};
  const __m256i prime = _mm256_set1_epi64x(static_cast<int64_t>(kPrime32));
  for (; blocks > 0; --blocks) {
    const std::byte* ahead = next_block(from, blocks);
    for (size_t stripe = 0; stripe < kStripes; ++stripe, from += kHashStripeBytes) {
      if constexpr (kCopy != Copy::kNone) prefetch(ahead + stripe * kHashStripeBytes);
      for (size_t half = 0; half < 2; ++half) {
        const __m256i data = load(from + half * 32);
        const __m256i key = _mm256_xor_si256(data, load(secret + stripe * 8 + half * 32));
        const __m256i product = _mm256_mul_epu32(key, _mm256_srli_epi64(key, 32));
        const __m256i swapped = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
        acc[half] = _mm256_add_epi64(acc[half], _mm256_add_epi64(product, swapped));
        if constexpr (kCopy != Copy::kNone) {
          auto* const out = reinterpret_cast<__m256i*>(to + half * 32);
          kCopy == Copy::kPastCaches ? _mm256_stream_si256(out, data)
                                     : _mm256_storeu_si256(out, data);
        }
      }
      if constexpr (kCopy != Copy::kNone) to += kHashStripeBytes;
    }
    for (size_t half = 0; half < 2; ++half) {
      __m256i lane = _mm256_xor_si256(acc[half], _mm256_srli_epi64(acc[half], 47));
      lane = _mm256_xor_si256(lane, load(secret + kScrambleAt + half * 32));
      const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(lane, 32), prime);
      acc[half] = _mm256_add_epi64(_mm256_mul_epu32(lane, prime), _mm256_slli_epi64(high, 32));
    }
  }
  std::memcpy(lanes.lanes.data(), acc, sizeof acc);
}

// A store past the caches fills a whole line here, where AVX2 takes two. (Forms with a mask of all
// lanes, which compile to the same: g++ 12 warns of its own headers at the others.)
template <Copy kCopy>
__attribute__((target("avx512f"))) void avx512_loop(HashLanes& lanes, const std::byte* from,
                                                    std::byte* to, size_t blocks,
                                                    const std::byte* secret) {
  constexpr __mmask8 kAll = 0xff;
  __m512i acc = _mm512_loadu_si512(lanes.lanes.data());
  const __m512i prime = _mm512_set1_epi64(static_cast<int64_t>(kPrime32));
  for (; blocks > 0; --blocks) {
    const std::byte* ahead = next_block(from, blocks);
    for (size_t stripe = 0; stripe < kStripes; ++stripe, from += kHashStripeBytes) {
      if constexpr (kCopy != Copy::kNone) prefetch(ahead + stripe * kHashStripeBytes);
      const __m512i data = _mm512_loadu_si512(from);
      const __m512i key = _mm512_xor_si512(data, _mm512_loadu_si512(secret + stripe * 8));
      const __m512i product =
          _mm512_maskz_mul_epu32(kAll, key, _mm512_maskz_srli_epi64(kAll, key, 32));
      const __m512i swapped = _mm512_maskz_shuffle_epi32(0xffff, data, _MM_PERM_BADC);
      acc = _mm512_add_epi64(acc, _mm512_add_epi64(product, swapped));
      if constexpr (kCopy != Copy::kNone) {
        kCopy == Copy::kPastCaches ? _mm512_stream_si512(reinterpret_cast<__m512i*>(to), data)
                                   : _mm512_storeu_si512(to, data);
        to += kHashStripeBytes;
      }
    }
    __m512i lane = _mm512_xor_si512(acc, _mm512_maskz_srli_epi64(kAll, acc, 47));
    lane = _mm512_xor_si512(lane, _mm512_loadu_si512(secret + kScrambleAt));
    const __m512i high =
        _mm512_maskz_mul_epu32(kAll, _mm512_maskz_srli_epi64(kAll, lane, 32), prime);
    acc = _mm512_add_epi64(_mm512_maskz_mul_epu32(kAll, lane, prime),
                           _mm512_maskz_slli_epi64(kAll, high, 32));
  }
  _mm512_storeu_si512(lanes.lanes.data(), acc);
}

void avx512_blocks(HashLanes& lanes, const std::byte* from, std::byte* to, CopyStores stores,
                   size_t blocks, const std::byte* secret) {
  switch (copy_of(to, stores)) {
    case Copy::kNone:
      return avx512_loop<Copy::kNone>(lanes, from, to, blocks, secret);
    case Copy::kCached:
      return avx512_loop<Copy::kCached>(lanes, from, to, blocks, secret);
    case Copy::kPastCaches:
      return avx512_loop<Copy::kPastCaches>(lanes, from, to, blocks, secret);
  }
}

void avx2_blocks(HashLanes& lanes, const std::byte* from, std::byte* to, CopyStores stores,
                 size_t blocks, const std::byte* secret) {
  switch (copy_of(to, stores)) {
    case Copy::kNone:
      return avx2_loop<Copy::kNone>(lanes, from, to, blocks, secret);
    case Copy::kCached:
      return avx2_loop<Copy::kCached>(lanes, from, to, blocks, secret);
    case Copy::kPastCaches:
      return avx2_loop<Copy::kPastCaches>(lanes, from, to, blocks, secret);
  }
}
#endif

}  // namespace

void hash_stripe(HashLanes& lanes, const std::byte* from, const std::byte* secret) {
  for (size_t i = 0; i < 8; ++i) {
    const auto data = load_le<uint64_t>(from + i * 8);
    const uint64_t key = data ^ load_le<uint64_t>(secret + i * 8);
    lanes.lanes[i ^ 1] += data;
    lanes.lanes[i] += (key & 0xffffffff) * (key >> 32);
  }
}

std::span<const HashBlocksFn> all_hash_blocks() {
  static const std::vector<HashBlocksFn> known = [] {
    std::vector<HashBlocksFn> all{portable_blocks};
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2")) all.push_back(avx2_blocks);
    if (__builtin_cpu_supports("avx512f")) all.push_back(avx512_blocks);
#endif
    return all;
  }();
  return known;
}

HashBlocksFn hash_blocks() {
  static const HashBlocksFn best = all_hash_blocks().back();
  return best;
}

void finish_copies() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

}  // namespace caisson

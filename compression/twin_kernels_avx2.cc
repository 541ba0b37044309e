// The twin kernels with AVX2: 16 elements a step. Compiled for that instruction set alone; called
// only where the machine has it.
#include <immintrin.h>

#include "compression/twin_kernels_impl.h"

namespace caisson {
namespace {

constexpr size_t kStep = 16;

__m256i load(const std::byte* from) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
void store(std::byte* to, __m256i value) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), value);
}
// 32-bit lanes of two vectors that are below 2^16, as 16-bit lanes in order.
__m256i narrow(__m256i a, __m256i b) {
  return _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xd8);
}

// base, less one where low > threshold.
__m256i predict(__m256i threshold, __m256i base, __m256i low) {
  const __m256i ones = _mm256_set1_epi16(-1);
  const __m256i not_above =
      _mm256_cmpeq_epi16(_mm256_subs_epu16(low, threshold), _mm256_setzero_si256());
  return _mm256_add_epi16(base, _mm256_xor_si256(not_above, ones));
}

size_t split(uint16_t threshold, const std::byte* raw, const std::byte* base, size_t n,
             std::byte* low, uint16_t* wrong) {
  const __m256i thresholds = _mm256_set1_epi16(static_cast<int16_t>(threshold));
  const __m256i low16 = _mm256_set1_epi32(0xffff);
  size_t count = 0;
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const __m256i a = load(raw + 4 * i);
    const __m256i b = load(raw + 4 * i + 32);
    const __m256i lows = narrow(_mm256_and_si256(a, low16), _mm256_and_si256(b, low16));
    const __m256i highs = narrow(_mm256_srli_epi32(a, 16), _mm256_srli_epi32(b, 16));
    store(low + 2 * i, lows);
    const __m256i right = _mm256_cmpeq_epi16(highs, predict(thresholds, load(base + 2 * i), lows));
    // Two bits an element.
    auto left = ~static_cast<uint32_t>(_mm256_movemask_epi8(right)) & 0x55555555u;
    for (; left != 0; left &= left - 1) {
      wrong[count++] = static_cast<uint16_t>(i + static_cast<size_t>(__builtin_ctz(left)) / 2);
    }
  }
  return count + split_twins(threshold, raw, base, i, n, low, wrong + count);
}

void join(uint16_t threshold, const std::byte* base, const std::byte* low, size_t n,
          std::byte* raw) {
  const __m256i thresholds = _mm256_set1_epi16(static_cast<int16_t>(threshold));
  size_t i = 0;
  for (; i + kStep <= n; i += kStep) {
    const __m256i lows = load(low + 2 * i);
    const __m256i highs = predict(thresholds, load(base + 2 * i), lows);
    const __m256i a = _mm256_unpacklo_epi16(lows, highs);  // elements 0-3 and 8-11
    const __m256i b = _mm256_unpackhi_epi16(lows, highs);  // elements 4-7 and 12-15
    store(raw + 4 * i, _mm256_permute2x128_si256(a, b, 0x20));
    store(raw + 4 * i + 32, _mm256_permute2x128_si256(a, b, 0x31));
  }
  join_twins(threshold, base, low, i, n, raw);
}

}  // namespace

const TwinKernels& avx2_twin_kernels() {
  static constexpr TwinKernels kKernels = {.name = "avx2", .split = &split, .join = &join};
  return kKernels;
}

}  // namespace caisson

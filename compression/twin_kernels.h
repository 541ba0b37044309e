// The inner loops of codec 4, "twin": an fp32 element as the bf16 element that is its rounding, its
// low half, and now and then its high half. One table of functions per instruction set; every table
// computes the same bytes, and a test holds each against the scalar one. Pure: no allocation, no
// state.
//
// With b the bf16 element and l the low half of the fp32 one, the high half is predicted as b, less
// one where l > threshold: what rounded up came from the number before. The threshold says how the
// rounding was done:
//
//   0x8000  to the nearest, ties to even; a tie that went up is the one case that is not predicted
//   0x7fff  to the nearest, ties up
//   0xffff  toward zero
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace caisson {

inline constexpr uint16_t kToNearestEven = 0x8000;
inline constexpr uint16_t kToNearestUp = 0x7fff;
inline constexpr uint16_t kTowardZero = 0xffff;

// Elements of a call at most: their indices have 16 bits.
inline constexpr size_t kTwinBlock = 4096;

struct TwinKernels {
  const char* name;
  // Writes the low halves of n fp32 elements, and to `wrong`, which has room for n, the indices of
  // those whose high half is not the predicted one. Gives their number.
  size_t (*split)(uint16_t threshold, const std::byte* raw, const std::byte* base, size_t n,
                  std::byte* low, uint16_t* wrong);
  // The inverse, as if all were predicted.
  void (*join)(uint16_t threshold, const std::byte* base, const std::byte* low, size_t n,
               std::byte* raw);
};

const TwinKernels& scalar_twin_kernels();
const TwinKernels& avx2_twin_kernels();  // x86-64 with AVX2; twin_kernels.cc asks for it
const TwinKernels& neon_twin_kernels();  // AArch64
// The fastest table that this machine can run, asked once.
const TwinKernels& twin_kernels();
// Every table that this machine can run, the scalar one first: for tests and measurements.
std::span<const TwinKernels* const> runnable_twin_kernels();

}  // namespace caisson

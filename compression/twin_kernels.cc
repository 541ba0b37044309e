// The scalar twin kernels, and which table of them this machine runs.
#include "compression/twin_kernels.h"

#include "compression/kernel_choice.h"
#include "compression/twin_kernels_impl.h"

namespace caisson {
namespace {

size_t split(uint16_t threshold, const std::byte* raw, const std::byte* base, size_t n,
             std::byte* low, uint16_t* wrong) {
  return split_twins(threshold, raw, base, 0, n, low, wrong);
}

void join(uint16_t threshold, const std::byte* base, const std::byte* low, size_t n,
          std::byte* raw) {
  join_twins(threshold, base, low, 0, n, raw);
}

RunnableKernels<TwinKernels> find_runnable() {
  RunnableKernels<TwinKernels> found;
  found.add(scalar_twin_kernels());
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) found.add(avx2_twin_kernels());
#elif defined(__aarch64__)
  found.add(neon_twin_kernels());
#endif
  return found;
}

}  // namespace

const TwinKernels& scalar_twin_kernels() {
  static constexpr TwinKernels kKernels = {.name = "scalar", .split = &split, .join = &join};
  return kKernels;
}

const TwinKernels& twin_kernels() {
  static const TwinKernels& chosen = choose_kernels(runnable_twin_kernels());
  return chosen;
}

std::span<const TwinKernels* const> runnable_twin_kernels() {
  static const RunnableKernels<TwinKernels> found = find_runnable();
  return found.all();
}

}  // namespace caisson

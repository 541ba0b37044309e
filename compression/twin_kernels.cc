// The scalar twin kernels, and which table of them this machine runs.
#include "compression/twin_kernels.h"

#include <array>

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

struct Runnable {
  std::array<const TwinKernels*, 2> tables{};
  size_t count = 0;
};

Runnable find_runnable() {
  Runnable found{.tables = {&scalar_twin_kernels()}, .count = 1};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) found.tables[found.count++] = &avx2_twin_kernels();
#elif defined(__aarch64__)
  found.tables[found.count++] = &neon_twin_kernels();
#endif
  return found;
}

const Runnable& runnable() {
  static const Runnable found = find_runnable();
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
  return std::span(runnable().tables).first(runnable().count);
}

}  // namespace caisson

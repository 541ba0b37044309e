// Which table of plane kernels this machine runs.
#include "compression/plane_kernels.h"

#include <array>

#include "compression/kernel_choice.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

struct Runnable {
  std::array<const PlaneKernels*, 3> tables{};
  size_t count = 0;
  void add(const PlaneKernels& table) { tables[count++] = &table; }
};

// Slowest first.
Runnable find_runnable() {
  Runnable found;
  found.add(scalar_plane_kernels());
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2")) {
    found.add(avx2_plane_kernels());
  }
  if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
      __builtin_cpu_supports("gfni") && __builtin_cpu_supports("bmi2")) {
    found.add(avx512_plane_kernels());
  }
#elif defined(__aarch64__)
  found.add(neon_plane_kernels());
#endif
  return found;
}

const Runnable& runnable() {
  static const Runnable found = find_runnable();
  return found;
}

}  // namespace

const PlaneKernels& plane_kernels() {
  static const PlaneKernels& chosen = choose_kernels(runnable_plane_kernels());
  return chosen;
}

std::span<const PlaneKernels* const> runnable_plane_kernels() {
  return std::span(runnable().tables).first(runnable().count);
}

}  // namespace caisson

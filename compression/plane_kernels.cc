// Which table of plane kernels this machine runs.
#include "compression/plane_kernels.h"

#include "compression/kernel_choice.h"
#include "compression/plane_kernels_sets.h"

namespace caisson {
namespace {

RunnableKernels<PlaneKernels> find_runnable() {
  RunnableKernels<PlaneKernels> found;
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

}  // namespace

const PlaneKernels& plane_kernels() {
  static const PlaneKernels& chosen = choose_kernels(runnable_plane_kernels());
  return chosen;
}

std::span<const PlaneKernels* const> runnable_plane_kernels() {
  static const RunnableKernels<PlaneKernels> found = find_runnable();
  return found.all();
}

}  // namespace caisson

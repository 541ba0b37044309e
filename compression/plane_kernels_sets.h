// The tables of plane kernels that this build has besides the scalar one. plane_kernels.cc asks the
// machine before it hands one out.
#pragma once

#include "compression/plane_kernels.h"

namespace caisson {

const PlaneKernels& avx2_plane_kernels();    // x86-64 with AVX2 and BMI2
const PlaneKernels& avx512_plane_kernels();  // x86-64 with AVX-512 F, BW, VL, VBMI and VBMI2
const PlaneKernels& neon_plane_kernels();    // AArch64

}  // namespace caisson

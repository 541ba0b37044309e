// The tables of plane kernels that this build has besides the scalar one. plane_kernels.cc asks the
// machine before it hands one out.
#pragma once

#include "compression/plane_kernels.h"

namespace caisson {

const PlaneKernels& avx2_plane_kernels();    // x86-64 with AVX2 and BMI2
const PlaneKernels& avx512_plane_kernels();  // x86-64 with AVX-512 F, BW, VL, VBMI, VBMI2 and GFNI
const PlaneKernels& neon_plane_kernels();    // AArch64

// encode_elements and decode_elements by the other functions of a table, block after block.
size_t encode_in_passes(const PlaneKernels& kernels, const Coding& coding, const std::byte* raw,
                        size_t n, ElementAreas to, uint8_t* escapes, TopBits* seen);
size_t decode_in_passes(const PlaneKernels& kernels, const Coding& coding, ConstElementAreas from,
                        size_t n, const uint8_t* escapes, size_t escape_count, std::byte* raw);

}  // namespace caisson

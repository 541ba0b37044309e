// What a fuzz target provides: the entry point that libFuzzer calls, and seeds. With CAISSON_FUZZ
// it is a libFuzzer binary; without, the same target runs its seeds and deterministic mutations of
// them (seeded_main.cc), so that every compiler runs it as an ordinary test.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "io/base/bytes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace caisson::testing {

std::vector<ByteVector> fuzz_seeds();

}  // namespace caisson::testing

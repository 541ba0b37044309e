// Which of the kernel tables that a machine runs is used: the fastest, or the one that the
// environment variable CAISSON_KERNELS names ("scalar", "avx2", "avx512", "neon"), to measure and
// test the others.
#pragma once

#include <cstdlib>
#include <span>
#include <string_view>

namespace caisson {

// `runnable` has the fastest last. A name that is not among them changes nothing.
template <typename Table>
const Table& choose_kernels(std::span<const Table* const> runnable) {
  const char* const name = std::getenv("CAISSON_KERNELS");
  for (const Table* table : runnable) {
    if (name != nullptr && std::string_view(name) == table->name) return *table;
  }
  return *runnable.back();
}

}  // namespace caisson

// The kernel tables that a machine runs, and which of them is used: the fastest, or the one that
// the environment variable CAISSON_KERNELS names ("scalar", "avx2", "avx512", "neon"), to measure
// and test the others.
#pragma once

#include <array>
#include <cstddef>
#include <cstdlib>
#include <span>
#include <string_view>

namespace caisson {

// Filled with the slowest first.
template <typename Table>
class RunnableKernels {
 public:
  void add(const Table& table) { tables_[count_++] = &table; }
  std::span<const Table* const> all() const { return std::span(tables_).first(count_); }

 private:
  std::array<const Table*, 3> tables_{};  // no machine runs more
  size_t count_ = 0;
};

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

#include "tests/support/alloc_meter.h"

#include <cstdlib>
#include <new>

namespace {
thread_local uint64_t allocated = 0;
}  // namespace

uint64_t caisson::testing::AllocMeter::bytes() { return allocated; }

void* operator new(std::size_t bytes) {
  allocated += bytes;
  void* const memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

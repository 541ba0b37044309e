#include "bench/fresh_memory.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

namespace caisson::bench {

namespace {

constexpr uint64_t kPageBytes = 4096;
// What else is new to a restore: its arena takes pages, too.
constexpr uint64_t kOthersBytes = 256u << 20;

Result<std::byte*> map_private(uint64_t bytes) {
  void* const mapped =
      ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return errno_status(errno, "bench: memory to restore to");
  return static_cast<std::byte*>(mapped);
}

}  // namespace

Result<FreshMemory> FreshMemory::map(uint64_t bytes) {
  // Twice: the second mapping has most pages of the first, and some that were given back.
  for (int i = 0; i < 2; ++i) {
    const uint64_t woken = bytes + kOthersBytes;
    CAISSON_ASSIGN_OR_RETURN(std::byte* const data, map_private(woken));
    const FreshMemory before(data, woken);
    ::madvise(data, woken, MADV_HUGEPAGE);  // advice: faster, where there are any
    for (uint64_t at = 0; at < woken; at += kPageBytes) {
      *static_cast<volatile std::byte*>(data + at) = std::byte{1};
    }
  }
  CAISSON_ASSIGN_OR_RETURN(std::byte* const data, map_private(bytes));
  return FreshMemory(data, bytes);
}

FreshMemory::~FreshMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

FreshMemory::FreshMemory(FreshMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

}  // namespace caisson::bench

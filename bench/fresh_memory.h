// Memory fresh from the kernel, as a job that has just started restores into. Used by the cases
// that measure that.
#pragma once

#include <cstddef>
#include <cstdint>

#include "caisson/result.h"

namespace caisson::bench {

class FreshMemory {
 public:
  // Nothing of it is touched, but as much was a moment before, and 256 MiB more for what else a
  // restore takes, and is free again: the kernel of a
  // virtual machine gives memory that was free for some seconds back to its host, and what finding
  // that again costs (0.5 to 1.8 s/GB were seen) is the host's, whoever restores.
  static Result<FreshMemory> map(uint64_t bytes);
  ~FreshMemory();
  FreshMemory(FreshMemory&& other) noexcept;
  FreshMemory& operator=(FreshMemory&&) = delete;
  FreshMemory(const FreshMemory&) = delete;
  FreshMemory& operator=(const FreshMemory&) = delete;

  std::byte* data() const { return data_; }

 private:
  FreshMemory(std::byte* data, uint64_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_;
  uint64_t bytes_;
};

}  // namespace caisson::bench

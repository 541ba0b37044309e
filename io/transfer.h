// One read or write of a whole range, and the one place that knows what the kernel's answer means:
// short transfers go on, EINTR and EAGAIN are tried again, 0 is the end of the file. PosixFile and
// both queues finish their transfers through it. Thread-compatible.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "caisson/status.h"

namespace caisson {

struct Transfer {
  bool write = false;
  int fd = -1;
  std::byte* data = nullptr;  // written to by reads only
  uint64_t offset = 0;
  uint64_t bytes = 0;      // that the buffer has room for
  uint64_t enough = 0;     // that satisfy the caller; less than `bytes` at the end of a file
  uint32_t alignment = 1;  // where a short direct transfer may go on
  const std::string* path = nullptr;
  uint64_t done = 0;
  uint32_t stalls = 0;  // EINTR and EAGAIN in a row

  // What to ask the kernel for next.
  std::byte* next_data() const { return data + done; }
  uint64_t next_offset() const { return offset + done; }
  uint32_t next_bytes() const;

  // Takes what the kernel said: a count, or a negated errno. Nothing: ask for the next piece.
  // Otherwise the transfer is over, with this status.
  std::optional<Status> advance(int64_t result);
};

// Runs a transfer to its end with pread and pwrite.
Status run_transfer(Transfer& transfer);

}  // namespace caisson

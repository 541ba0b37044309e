#include "io/transfer.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "io/base/check.h"

namespace caisson {

namespace {

// Linux cuts a single call just below 2 GiB, at no aligned place: stay below it, aligned.
constexpr uint64_t kCallBytesMax = 1u << 30;
constexpr uint32_t kStallsMax = 100'000;

std::string where(const Transfer& transfer) {
  return std::string(transfer.write ? "writing " : "reading ") +
         std::to_string(transfer.next_bytes()) + " bytes at offset " +
         std::to_string(transfer.next_offset()) + " of " + *transfer.path;
}

Status ended(const Transfer& transfer) {
  if (transfer.write) return io_error(where(transfer) + ": the device took nothing");
  return corruption(where(transfer) +
                    ": the file ends before; it is shorter than what refers to "
                    "it: run `caisson verify`");
}

}  // namespace

uint32_t Transfer::next_bytes() const {
  return static_cast<uint32_t>(std::min(bytes - done, kCallBytesMax));
}

std::optional<Status> Transfer::advance(int64_t result) {
  if (result == -EINTR || result == -EAGAIN) {
    if (++stalls <= kStallsMax) return std::nullopt;
    return errno_status(static_cast<int>(-result), where(*this));
  }
  if (result < 0) return errno_status(static_cast<int>(-result), where(*this));
  if (result == 0) return ended(*this);
  stalls = 0;
  CAISSON_CHECK(static_cast<uint64_t>(result) <= bytes - done);
  const uint64_t reached = done + static_cast<uint64_t>(result);
  if (reached >= enough) {
    done = reached;
    return ok_status();
  }
  // Direct I/O goes on at a multiple only. No whole block since the last time: the file ends here.
  const uint64_t aligned = reached / alignment * alignment;
  if (aligned == done) return ended(*this);
  done = aligned;
  return std::nullopt;
}

Status run_transfer(Transfer& transfer) {
  for (;;) {
    const auto offset = static_cast<off_t>(transfer.next_offset());
    const ssize_t count =
        transfer.write ? ::pwrite(transfer.fd, transfer.next_data(), transfer.next_bytes(), offset)
                       : ::pread(transfer.fd, transfer.next_data(), transfer.next_bytes(), offset);
    if (auto over = transfer.advance(count < 0 ? -errno : count)) return *over;
  }
}

}  // namespace caisson

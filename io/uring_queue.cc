// The only user of liburing. One ring a queue, every request submitted as it comes: batching,
// SQPOLL and IOPOLL measured no better. A request owns a slot from submit to its completion; short
// transfers keep theirs and are submitted again by wait(), the one completion handler.
#include "io/uring_queue.h"

#include <liburing.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>
#include <vector>

#include "io/base/check.h"
#include "io/posix_file.h"
#include "io/transfer.h"

namespace caisson {

namespace {

constexpr uint64_t kRegionBytes = 1u << 30;  // the kernel registers no larger one
constexpr uint32_t kProbeEntries = 64;
constexpr uint32_t kStallsMax = 100'000;

// A ring that is enabled by its first user, so that it may be made by another thread. Kernels
// before 6.0 do not know SINGLE_ISSUER.
int init_ring(uint32_t entries, io_uring* ring) {
  const int rc =
      ::io_uring_queue_init(entries, ring, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_R_DISABLED);
  if (rc != -EINVAL) return rc;
  return ::io_uring_queue_init(entries, ring, IORING_SETUP_R_DISABLED);
}

class UringQueue final : public IoQueue {
 public:
  explicit UringQueue(uint32_t depth) : slots_(depth) {
    for (uint32_t i = depth; i > 0; --i) free_.push_back(i - 1);
  }

  Status start(MutableBytes registered) {
    const int rc = init_ring(depth(), &ring_);
    if (rc < 0) return errno_status(-rc, "setting up io_uring");
    open_ = true;
    register_memory(registered);
    return ok_status();
  }

  ~UringQueue() override {
    if (!open_) return;
    if (forked()) {
      ::close(ring_.ring_fd);  // the parent's ring lives on in the parent
      return;
    }
    while (in_flight() > 0) {
      io_uring_cqe* cqe = nullptr;
      const int rc = ::io_uring_wait_cqe(&ring_, &cqe);
      if (rc == -EINTR || rc == -EAGAIN) continue;
      // Memory that the kernel still writes to must not be freed under it.
      CAISSON_CHECK(rc == 0);
      free_.push_back(static_cast<uint32_t>(cqe->user_data));
      ::io_uring_cqe_seen(&ring_, cqe);
    }
    ::io_uring_queue_exit(&ring_);
  }
  UringQueue(const UringQueue&) = delete;
  UringQueue& operator=(const UringQueue&) = delete;

  Status submit_write(File& file, uint64_t offset, Bytes from, uint64_t tag) override {
    return submit(file, true, offset, from, tag);
  }
  Status submit_read(File& file, uint64_t offset, MutableBytes into, uint64_t tag) override {
    return submit(file, false, offset, into, tag);
  }
  Status submit_sync(File& file, uint64_t tag) override {
    CAISSON_RETURN_IF_ERROR(check_caller());
    CAISSON_CHECK(!free_.empty());
    CAISSON_ASSIGN_OR_RETURN(const int fd, queued_sync(file));
    Transfer of_file;
    of_file.fd = fd;
    of_file.path = &file.path();
    return occupy({.transfer = of_file, .is_sync = true, .tag = tag});
  }

  Result<IoCompletion> wait() override {
    CAISSON_RETURN_IF_ERROR(check_caller());
    CAISSON_CHECK(in_flight() > 0);
    for (uint32_t stalls = 0;;) {
      io_uring_cqe* cqe = nullptr;
      const int rc = ::io_uring_wait_cqe(&ring_, &cqe);
      if ((rc == -EINTR || rc == -EAGAIN) && ++stalls <= kStallsMax) continue;
      if (rc < 0) return errno_status(-rc, "waiting for io_uring");
      const auto index = static_cast<uint32_t>(cqe->user_data);
      const int64_t result = cqe->res;
      ::io_uring_cqe_seen(&ring_, cqe);
      Slot& slot = slots_[index];
      std::optional<Status> over = slot.is_sync
                                       ? sync_status(static_cast<int>(-result), *slot.transfer.path)
                                       : slot.transfer.advance(result);
      if (!over) {
        Status again = push(index);
        if (again.ok()) continue;
        over = std::move(again);
      }
      free_.push_back(index);
      return IoCompletion{slot.tag, std::move(*over)};
    }
  }
  bool ready() const override { return ::io_uring_cq_ready(&ring_) > 0; }
  uint32_t in_flight() const override { return depth() - static_cast<uint32_t>(free_.size()); }
  uint32_t depth() const override { return static_cast<uint32_t>(slots_.size()); }

 private:
  struct Slot {
    Transfer transfer;     // of a sync: file and path alone
    bool is_sync = false;  // one that failed is not tried again, as PosixFile::sync says
    uint64_t tag = 0;
  };

  // Regions of 1 GiB. RLIMIT_MEMLOCK often refuses; unregistered transfers cost a little more CPU.
  void register_memory(MutableBytes memory) {
    if (memory.empty()) return;
    std::vector<iovec> regions;
    for (uint64_t at = 0; at < memory.size(); at += kRegionBytes) {
      regions.push_back({memory.data() + at, std::min(memory.size() - at, kRegionBytes)});
    }
    const auto count = static_cast<unsigned>(regions.size());
    if (::io_uring_register_buffers(&ring_, regions.data(), count) == 0) registered_ = memory;
  }
  // The region that holds all of it, or -1.
  int region_of(const std::byte* data, uint64_t bytes) const {
    const auto base = reinterpret_cast<uintptr_t>(registered_.data());
    const auto address = reinterpret_cast<uintptr_t>(data);
    if (address < base || address - base >= registered_.size()) return -1;
    const uint64_t begin = address - base;
    if (bytes > registered_.size() - begin) return -1;
    const uint64_t region = begin / kRegionBytes;
    return (begin + bytes - 1) / kRegionBytes == region ? static_cast<int>(region) : -1;
  }

  Status submit(File& file, bool write, uint64_t offset, Bytes bytes, uint64_t tag) {
    CAISSON_RETURN_IF_ERROR(check_caller());
    CAISSON_CHECK(!free_.empty());
    CAISSON_ASSIGN_OR_RETURN(Transfer transfer, queued_transfer(file, write, offset, bytes));
    return occupy({.transfer = transfer, .tag = tag});
  }

  Status occupy(const Slot& slot) {
    const uint32_t index = free_.back();
    slots_[index] = slot;
    CAISSON_RETURN_IF_ERROR(push(index));
    free_.pop_back();
    return ok_status();
  }

  // Hands the slot's next piece to the kernel. An entry that the kernel refused stays in the ring,
  // so the queue is broken from then on: the entry must never be submitted behind our back.
  Status push(uint32_t index) {
    if (!broken_.ok()) return broken_;
    const Transfer& transfer = slots_[index].transfer;
    io_uring_sqe* const sqe = ::io_uring_get_sqe(&ring_);
    CAISSON_CHECK(sqe != nullptr);  // the ring has an entry a slot, and each goes at once
    std::byte* const data = transfer.next_data();
    const uint32_t bytes = transfer.next_bytes();
    const uint64_t offset = transfer.next_offset();
    const int region = region_of(data, bytes);
    if (slots_[index].is_sync) {
      ::io_uring_prep_fsync(sqe, transfer.fd, IORING_FSYNC_DATASYNC);
    } else if (transfer.write && region >= 0) {
      ::io_uring_prep_write_fixed(sqe, transfer.fd, data, bytes, offset, region);
    } else if (transfer.write) {
      ::io_uring_prep_write(sqe, transfer.fd, data, bytes, offset);
    } else if (region >= 0) {
      ::io_uring_prep_read_fixed(sqe, transfer.fd, data, bytes, offset, region);
    } else {
      ::io_uring_prep_read(sqe, transfer.fd, data, bytes, offset);
    }
    ::io_uring_sqe_set_data64(sqe, index);
    int rc = 0;
    for (uint32_t stalls = 0; stalls < kStallsMax; ++stalls) {
      rc = ::io_uring_submit(&ring_);
      if (rc != -EINTR && rc != -EAGAIN) break;
    }
    if (rc == 1) return ok_status();
    broken_ = errno_status(rc < 0 ? -rc : EIO, "submitting to io_uring for " + *transfer.path);
    return broken_;
  }

  bool forked() const { return ::getpid() != process_; }
  Status check_caller() {
    if (forked()) {
      return invalid_argument("an I/O queue was used after fork(); open the store in the child");
    }
    if (owner_ == std::this_thread::get_id()) return ok_status();
    if (owner_ != std::thread::id()) {
      return invalid_argument("an I/O queue was used by a second thread; give it one of its own");
    }
    // liburing 2.3 declares io_uring_enable_rings and does not export it.
    if (::syscall(SYS_io_uring_register, ring_.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) !=
        0) {
      return errno_status(errno, "enabling io_uring");
    }
    owner_ = std::this_thread::get_id();
    return ok_status();
  }

  const pid_t process_ = ::getpid();
  std::thread::id owner_;
  io_uring ring_{};
  bool open_ = false;
  MutableBytes registered_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  Status broken_;
};

}  // namespace

Status probe_uring() {
  io_uring ring{};
  const int rc = init_ring(kProbeEntries, &ring);
  if (rc < 0) return errno_status(-rc, "io_uring");
  Status status;
  io_uring_probe* const probe = ::io_uring_get_probe_ring(&ring);
  if (probe == nullptr || !::io_uring_opcode_supported(probe, IORING_OP_READ) ||
      !::io_uring_opcode_supported(probe, IORING_OP_WRITE) ||
      !::io_uring_opcode_supported(probe, IORING_OP_FSYNC)) {
    status = unsupported("io_uring: this kernel has no plain read, write and fsync");
  }
  ::io_uring_free_probe(probe);
  ::io_uring_queue_exit(&ring);
  return status;
}

Result<std::unique_ptr<IoQueue>> make_uring_queue(const IoQueueOptions& options) {
  if (options.depth == 0 || options.depth > 4096) {
    return invalid_argument("an I/O queue of depth " + std::to_string(options.depth));
  }
  auto queue = std::make_unique<UringQueue>(options.depth);
  CAISSON_RETURN_IF_ERROR(queue->start(options.registered_memory));
  return std::unique_ptr<IoQueue>(std::move(queue));
}

}  // namespace caisson

// Anonymous mappings, not the heap: freed memory goes back to the host at once, a fork does not
// inherit it (the device may still be writing into it), and hugepages keep a 4 MiB direct request
// in one piece where 4 KiB pages would split it.
#include "io/base/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "io/base/check.h"

namespace caisson {

namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kHugePageBytes = 2u << 20;

// Large buffers end with a whole hugepage, too: of 4 KiB pages at the end, some hundred segments of
// one request, a virtual disk was 6 % slower altogether.
uint64_t page_of(uint64_t bytes) { return bytes >= kHugePageBytes ? kHugePageBytes : kPageBytes; }

void unmap(std::byte* data, uint64_t bytes) {
  if (data != nullptr) ::munmap(data, bytes);
}

// A mapping of `bytes` that starts at a multiple of `alignment`; null when the host refuses.
std::byte* map_aligned(uint64_t bytes, uint64_t alignment) {
  const uint64_t slack = alignment > kPageBytes ? alignment : 0;
  void* mapped =
      ::mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const start = static_cast<std::byte*>(mapped);
  const auto address = reinterpret_cast<uintptr_t>(start);
  const uint64_t head = align_up(address, alignment) - address;
  unmap(head > 0 ? start : nullptr, head);
  unmap(slack > head ? start + head + bytes : nullptr, slack - head);
  return start + head;
}

}  // namespace

Result<AlignedBuffer> AlignedBuffer::allocate(uint64_t bytes, bool prefault) {
  AlignedBuffer buffer;
  if (bytes == 0) return buffer;
  if (bytes > uint64_t{1} << 47) {  // more than any address space; the sums below cannot wrap
    return out_of_memory("a buffer of " + std::to_string(bytes) + " bytes was asked for");
  }
  const uint64_t page = page_of(bytes);
  const bool huge = page == kHugePageBytes;
  const uint64_t mapped_bytes = align_up(bytes, page);
  std::byte* const data = map_aligned(mapped_bytes, page);
  if (data == nullptr) {
    return errno_status(ENOMEM, "allocating " + std::to_string(bytes) + " bytes of I/O memory");
  }
  // Advice: hosts without hugepages refuse it, and everything works without.
  if (huge) ::madvise(data, mapped_bytes, MADV_HUGEPAGE);
  ::madvise(data, mapped_bytes, MADV_DONTFORK);
  if (prefault) {
    for (uint64_t at = 0; at < mapped_bytes; at += kPageBytes) {
      *static_cast<volatile std::byte*>(data + at) = std::byte{0};
    }
  }
  buffer.data_ = data;
  buffer.size_ = bytes;
  return buffer;
}

AlignedBuffer::~AlignedBuffer() { unmap(data_, align_up(size_, page_of(size_))); }

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  AlignedBuffer old(std::move(other));  // what this held is unmapped at the end of this call
  std::swap(data_, old.data_);
  std::swap(size_, old.size_);
  return *this;
}

bool MemoryBudget::fits(uint64_t bytes) const {
  return held_ == 0 || (bytes <= bytes_max_ && held_ <= bytes_max_ - bytes);
}

std::vector<AlignedBuffer> MemoryBudget::hold(uint64_t bytes) {
  held_ += bytes;
  std::vector<AlignedBuffer> evicted;
  auto keep = idle_.begin();
  for (; keep != idle_.end() && held_ + idle_bytes_ > bytes_max_; ++keep) {
    idle_bytes_ -= keep->size();
    evicted.push_back(std::move(*keep));
  }
  idle_.erase(idle_.begin(), keep);
  if (held_ + idle_bytes_ > peak_) peak_ = held_ + idle_bytes_;
  return evicted;
}

void MemoryBudget::wait_until_fits(uint64_t bytes, Urgency urgency) {
  if (urgency == Urgency::kPatient) {
    while (!fits(bytes) || is_wanted()) freed_.wait(mutex_);
    return;
  }
  if (fits(bytes)) return;
  urgent_waiters_.fetch_add(1, std::memory_order_relaxed);
  while (!fits(bytes)) freed_.wait(mutex_);
  urgent_waiters_.fetch_sub(1, std::memory_order_relaxed);
  freed_.notify_all();  // patient ones may fit beside it
}

void MemoryBudget::acquire(uint64_t bytes, Urgency urgency) {
  std::vector<AlignedBuffer> evicted;  // unmapped after the lock, and before the caller maps more
  MutexLock lock(mutex_);
  wait_until_fits(bytes, urgency);
  evicted = hold(bytes);
}

bool MemoryBudget::try_acquire(uint64_t bytes) {
  std::vector<AlignedBuffer> evicted;
  MutexLock lock(mutex_);
  if (!fits(bytes)) return false;
  evicted = hold(bytes);
  return true;
}

AlignedBuffer MemoryBudget::acquire_arena(uint64_t bytes, Urgency urgency) {
  AlignedBuffer arena;
  std::vector<AlignedBuffer> evicted;
  MutexLock lock(mutex_);
  wait_until_fits(bytes, urgency);
  const auto match = std::find_if(idle_.begin(), idle_.end(),
                                  [&](const AlignedBuffer& idle) { return idle.size() == bytes; });
  if (match != idle_.end()) {
    arena = std::move(*match);
    idle_.erase(match);
    idle_bytes_ -= bytes;
  }
  evicted = hold(bytes);
  return arena;
}

void MemoryBudget::release_arena(AlignedBuffer arena) {
  const uint64_t bytes = arena.size();
  bool stays = false;
  {
    MutexLock lock(mutex_);
    CAISSON_CHECK(bytes <= held_);
    stays = held_ + idle_bytes_ <= bytes_max_;  // not so while one above the bound is in alone
    if (stays) {
      held_ -= bytes;
      idle_bytes_ += bytes;
      idle_.push_back(std::move(arena));
    }
  }
  if (stays) {
    freed_.notify_all();
    return;
  }
  arena = AlignedBuffer();  // unmapped before the budget hears of it
  release(bytes);
}

void MemoryBudget::release(uint64_t bytes) {
  {
    MutexLock lock(mutex_);
    CAISSON_CHECK(bytes <= held_);
    held_ -= bytes;
  }
  freed_.notify_all();  // the waiters ask for different amounts
}

uint64_t MemoryBudget::bytes_held() const {
  MutexLock lock(mutex_);
  return held_;
}

uint64_t MemoryBudget::bytes_peak() const {
  MutexLock lock(mutex_);
  return peak_;
}

Result<BufferPool> BufferPool::create(MemoryBudget& budget, uint64_t buffer_bytes, uint32_t count,
                                      Urgency urgency) {
  if (buffer_bytes == 0 || count == 0 || buffer_bytes > (uint64_t{1} << 47) / count) {
    return invalid_argument("a pool of " + std::to_string(count) + " buffers of " +
                            std::to_string(buffer_bytes) + " bytes");
  }
  BufferPool pool;
  pool.buffer_bytes_ = align_up(buffer_bytes, kPageBytes);
  const uint64_t arena_bytes = pool.buffer_bytes_ * count;
  pool.arena_ = budget.acquire_arena(arena_bytes, urgency);
  pool.warm_ = pool.arena_.size() != 0;
  if (!pool.warm_) {
    auto arena = AlignedBuffer::allocate(arena_bytes);
    if (!arena.ok()) {
      budget.release(arena_bytes);
      return arena.status();
    }
    pool.arena_ = std::move(arena).value();
  }
  pool.budget_ = &budget;
  pool.free_.reserve(count);
  for (uint32_t i = count; i > 0; --i) {  // so that the lowest addresses go out first
    pool.free_.push_back(pool.arena_.data() + (i - 1) * pool.buffer_bytes_);
  }
  return pool;
}

BufferPool::~BufferPool() {
  if (budget_ != nullptr) budget_->release_arena(std::move(arena_));
}

BufferPool::BufferPool(BufferPool&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)),
      arena_(std::move(other.arena_)),
      buffer_bytes_(std::exchange(other.buffer_bytes_, 0)),
      warm_(other.warm_),
      free_(std::move(other.free_)) {}

BufferPool& BufferPool::operator=(BufferPool&& other) noexcept {
  std::swap(budget_, other.budget_);
  std::swap(arena_, other.arena_);
  std::swap(buffer_bytes_, other.buffer_bytes_);
  std::swap(warm_, other.warm_);
  std::swap(free_, other.free_);
  return *this;
}

MutableBytes BufferPool::take() {
  if (free_.empty()) return {};
  std::byte* const data = free_.back();
  free_.pop_back();
  return {data, buffer_bytes_};
}

void BufferPool::give(MutableBytes buffer) {
  const auto offset = static_cast<uint64_t>(buffer.data() - arena_.data());
  CAISSON_CHECK(buffer.data() >= arena_.data() && offset < arena_.size());
  CAISSON_CHECK(offset % buffer_bytes_ == 0 && buffer.size() == buffer_bytes_);
  CAISSON_CHECK(free_.size() < arena_.size() / buffer_bytes_);
  free_.push_back(buffer.data());
}

}  // namespace caisson

// Aligned memory for I/O, and the one budget that counts all of it in bytes. A save or restore
// that does not fit its budget waits for its own buffers to come back: it slows, it never kills the
// host. MemoryBudget is thread-safe; AlignedBuffer and BufferPool are thread-compatible and stay
// with one pipeline.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "caisson/result.h"
#include "io/base/bytes.h"
#include "io/base/sync.h"

namespace caisson {

// Anonymous memory aligned to 4 KiB (2 MiB and advised as hugepages from 2 MiB on), zero-filled,
// unmapped on destruction, not inherited over fork. Hugepages are whole ones: up to 2 MiB more than
// was asked for may be touched.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  // kOutOfMemory when the host refuses. `prefault` touches every page now rather than under load.
  static Result<AlignedBuffer> allocate(uint64_t bytes, bool prefault = false);
  ~AlignedBuffer();
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;

  MutableBytes bytes() { return {data_, size_}; }
  Bytes bytes() const { return {data_, size_}; }
  std::byte* data() { return data_; }
  uint64_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

// Who asks for memory. Somebody waits for a restore, and nobody for a save that drains in the
// background: an urgent request goes before every patient one.
enum class Urgency : uint8_t { kPatient, kUrgent };

// A counter of bytes with an upper bound, shared by every pipeline of a Store. Finding pages for a
// fresh arena can take the host longer than a save takes the device, so the arenas of pools that
// are gone stay with the budget, idle, for the next pool of that size; they count, and go as soon
// as anybody needs the room.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes_max) : bytes_max_(bytes_max) {}
  // Blocks until `bytes` fit. Takes at once when nothing is held, so a single request above the
  // bound proceeds alone instead of never. A patient request also waits until no urgent one does;
  // beyond that FIFO is not promised.
  void acquire(uint64_t bytes, Urgency urgency = Urgency::kPatient) CAISSON_EXCLUDES(mutex_);
  bool try_acquire(uint64_t bytes) CAISSON_EXCLUDES(mutex_);
  void release(uint64_t bytes) CAISSON_EXCLUDES(mutex_);
  // acquire(), and an idle arena of exactly `bytes` if there is one; else an empty buffer.
  AlignedBuffer acquire_arena(uint64_t bytes, Urgency urgency = Urgency::kPatient)
      CAISSON_EXCLUDES(mutex_);
  // True while an urgent request waits: a patient holder gives back what it has as soon as it can,
  // and asks again. Costs no lock.
  bool is_wanted() const { return urgent_waiters_.load(std::memory_order_relaxed) > 0; }
  // release() of what was acquired for `arena`, which becomes idle.
  void release_arena(AlignedBuffer arena) CAISSON_EXCLUDES(mutex_);
  uint64_t bytes_max() const { return bytes_max_; }
  uint64_t bytes_held() const CAISSON_EXCLUDES(mutex_);  // without idle arenas
  uint64_t bytes_peak() const CAISSON_EXCLUDES(mutex_);  // with them

 private:
  const uint64_t bytes_max_;
  bool fits(uint64_t bytes) const CAISSON_REQUIRES(mutex_);
  void wait_until_fits(uint64_t bytes, Urgency urgency) CAISSON_REQUIRES(mutex_);
  // Counts `bytes` as held. Gives the idle arenas that have no room any more, to be unmapped.
  std::vector<AlignedBuffer> hold(uint64_t bytes) CAISSON_REQUIRES(mutex_);

  mutable Mutex mutex_;
  CondVar freed_;
  std::atomic<uint32_t> urgent_waiters_{0};                     // changed under mutex_
  std::vector<AlignedBuffer> idle_ CAISSON_GUARDED_BY(mutex_);  // oldest first
  uint64_t idle_bytes_ CAISSON_GUARDED_BY(mutex_) = 0;
  uint64_t held_ CAISSON_GUARDED_BY(mutex_) = 0;
  uint64_t peak_ CAISSON_GUARDED_BY(mutex_) = 0;
};

// `count` equal buffers cut from one arena that is charged to a budget for the pool's life.
class BufferPool {
 public:
  BufferPool() = default;
  // buffer_bytes is rounded up to 4 KiB. Waits for the budget.
  static Result<BufferPool> create(MemoryBudget& budget, uint64_t buffer_bytes, uint32_t count,
                                   Urgency urgency = Urgency::kPatient);
  ~BufferPool();
  BufferPool(BufferPool&& other) noexcept;
  BufferPool& operator=(BufferPool&& other) noexcept;
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  // A free buffer, or an empty span when all are out.
  MutableBytes take();
  // REQUIRES: `buffer` came from take() of this pool and is not in it.
  void give(MutableBytes buffer);
  uint32_t free_count() const { return static_cast<uint32_t>(free_.size()); }
  uint64_t buffer_bytes() const { return buffer_bytes_; }
  // The whole arena.
  MutableBytes arena() { return arena_.bytes(); }
  // What a queue registers with the kernel: the arena once it has served another pool, nothing
  // before. Registering a fresh arena finds all its pages at once; without it they are found one
  // buffer at a time, while the device works on the others, and only as many as are needed.
  MutableBytes warm_arena() { return warm_ ? arena_.bytes() : MutableBytes(); }

 private:
  MemoryBudget* budget_ = nullptr;
  AlignedBuffer arena_;
  uint64_t buffer_bytes_ = 0;
  bool warm_ = false;
  std::vector<std::byte*> free_;  // given back last, taken first: the touched ones
};

}  // namespace caisson

#include "io/base/buffer.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <thread>

#include "tests/support/sanitized.h"

namespace caisson {
namespace {

bool aligned(const std::byte* data, uint64_t alignment) {
  return reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

TEST(AlignedBuffer, IsAlignedAndZero) {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4096}, uint64_t{5000}, (uint64_t{2} << 20) - 1,
                               uint64_t{2} << 20, (uint64_t{6} << 20) + 1}) {
    auto buffer = AlignedBuffer::allocate(bytes, bytes % 2 == 0);
    ASSERT_TRUE(buffer.ok()) << buffer.status().to_string();
    EXPECT_EQ(buffer->size(), bytes);
    EXPECT_TRUE(aligned(buffer->data(), bytes >= (2u << 20) ? 2u << 20 : 4096)) << bytes;
    const Bytes view = buffer->bytes();
    EXPECT_TRUE(
        std::all_of(view.begin(), view.end(), [](std::byte b) { return b == std::byte{}; }));
    std::fill(buffer->bytes().begin(), buffer->bytes().end(), std::byte{1});
  }
}

TEST(AlignedBuffer, EmptyIsNoMapping) {
  auto buffer = AlignedBuffer::allocate(0);
  ASSERT_TRUE(buffer.ok());
  EXPECT_EQ(buffer->data(), nullptr);
}

TEST(AlignedBuffer, RefusesWhatNoHostHas) {
  EXPECT_EQ(AlignedBuffer::allocate(UINT64_MAX).status().code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(AlignedBuffer::allocate(uint64_t{1} << 47).status().code(), StatusCode::kOutOfMemory);
}

TEST(AlignedBuffer, MovesItsMapping) {
  auto first = AlignedBuffer::allocate(4096).value();
  std::byte* const data = first.data();
  AlignedBuffer second(std::move(first));
  EXPECT_EQ(first.data(), nullptr);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.data(), data);
  AlignedBuffer third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(third.size(), 4096u);
}

TEST(AlignedBuffer, IsNotInheritedOverFork) {
  if (testing::kSanitized) GTEST_SKIP() << "a sanitizer takes the signal for a bug";
  auto buffer = AlignedBuffer::allocate(4096, true).value();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    *static_cast<volatile std::byte*>(buffer.data()) = std::byte{1};
    ::_exit(0);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_TRUE(WIFSIGNALED(state) && WTERMSIG(state) == SIGSEGV);
}

TEST(MemoryBudget, AnUrgentRequestGoesBeforePatientOnes) {
  MemoryBudget budget(100);
  budget.acquire(100);
  std::atomic<int> order = 0;
  int urgent_place = 0, patient_place = 0;
  EXPECT_FALSE(budget.is_wanted());
  std::thread urgent([&] {
    budget.acquire(60, Urgency::kUrgent);
    urgent_place = ++order;
    budget.release(60);
  });
  while (!budget.is_wanted()) std::this_thread::yield();
  // 30 would fit first, once 40 are back, but somebody urgent waits for 60.
  std::thread patient([&] {
    budget.acquire(30);
    patient_place = ++order;
    budget.release(30);
  });
  budget.release(40);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_TRUE(budget.is_wanted());
  EXPECT_EQ(order, 0);
  budget.release(60);
  urgent.join();
  patient.join();
  EXPECT_FALSE(budget.is_wanted());
  EXPECT_EQ(budget.bytes_held(), 0u);
  EXPECT_EQ(urgent_place + patient_place, 3);
}

TEST(MemoryBudget, HoldsItsBound) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.try_acquire(60));
  EXPECT_FALSE(budget.try_acquire(41));
  EXPECT_TRUE(budget.try_acquire(40));
  EXPECT_EQ(budget.bytes_held(), 100u);
  budget.release(100);
  EXPECT_EQ(budget.bytes_held(), 0u);
  EXPECT_EQ(budget.bytes_peak(), 100u);
}

TEST(MemoryBudget, LetsALargeRequestProceedAlone) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.try_acquire(500));
  EXPECT_FALSE(budget.try_acquire(1));
  EXPECT_FALSE(budget.try_acquire(UINT64_MAX));
  budget.release(500);
  EXPECT_TRUE(budget.try_acquire(1));
  EXPECT_FALSE(budget.try_acquire(500));
}

TEST(MemoryBudget, WakesWhoWaits) {
  MemoryBudget budget(100);
  budget.acquire(80);
  std::jthread small([&] { budget.acquire(30); });
  std::jthread large([&] { budget.acquire(70); });
  budget.release(80);
  small.join();
  large.join();
  EXPECT_EQ(budget.bytes_held(), 100u);
  EXPECT_EQ(budget.bytes_peak(), 100u);
}

TEST(BufferPool, LendsEqualAlignedBuffersAndChargesTheBudget) {
  MemoryBudget budget(1 << 20);
  {
    auto pool = BufferPool::create(budget, 10'000, 3);
    ASSERT_TRUE(pool.ok()) << pool.status().to_string();
    EXPECT_EQ(pool->buffer_bytes(), 12'288u);
    EXPECT_EQ(budget.bytes_held(), 3 * 12'288u);
    const MutableBytes a = pool->take();
    const MutableBytes b = pool->take();
    const MutableBytes c = pool->take();
    EXPECT_TRUE(pool->take().empty());
    EXPECT_EQ(pool->free_count(), 0u);
    EXPECT_EQ(b.data(), a.data() + 12'288);
    EXPECT_EQ(c.data() + c.size(), pool->arena().data() + pool->arena().size());
    EXPECT_TRUE(aligned(b.data(), 4096));
    pool->give(b);
    EXPECT_EQ(pool->take().data(), b.data());
    BufferPool moved(std::move(*pool));
    moved.give(a);
    EXPECT_EQ(moved.free_count(), 1u);
    EXPECT_EQ(budget.bytes_held(), 3 * 12'288u);
  }
  EXPECT_EQ(budget.bytes_held(), 0u);
}

TEST(BufferPool, TheNextPoolOfTheSizeGetsTheSamePages) {
  MemoryBudget budget(100 * 4096);
  const std::byte* data = nullptr;
  {
    auto first = BufferPool::create(budget, 4096, 60).value();
    EXPECT_TRUE(first.warm_arena().empty());
    data = first.arena().data();
  }
  EXPECT_EQ(budget.bytes_held(), 0u);
  {
    auto again = BufferPool::create(budget, 4096, 60).value();
    EXPECT_EQ(again.arena().data(), data);
    EXPECT_EQ(again.warm_arena().size(), 60u * 4096);
    EXPECT_EQ(budget.bytes_held(), 60u * 4096);
  }
  EXPECT_TRUE(BufferPool::create(budget, 4096, 10).value().warm_arena().empty());
  // 60 and 10 pages are idle: 50 more push the oldest out, which takes no waiting.
  EXPECT_TRUE(budget.try_acquire(50 * 4096));
  EXPECT_EQ(budget.bytes_peak(), 70u * 4096);
  EXPECT_FALSE(BufferPool::create(budget, 4096, 10).value().warm_arena().empty());
  budget.release(50 * 4096);
  EXPECT_TRUE(BufferPool::create(budget, 4096, 60).value().warm_arena().empty());
}

TEST(BufferPool, RefusesNonsense) {
  MemoryBudget budget(1 << 20);
  EXPECT_EQ(BufferPool::create(budget, 0, 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(BufferPool::create(budget, 1, 0).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(BufferPool::create(budget, UINT64_MAX, 2).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(BufferPool::create(budget, uint64_t{1} << 46, 2).status().code(),
            StatusCode::kOutOfMemory);
  EXPECT_EQ(budget.bytes_held(), 0u);
}

TEST(BufferPoolDeathTest, RefusesAForeignBuffer) {
  MemoryBudget budget(1 << 20);
  auto pool = BufferPool::create(budget, 4096, 2).value();
  ByteVector foreign(4096);
  pool.take();
  EXPECT_DEATH(pool.give(foreign), "CAISSON_CHECK");
}

}  // namespace
}  // namespace caisson

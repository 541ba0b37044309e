// The memory of a restore: buffers cut from the arena never overlap and start low; pages of the
// caller are found ahead, and nothing in them changes.
#include "engine/restore_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <thread>

#include "io/base/buffer.h"

namespace caisson {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kHuge = 2u << 20;

TEST(ReadArena, BuffersNeverOverlapAndAllComesBack) {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    ByteVector memory((16 + random() % 64) * kPage);
    ReadArena arena{MutableBytes(memory)};
    std::vector<MutableBytes> out;
    for (int i = 0; i < 300; ++i) {
      if (random() % 2 == 0) {
        const uint64_t bytes = 1 + random() % (8 * kPage);
        const MutableBytes buffer = arena.take(bytes);
        if (buffer.empty()) continue;
        ASSERT_EQ(buffer.size(), align_up(bytes, kPage));
        ASSERT_GE(buffer.data(), memory.data());
        ASSERT_LE(buffer.data() + buffer.size(), memory.data() + memory.size());
        for (const MutableBytes other : out) {
          ASSERT_TRUE(buffer.data() + buffer.size() <= other.data() ||
                      other.data() + other.size() <= buffer.data());
        }
        out.push_back(buffer);
      } else if (!out.empty()) {
        std::swap(out[random() % out.size()], out.back());
        arena.give(out.back());
        out.pop_back();
      }
    }
    for (const MutableBytes buffer : out) arena.give(buffer);
    EXPECT_EQ(arena.take(memory.size()).size(), memory.size());
    EXPECT_TRUE(arena.take(1).empty());
  }
}

TEST(ReadArena, TakesTheLowestGapThatIsWideEnough) {
  ByteVector memory(8 * kPage);
  ReadArena arena{MutableBytes(memory)};
  const MutableBytes a = arena.take(kPage), b = arena.take(2 * kPage), c = arena.take(kPage);
  EXPECT_EQ(a.data(), memory.data());
  EXPECT_EQ(c.data(), memory.data() + 3 * kPage);
  arena.give(a);
  arena.give(b);
  EXPECT_EQ(arena.take(3 * kPage).data(), memory.data());
  EXPECT_TRUE(ReadArena().take(1).empty());
}

// An anonymous mapping of 4 KiB pages, none of them there yet.
class Mapping {
 public:
  explicit Mapping(uint64_t bytes) : bytes_(bytes) {
    void* const mapped =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(mapped, MAP_FAILED);
    data_ = static_cast<std::byte*>(mapped);
    ::madvise(mapped, bytes, MADV_NOHUGEPAGE);
  }
  ~Mapping() { ::munmap(data_, bytes_); }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  MutableBytes bytes() const { return {data_, bytes_}; }
  uint64_t pages_there() const {
    std::vector<unsigned char> there(bytes_ / kPage);
    EXPECT_EQ(::mincore(data_, bytes_, there.data()), 0);
    return static_cast<uint64_t>(
        std::count_if(there.begin(), there.end(), [](unsigned char c) { return (c & 1) != 0; }));
  }

 private:
  uint64_t bytes_;
  std::byte* data_ = nullptr;
};

bool can_populate() {
  const Mapping probe(2 * kPage);
  return prefault_step(probe.bytes());
}

TEST(Prefault, FindsThePagesOfAStepAndChangesNothing) {
  if (!can_populate()) GTEST_SKIP() << "the kernel has no MADV_POPULATE_WRITE";
  const Mapping memory(16 * kPage);
  EXPECT_TRUE(prefault_step(memory.bytes().subspan(2 * kPage + 100, 3 * kPage)));
  EXPECT_EQ(memory.pages_there(), 4u) << "the pages that the range touches, and no other";
  std::memset(memory.bytes().data(), 0x5a, 2 * kPage);
  EXPECT_TRUE(prefault_step(memory.bytes()));
  EXPECT_EQ(memory.pages_there(), 6u) << "the first page is there, so the others are not asked for";
  EXPECT_TRUE(std::ranges::all_of(memory.bytes().first(2 * kPage),
                                  [](std::byte b) { return b == std::byte{0x5a}; }));
}

TEST(Prefault, RefusalsAreTold) {
  Mapping memory(4 * kPage);
  ASSERT_EQ(::mprotect(memory.bytes().data(), 4 * kPage, PROT_READ), 0);
  EXPECT_FALSE(prefault_step(memory.bytes()));
}

TEST(Prefault, GoesThroughAllRangesByItself) {
  if (!can_populate()) GTEST_SKIP() << "the kernel has no MADV_POPULATE_WRITE";
  const Mapping a(3 * kHuge), b(kHuge);
  const Prefault prefault({b.bytes(), a.bytes()});
  // No limit of time: a thread that never gets there shows as a test that never ends.
  while (a.pages_there() < 3 * kHuge / kPage) std::this_thread::yield();
  EXPECT_EQ(b.pages_there(), kHuge / kPage);
}

TEST(JoinNeighbours, JoinsWhatSharesPagesAndNothingElse) {
  const Mapping memory(16 * kPage);
  const MutableBytes all = memory.bytes();
  const auto joined = [](std::vector<MutableBytes> ranges) { return join_neighbours(ranges); };
  const auto is = [](MutableBytes a, MutableBytes b) {
    return a.data() == b.data() && a.size() == b.size();
  };
  EXPECT_TRUE(joined({}).empty());
  EXPECT_TRUE(joined({all.first(0)}).empty());
  // End to begin; with less than a page between them; in the same page; in the next one.
  for (const uint64_t begin :
       {3 * kPage, 3 * kPage + 64, 4 * kPage - 1, 4 * kPage, 5 * kPage - 1}) {
    SCOPED_TRACE(begin);
    const uint64_t end = begin < 4 * kPage ? 3 * kPage : 3 * kPage + 1;
    const auto one = joined({all.first(end), all.subspan(begin, 100)});
    ASSERT_EQ(one.size(), 1u);
    EXPECT_TRUE(is(one[0], all.first(begin + 100)));
  }
  // A whole page of somebody else's in between; the other way round; overlapping.
  EXPECT_EQ(joined({all.first(3 * kPage), all.subspan(4 * kPage, 100)}).size(), 2u);
  EXPECT_EQ(joined({all.subspan(3 * kPage, 100), all.first(3 * kPage)}).size(), 2u);
  EXPECT_EQ(joined({all.first(3 * kPage), all.subspan(kPage, kPage)}).size(), 2u);
  const auto three = joined({all.first(10), all.subspan(10, 20), all.subspan(8 * kPage, 10)});
  ASSERT_EQ(three.size(), 2u);
  EXPECT_TRUE(is(three[0], all.first(30)));
  EXPECT_TRUE(is(three[1], all.subspan(8 * kPage, 10)));
}

TEST(HugePages, AreOfferedToNewMemoryAlone) {
  HugePages hugepages;
  auto huge = AlignedBuffer::allocate(4 * kHuge, /*prefault=*/true);
  ASSERT_TRUE(huge.ok());
  if (!hugepages.hold(huge->bytes())) GTEST_SKIP() << "no hugepages to be had, or told";
  const Mapping small(6 * kHuge);
  EXPECT_FALSE(hugepages.offer(small.bytes().first(kHuge - kPage)));  // has none of whole 2 MiB
  std::memset(small.bytes().data(), 7, 6 * kHuge);
  EXPECT_FALSE(hugepages.offer(small.bytes()));
  const Mapping partly(8 * kHuge);
  std::byte& there = partly.bytes()[4 * kHuge];
  there = std::byte{7};
  EXPECT_TRUE(hugepages.offer(partly.bytes()));
  EXPECT_EQ(partly.pages_there(), 1u);
  partly.bytes()[2 * kHuge] = partly.bytes()[6 * kHuge] = std::byte{1};
  EXPECT_GE(partly.pages_there(), 1 + 2 * kHuge / kPage);
  EXPECT_EQ(there, std::byte{7});
  const Mapping fresh(6 * kHuge);
  EXPECT_TRUE(hugepages.offer(fresh.bytes()));
  EXPECT_EQ(fresh.pages_there(), 0u);
  for (uint64_t at = 0; at < 6 * kHuge; at += kPage) fresh.bytes()[at] = std::byte{1};
  EXPECT_TRUE(hugepages.hold(fresh.bytes()));
  EXPECT_FALSE(hugepages.offer(fresh.bytes()));
}

TEST(HugePages, AreToldFromSmallOnes) {
  const HugePages hugepages;
  const Mapping small(4 * kHuge);
  std::memset(small.bytes().data(), 1, small.bytes().size());
  EXPECT_FALSE(hugepages.hold(small.bytes()));
  EXPECT_FALSE(hugepages.hold({}));

  auto buffer = AlignedBuffer::allocate(4 * kHuge, true);
  ASSERT_TRUE(buffer.ok());
  const MutableBytes huge = buffer->bytes();
  if (!hugepages.hold(huge)) GTEST_SKIP() << "no hugepages to be had, or none can be told";
  EXPECT_TRUE(hugepages.hold(huge.subspan(64, 3 * kHuge)));
  EXPECT_FALSE(hugepages.hold(huge.subspan(64, kHuge + kPage))) << "has no whole one";
  ASSERT_EQ(::madvise(huge.data() + 2 * kHuge, kPage, MADV_DONTNEED), 0);
  EXPECT_FALSE(hugepages.hold(huge)) << "one of them is split";
  EXPECT_TRUE(hugepages.hold(huge.first(2 * kHuge)));
}

}  // namespace
}  // namespace caisson

#include "engine/restore_memory.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <system_error>
#include <utility>

#include "io/base/check.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace caisson {

namespace {

constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kHugePageBytes = 2u << 20;
// One step: a hugepage, so that a probe of its first page speaks for all of one.
constexpr uint64_t kStepBytes = kHugePageBytes;

// PAGEMAP_SCAN of <linux/fs.h>, which older headers lack.
struct PagemapRegion {
  uint64_t start, end, categories;
};
struct PagemapScan {
  uint64_t size, flags, start, end, walk_end, regions, regions_count, pages_max;
  uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
constexpr uint64_t kPageIsPresent = 1u << 3;
constexpr uint64_t kPageIsSwapped = 1u << 4;
constexpr uint64_t kPageIsHuge = 1u << 6;

// What `range` has of whole 2 MiB.
MutableBytes whole_hugepages(MutableBytes range) {
  const auto at = reinterpret_cast<uintptr_t>(range.data());
  const uint64_t before = align_up(at, kHugePageBytes) - at;
  if (range.size() < before + kHugePageBytes) return {};
  return range.subspan(before, (range.size() - before) / kHugePageBytes * kHugePageBytes);
}

uint64_t faults_of_this_thread() {
  rusage usage{};
  if (::getrusage(RUSAGE_THREAD, &usage) != 0) return 0;
  return static_cast<uint64_t>(usage.ru_minflt) + static_cast<uint64_t>(usage.ru_majflt);
}

bool populate(std::byte* begin, uint64_t bytes) {
  return ::madvise(begin, bytes, MADV_POPULATE_WRITE) == 0;
}

void prefault(const std::stop_token& stop, const std::vector<MutableBytes>& ranges) {
  for (MutableBytes left : ranges) {
    while (!left.empty()) {
      if (stop.stop_requested()) return;
      // Steps end where hugepages do.
      const uint64_t at = reinterpret_cast<uintptr_t>(left.data());
      const uint64_t step = std::min<uint64_t>(left.size(), kStepBytes - at % kStepBytes);
      if (!prefault_step(left.first(step))) return;
      left = left.subspan(step);
    }
  }
}

}  // namespace

ReadArena::ReadArena(MutableBytes arena) : arena_(arena) {
  if (!arena.empty()) free_.emplace(0, arena.size());
}

MutableBytes ReadArena::take(uint64_t bytes) {
  bytes = align_up(bytes, kPageBytes);
  const auto gap =
      std::find_if(free_.begin(), free_.end(), [&](const auto& g) { return g.second >= bytes; });
  if (gap == free_.end()) return {};
  const auto [offset, size] = *gap;
  free_.erase(gap);
  if (size > bytes) free_.emplace(offset + bytes, size - bytes);
  return arena_.subspan(offset, bytes);
}

void ReadArena::give(MutableBytes buffer) {
  const auto offset = static_cast<uint64_t>(buffer.data() - arena_.data());
  CAISSON_CHECK(buffer.data() >= arena_.data() && offset + buffer.size() <= arena_.size());
  auto gap = free_.emplace(offset, buffer.size()).first;
  const auto after = std::next(gap);
  if (after != free_.end()) {
    CAISSON_CHECK(offset + buffer.size() <= after->first);
    if (offset + buffer.size() == after->first) {
      gap->second += after->second;
      free_.erase(after);
    }
  }
  if (gap == free_.begin()) return;
  const auto before = std::prev(gap);
  CAISSON_CHECK(before->first + before->second <= offset);
  if (before->first + before->second != offset) return;
  before->second += gap->second;
  free_.erase(gap);
}

HugePages::HugePages() : pagemap_(::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)) {}

HugePages::~HugePages() {
  if (pagemap_ >= 0) ::close(pagemap_);
}

bool HugePages::hold(MutableBytes range) const {
  const MutableBytes whole = whole_hugepages(range);
  return !whole.empty() && find_page(whole, kPageIsHuge, /*inverted=*/true) == nullptr;
}

bool HugePages::offer(MutableBytes range) {
  bool asked = false;
  MutableBytes left = whole_hugepages(range);
  while (!left.empty() && offers_left_ > 0) {
    const auto there = find_page(left, kPageIsPresent | kPageIsSwapped, /*inverted=*/false);
    if (!there) return asked;
    const bool all = *there == nullptr;
    const size_t fresh =
        all ? left.size()
            : static_cast<size_t>(*there - left.data()) / kHugePageBytes * kHugePageBytes;
    if (fresh > 0 && ::madvise(left.data(), fresh, MADV_HUGEPAGE) == 0) {
      asked = true;
      --offers_left_;
    }
    left = left.subspan(all ? fresh : fresh + kHugePageBytes);
  }
  return asked;
}

std::optional<std::byte*> HugePages::find_page(MutableBytes range, uint64_t categories,
                                               bool inverted) const {
  if (pagemap_ < 0) return std::nullopt;
  const auto begin = reinterpret_cast<uintptr_t>(range.data());
  PagemapRegion found{};
  PagemapScan scan{.size = sizeof(PagemapScan),
                   .flags = 0,
                   .start = begin,
                   .end = begin + range.size(),
                   .walk_end = 0,
                   .regions = reinterpret_cast<uintptr_t>(&found),
                   .regions_count = 1,
                   .pages_max = 1,
                   .category_inverted = inverted ? categories : 0,
                   .category_mask = 0,
                   .category_anyof_mask = categories,
                   .return_mask = categories};
  const int count = ::ioctl(pagemap_, _IOWR('f', 16, PagemapScan), &scan);
  if (count == 0) return nullptr;
  if (count < 0 || found.start < begin || found.start >= begin + range.size()) return std::nullopt;
  return range.data() + (found.start - begin);
}

std::vector<MutableBytes> join_neighbours(std::span<const MutableBytes> ranges) {
  std::vector<MutableBytes> joined;
  for (const MutableBytes range : ranges) {
    if (range.empty()) continue;
    if (!joined.empty()) {
      MutableBytes& last = joined.back();
      const auto end = reinterpret_cast<uintptr_t>(last.data() + last.size());
      const auto begin = reinterpret_cast<uintptr_t>(range.data());
      if (begin >= end && begin / kPageBytes <= (end - 1) / kPageBytes + 1) {
        last = {last.data(), last.size() + (begin - end) + range.size()};
        continue;
      }
    }
    joined.push_back(range);
  }
  return joined;
}

bool prefault_step(MutableBytes range) {
  const uint64_t before = reinterpret_cast<uintptr_t>(range.data()) % kPageBytes;
  std::byte* const begin = range.data() - before;
  const uint64_t bytes = align_up(before + range.size(), kPageBytes);
  // Populating memory that is there costs a microsecond a page. So the first page alone is asked
  // for: when that took no fault the rest is there too, or will fault when it is copied to.
  const uint64_t faults = faults_of_this_thread();
  if (!populate(begin, kPageBytes)) return false;
  if (faults_of_this_thread() == faults || bytes == kPageBytes) return true;
  return populate(begin + kPageBytes, bytes - kPageBytes);
}

Prefault::Prefault(std::vector<MutableBytes> ranges) {
  if (ranges.empty()) return;
  try {
    thread_ = std::jthread(
        [ranges = std::move(ranges)](const std::stop_token& stop) { prefault(stop, ranges); });
  } catch (const std::system_error&) {  // no thread to be had: slower, nothing else
  }
}

}  // namespace caisson

// The memory of a restore: the arena that staged reads are cut from, what the caller's memory is
// made of, and the thread that has new memory of the caller found by the kernel before anything is
// copied there. Used by restore_pipeline.cc. ReadArena is thread-compatible; Prefault runs its own
// thread.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "io/base/bytes.h"

namespace caisson {

// Cuts buffers of any size out of one arena, the lowest free address first: what is touched is what
// is in flight, not the whole arena. Pages of a fresh one are dear.
class ReadArena {
 public:
  ReadArena() = default;
  explicit ReadArena(MutableBytes arena);
  // Of at least `bytes`, a multiple of 4 KiB; empty when no gap is wide enough.
  MutableBytes take(uint64_t bytes);
  // REQUIRES: `buffer` came from take() and is out.
  void give(MutableBytes buffer);

 private:
  MutableBytes arena_;
  std::map<uint64_t, uint64_t> free_;  // offset -> bytes, never adjacent
};

// Tells where memory lies in hugepages, and has new memory lie there. To pin the 4 KiB pages of a
// read costs as much as to copy it, and a device takes fewer of them at once than a read of 4 MiB
// has (a virtual disk took half as long again); hugepages cost next to nothing. Thread-compatible.
class HugePages {
 public:
  HugePages();
  ~HugePages();
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;
  // Whether all that `range` has of whole 2 MiB is there, in hugepages. False where it has none of
  // that, and where the kernel cannot tell (before Linux 6.7).
  bool hold(MutableBytes range) const;
  // Asks the kernel for hugepages in every whole 2 MiB of `range` that was never touched: a fault
  // and its zeroing then cost a third of what 4 KiB pages do. Takes no memory that filling the
  // range would not, and changes nothing that is there. False where nothing was asked.
  bool offer(MutableBytes range);

 private:
  // The first page that is in one of `categories`, or with `inverted` in none; nullptr when there
  // is none, nothing where the kernel cannot tell.
  std::optional<std::byte*> find_page(MutableBytes range, uint64_t categories, bool inverted) const;

  // Each splits a mapping, of which a process may have 65,530.
  uint32_t offers_left_ = 4096;
  int pagemap_ = -1;
};

// What lies side by side in memory, and in `ranges`, as one range: tensors that share a hugepage
// have none that is whole. Every page of the result has a byte of some range.
std::vector<MutableBytes> join_neighbours(std::span<const MutableBytes> ranges);

// Memory that was never touched costs a fault a page, one after the other, in the thread that
// copies there. This makes the kernel find its pages in large steps, in a thread of its own, ahead
// of that. Memory that is there already costs one probe a step. Reads or changes no byte. What the
// kernel refuses stays as it is.
class Prefault {
 public:
  // `ranges` in the order in which they will be filled; they outlive the object.
  explicit Prefault(std::vector<MutableBytes> ranges);
  // Stops after the step that it is in.
  ~Prefault() = default;
  Prefault(const Prefault&) = delete;
  Prefault& operator=(const Prefault&) = delete;

 private:
  std::jthread thread_;
};

// Touches [range] unless its first page is there already, or the kernel cannot tell. False when the
// kernel refused, so that going on is pointless. For Prefault and its test.
bool prefault_step(MutableBytes range);

}  // namespace caisson

// The packs of one checkpoint, told by the tables behind its root's head: read block by block as
// they are asked for, so that one tensor of a checkpoint of ten million tiles needs a few of them,
// or all at once. Used by manifest.cc, chunk_reader.cc, restore_plan.cc and those who need the
// whole list. Thread-safe.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "engine/format/root.h"
#include "engine/object_reads.h"
#include "io/base/sync.h"

namespace caisson {

class RootPacks {
 public:
  // `reads` and `root` outlive it; `sealed` is the root's.
  RootPacks(ObjectReads& reads, const format::SealedRef& sealed, const format::Root& root);
  // From tables that are all here.
  RootPacks(const format::Root& root, const format::PackTables& tables);

  uint64_t size() const { return packs_.count; }

  // Makes index_of(part, pack) and at() of it answer; reads at most two groups of blocks.
  // REQUIRES: part and pack are of the root.
  Status need(uint32_t part, uint32_t pack);
  // The index into the root's packs of what `part` calls `pack`. REQUIRES: need() was ok.
  uint32_t index_of(uint32_t part, uint32_t pack) const {
    return part_packs_.at(first_of_part_[part] + pack);
  }
  // REQUIRES: `index` was given by index_of.
  const format::SealedRef& at(uint32_t index) const { return packs_.at(index); }

  // The pack by its name, null where the root does not list it: for the bases of chunks.
  Result<const format::SealedRef*> find(const format::ObjectRef& pack);

  // Both tables, read anew and compared with the digest in the head. 64 bytes of memory a pack.
  Result<format::PackTables> all();

 private:
  // Rows by group of blocks; a group is there once `ready` says so, and stays.
  template <typename Row, size_t kPerBlock>
  struct Table {
    static constexpr uint64_t kBlocksPerGroup = 16;  // read at once: 64 KiB
    static constexpr uint64_t kPerGroup = kBlocksPerGroup * kPerBlock;
    struct Group {
      std::atomic<bool> ready{false};
      std::vector<Row> rows;
    };
    Table(uint64_t offset_in, uint64_t count_in)
        : offset(offset_in), count(count_in), groups((count_in + kPerGroup - 1) / kPerGroup) {}
    const Row& at(uint64_t row) const { return groups[row / kPerGroup].rows[row % kPerGroup]; }

    const uint64_t offset;  // in the root
    const uint64_t count;
    std::vector<Group> groups;
  };
  using Packs = Table<format::SealedRef, format::kPacksPerBlock>;
  using PartPacks = Table<uint32_t, format::kPartPacksPerBlock>;

  // Reads the group of `row` with `decode` unless it is there.
  template <typename AnyTable, typename BytesOf, typename Decode>
  Status need_row(AnyTable& table, uint64_t row, const BytesOf& bytes_of, const Decode& decode)
      CAISSON_EXCLUDES(mutex_);
  Status need_pack(uint64_t index);
  Status need_part_pack(uint64_t row);

  ObjectReads* const reads_;  // null where everything is here
  const format::SealedRef sealed_;
  const format::Root& root_;
  const std::string what_;
  const std::vector<uint64_t> first_of_part_;  // row of each part's first pack
  Packs packs_;
  PartPacks part_packs_;
  Mutex mutex_;  // of those that make a group ready
};

// A root, checked against `sealed`, and what of its tables came with the first read.
struct OpenRoot {
  format::Root root;
  ByteVector tables;  // all of them, or empty
};
Result<OpenRoot> read_root_head(ObjectReads& reads, const format::SealedRef& sealed);

}  // namespace caisson

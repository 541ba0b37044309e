// What a crash can leave on the disk. From a starting image and the record of a SimFileSystem it
// walks over every prefix of the record, and at each builds the disks that the platform allows:
//
//  - what was synced is there: a file's bytes and size after its sync, a directory's names after
//  its;
//  - of everything else each effect is there or not, independently: every single write, size
//  change,
//    creation, link, removal; a rename whole or not at all, and durable with either directory;
//  - a write that is not synced may have reached the disk sector by sector, in any pattern; a
//  sector
//    that it did not reach reads as before, or, where nothing had been written, as zeros or as some
//    other file's old bytes;
//  - after a failed sync of a file its bytes stay undecided for ever, whatever a later sync says:
//    the kernel has forgotten that they were dirty. Names stay undecided until their directory's
//    sync succeeds; a journal that could not be written refuses every later sync, too.
//
// That is more than any one kernel does, on purpose. Thread-compatible.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/sim_file_system.h"

namespace caisson::sim {

struct CrashLimits {
  uint32_t subset_max = 5;  // all subsets of up to so many undecided effects
  uint32_t torn = 2;        // more with torn writes, where a write is undecided
  uint32_t recent = 4;      // beyond subset_max: each of the latest alone kept, alone lost
  uint32_t samples = 6;     // and so many random choices
};

class CrashStates {
 public:
  CrashStates(Image base, History history, const CrashLimits& limits, uint64_t seed);

  size_t prefixes() const { return history_.size() + 1; }
  // Goes to the point after the first `prefix` operations. REQUIRES: not before where it stands.
  void advance_to(size_t prefix);
  size_t prefix() const { return prefix_; }
  // The marks that came before this point, in order.
  const std::vector<uint64_t>& marks() const { return marks_; }
  // How many disks are tried here, and one of them: 0 has nothing that was not synced, 1 (where
  // there is one) everything. The same arguments always give the same disk.
  uint32_t variants() const;
  Image build(uint32_t variant) const;
  // The operation that ends this prefix, for messages.
  std::string describe() const;

 private:
  struct Undecided {
    const Effect* effect;
    bool forgotten;  // by a failed sync
  };
  enum class Fate : uint8_t { kLost, kKept, kTorn };
  void settle_file(NodeId node);
  void settle_directory(NodeId node);
  void forget(NodeId node);
  bool has_data() const;
  Fate fate(uint32_t variant, size_t index, std::mt19937_64& random) const;
  void tear(Image& image, const Effect& effect, std::mt19937_64& random) const;

  const History history_;
  const CrashLimits limits_;
  const uint64_t seed_;
  Image durable_;
  size_t prefix_ = 0;
  std::vector<Undecided> undecided_;
  std::vector<uint64_t> marks_;
  std::vector<const Effect*> written_;  // every kData so far: where stale sectors come from
};

}  // namespace caisson::sim

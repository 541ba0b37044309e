// Step 3 of the commit: the records of all rank parts, brought together by name. They stay encoded,
// as the parts have them, until they are written, because a save may have a million small tensors,
// and what each costs here is spent while the device has nothing to do: some 40 bytes beside the
// record's own. Used by commit.cc. Thread-compatible.
#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "engine/manifest.h"

namespace caisson {

class MergedRecords {
 public:
  // Those of the next rank.
  Status add(uint32_t rank, PartReader& part);
  // Sorts them by name, and checks that every alias is of a tensor. Call once, behind the last add.
  Status finish();

  uint64_t shards() const { return shards_; }

  // A tensor of the checkpoint. Where one rank holds all of it, `encoded` is its record as it shall
  // stand in the merged directory; else that is empty, and `record` has the shards of all ranks.
  struct Tensor {
    std::string_view name;
    Bytes encoded;
    const TensorRecord* record = nullptr;
  };
  // By name. kInvalidArgument when records of one tensor do not agree on element type, shape, kind
  // or tile, naming the ranks. Stops at the first Status that is not ok.
  Status for_each(const std::function<Status(const Tensor&)>& visit) const;

 private:
  struct PartRecord {
    std::string_view name;  // in encoded
    Bytes encoded;          // in kept_
    uint32_t rank = 0;
    bool stands = false;  // in the merged directory as it does in the part's, if it is the only one
  };
  Bytes keep(Bytes encoded);
  const PartRecord* find(std::string_view name) const;

  std::vector<ByteVector> kept_;
  std::vector<PartRecord> records_;
  std::vector<PartRecord> aliases_;
  uint64_t shards_ = 0;
};

}  // namespace caisson

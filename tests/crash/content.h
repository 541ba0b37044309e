// The checkpoints that crash tests save: a few small tensors of every storage form (a part's inline
// data, packed raw, packed zstd, shared with the parent, alias, blob), with contents that follow
// from a version number. Pure; thread-compatible.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "caisson/store.h"
#include "io/base/bytes.h"

namespace caisson::crash {

// Versions from here on also have tensors that are stored as planes, twins and deltas.
inline constexpr uint32_t kCodedVersions = 100;

class Content {
 public:
  explicit Content(uint32_t version);
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  uint32_t version() const { return version_; }
  // Everything, from one rank.
  SaveInput input() const;
  // What rank `rank` of `ranks` contributes: rows of the weights, a share of the replicated
  // tensors; blobs and aliases come from rank 0.
  struct Part {
    std::vector<TensorShard> tensors;
    std::vector<BlobView> blobs;
    std::vector<Alias> aliases;
    SaveInput input() const { return {tensors, blobs, aliases}; }
  };
  Part part(uint32_t rank, uint32_t ranks) const;

 private:
  friend Status restore_tensors(Store& store, const std::string& name,
                                const std::vector<uint32_t>& versions, std::string* wrong);
  friend std::string verify_checkpoint(Store& store, const std::string& name,
                                       const std::vector<uint32_t>& versions, uint32_t* found);
  struct Tensor {
    TensorSpec spec;
    ByteVector bytes;
  };
  void add_coded();

  uint32_t version_;
  std::vector<Tensor> tensors_;
  ByteVector blob_;
  Part whole_;
};

// Restores the tensors of `name` in one call; what differs from each of `versions` is told in
// *wrong.
Status restore_tensors(Store& store, const std::string& name, const std::vector<uint32_t>& versions,
                       std::string* wrong);
// Restores all of `name` and compares it with each of `versions`. Empty when it equals one, and
// then *found says which; otherwise what is wrong.
std::string verify_checkpoint(Store& store, const std::string& name,
                              const std::vector<uint32_t>& versions, uint32_t* found = nullptr);

}  // namespace caisson::crash

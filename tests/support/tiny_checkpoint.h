// Writes small checkpoints object by object with the format's encoders, without the save path: for
// tests of readers, which then can have any shards, replicas and damage they want. Deterministic.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine/format/directory.h"
#include "engine/format/root.h"
#include "io/object_store.h"

namespace caisson::sim {

struct TinyShard {
  uint32_t rank = 0;
  Box box;
  Replica replica;
  bool chosen_grid = false;  // the pieces that a save would choose, not the tiles as they are
};

struct TinyTensor {
  TensorSpec spec;
  ByteVector content;  // the whole tensor, row-major
  Shape tile;
  std::vector<TinyShard> shards;
  TensorKind kind = TensorKind::kTensor;
  std::string alias_of;
};

struct TinyOptions {
  std::string run = "run";
  uint64_t step = 1;
  uint8_t save = 1;  // tells the objects of several checkpoints apart
  uint8_t codec = 0;
  uint32_t inline_bytes_max = 16;
  size_t chunks_per_segment = 3;
  size_t segments_per_pack = 2;
};

// Pseudo-random content of the whole tensor, in runs so that codecs gain; one shard of rank 0.
TinyTensor random_tensor(std::string name, DType dtype, const std::vector<uint64_t>& shape,
                         const std::vector<uint64_t>& tile, uint64_t seed);
TinyTensor tiny_blob(std::string name, std::string_view content);
TinyTensor tiny_alias(std::string name, std::string target);

// The root's SealedRef, as a commit record would quote it.
format::SealedRef write_tiny_checkpoint(ObjectStore& objects, std::vector<TinyTensor> tensors,
                                        const TinyOptions& options = {});

}  // namespace caisson::sim

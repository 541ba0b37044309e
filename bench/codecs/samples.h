// What the codecs are measured on: the tensors of a safetensors file by kind, laid one behind the
// other until no cache holds them, cut into chunks as a save cuts them. Tensors named model.*,
// master.*, exp_avg.* and exp_avg_sq.* (bench/train_state.py) are kinds of their own; a master gets
// the model's bf16 tensor of the same name as its base.
#pragma once

#include <string>
#include <vector>

#include "caisson/result.h"
#include "caisson/tensor.h"
#include "compression/codec.h"
#include "io/base/buffer.h"

namespace caisson::bench {

struct SampleChunk {
  uint64_t begin = 0, bytes = 0;
  uint64_t base_begin = 0, base_bytes = 0;
};

struct Sample {
  std::string kind;
  DType dtype;
  uint64_t state_bytes = 0;  // of this kind in the file, each tensor once
  AlignedBuffer raw;
  AlignedBuffer base;  // empty: no base
  uint64_t raw_bytes = 0;
  std::vector<SampleChunk> chunks;  // they cover raw

  ElementFormat format() const {
    return {.code = static_cast<uint8_t>(dtype.code), .bits = dtype.bits};
  }
  Bytes raw_of(const SampleChunk& chunk) const {
    return raw.bytes().subspan(chunk.begin, chunk.bytes);
  }
  Bytes base_of(const SampleChunk& chunk) const {
    return base.bytes().subspan(chunk.base_begin, chunk.base_bytes);
  }
};

// One sample for each kind and element type of the file, of at least `bytes_min`. With an anchor,
// another file of the same tensors, only tensors that both have, and theirs are the bases.
Result<std::vector<Sample>> load_samples(const std::string& path, const std::string& anchor,
                                         uint64_t bytes_min);

}  // namespace caisson::bench

// What the golden store of version 1 holds, made from nothing but arithmetic: the maker saves it
// and the test compares it with what a restore gives, for ever. Never change a line of
// golden_tensors.cc.
#pragma once

#include <string>
#include <vector>

#include "caisson/tensor.h"
#include "io/base/bytes.h"

namespace caisson::testing {

struct GoldenTensor {
  TensorSpec spec;
  ByteVector bytes;
  bool blob = false;
  std::string alias_of;  // then without bytes of its own
};
struct GoldenCheckpoint {
  std::string name;
  std::vector<GoldenTensor> tensors;
};

// "golden/1" and "golden/2" share all but one tensor; "sharded/7" is by two ranks.
std::vector<GoldenCheckpoint> golden_checkpoints();

}  // namespace caisson::testing

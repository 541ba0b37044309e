// What the golden store of codec 6 holds: the tensors of golden_coded.h with rows that are zero.
// Never change a line of golden_sparse.cc.
#pragma once

#include "tests/golden/golden_tensors.h"

namespace caisson::testing {

// "sparse/1" by auto: sparse, twins whose bases are that, and zstd for the integers. "sparse/2" by
// sparse alone.
std::vector<GoldenCheckpoint> sparse_checkpoints();

}  // namespace caisson::testing

// What the golden store of codecs holds, made from nothing but arithmetic, like golden_tensors.h:
// numbers whose exponents are few, so that every codec has something to do. Never change a line of
// golden_coded.cc.
#pragma once

#include "tests/golden/golden_tensors.h"

namespace caisson::testing {

// "coded/1" by auto: planes, twins, zstd. "coded/2" by entropy. "coded/3" by auto again, its bf16
// weights and integers as deltas against coded/2, of which they differ here and there.
std::vector<GoldenCheckpoint> coded_checkpoints();

}  // namespace caisson::testing

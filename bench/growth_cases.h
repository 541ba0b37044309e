// How the time of a save grows with what it is made of. `caisson bench --metadata` has more of it,
// without payload and up to 10^7 tiles.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_growth_shards();
std::unique_ptr<Case> make_growth_parts();

}  // namespace caisson::bench

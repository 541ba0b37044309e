// Cases of several processes at once on one device.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_save_ranks();
std::unique_ptr<Case> make_reshard();

}  // namespace caisson::bench

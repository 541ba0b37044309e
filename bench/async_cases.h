// What a training step notices of a save that runs beside it.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_blocking();
std::unique_ptr<Case> make_interference();

}  // namespace caisson::bench

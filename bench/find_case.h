// One tensor out of a large store, from nothing: opened anew, no page of it cached.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_find();

}  // namespace caisson::bench

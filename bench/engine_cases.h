// The same work without io_uring: threads that call pread and pwrite, as in most containers.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_threads();

}  // namespace caisson::bench

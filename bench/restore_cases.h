// Cases of one process that restores, and what it is compared with.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_restore();
std::unique_ptr<Case> make_restore_unaligned();
std::unique_ptr<Case> make_restore_untouched();
std::unique_ptr<Case> make_restore_beside();
std::unique_ptr<Case> make_mapped();

}  // namespace caisson::bench

// Cases of one process that saves, and what it is compared with.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_save();
std::unique_ptr<Case> make_save_first();
std::unique_ptr<Case> make_save_unaligned();
std::unique_ptr<Case> make_save_columns();
std::unique_ptr<Case> make_save_small();
std::unique_ptr<Case> make_save_large();
std::unique_ptr<Case> make_save_confined();
std::unique_ptr<Case> make_resave();
std::unique_ptr<Case> make_buffered();

}  // namespace caisson::bench

// Cases on a real training state, with the codecs on: caisson bench --state FILE, which
// bench/train_state.py makes. See case.h.
#pragma once

#include <memory>

#include "bench/case.h"

namespace caisson::bench {

std::unique_ptr<Case> make_state_save();
std::unique_ptr<Case> make_state_save_two();
std::unique_ptr<Case> make_state_save_raw();
std::unique_ptr<Case> make_state_restore();
std::unique_ptr<Case> make_state_restore_untouched();
// On the group's incompressible tensors: what the codecs cost where they can gain nothing.
std::unique_ptr<Case> make_save_auto();

}  // namespace caisson::bench

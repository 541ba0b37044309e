// Caisson with one durability step taken out, one mutant for each step. The steps are taken out of
// the record of a workload, at the seam to the operating system: the product code is the same. A
// crash test that does not notice a mutant does not test that step. Pure; thread-compatible.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/support/sim_file_system.h"

namespace caisson::crash {

struct DurabilityMutant {
  std::string name;
  std::function<sim::History(const sim::History&)> change;
  bool link_replaces = false;
  // A step that is not there for safety: its loss must cost nothing, and the test shows that.
  bool harmless = false;
};
const std::vector<DurabilityMutant>& durability_mutants();

}  // namespace caisson::crash

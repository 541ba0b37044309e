// What crash, fault and mutant tests do to a store. Each workload is a short life of a store in one
// process or several; every step goes through World, which notes what was acknowledged. Pure but
// for the World; thread-compatible.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/crash/world.h"

namespace caisson::crash {

struct Workload {
  std::string name;
  // Stops at the first error and returns it; without faults it is ok.
  std::function<Status(World&)> run;
};
const std::vector<Workload>& workloads();
const Workload& workload(const std::string& name);

// What an operator's machine does after a crash: open, save, give up something old, gc, save.
Status recover(World& world, uint32_t generation);

}  // namespace caisson::crash

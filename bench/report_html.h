// A bench report as one HTML page that needs nothing else: bars against the device limit with their
// spread, every target, every figure, the machine. Pure.
#pragma once

#include <string>

#include "bench/bench_run.h"

namespace caisson::bench {

std::string html_of(const BenchReport& report);

// A figure with three digits, whatever its size: for people.
std::string figure(double value);

}  // namespace caisson::bench

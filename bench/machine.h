// The machine in words, and what the process used: for reports. Linux only. Thread-safe.
#pragma once

#include <cstdint>
#include <string>

namespace caisson::bench {

// "AMD EPYC, 2 cores, 23 GiB, Linux 6.1".
std::string machine_words();
// User and system seconds of this process so far, all threads.
double cpu_seconds();
// Resident bytes now; the kernel's peak counter starts anew from here.
uint64_t restart_memory_peak();
// Highest resident bytes since restart_memory_peak().
uint64_t memory_peak();

}  // namespace caisson::bench

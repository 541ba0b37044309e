// The machine in words, and what this process used: for reports. Linux only. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace caisson::bench {

// "AMD EPYC, 2 cores, 23 GiB, Linux 6.1".
std::string machine_words();
// User and system seconds of this process so far, all threads, the kernel's workers for it
// included.
double cpu_seconds();
// Resident bytes now; the kernel's peak counter starts anew from here.
uint64_t restart_memory_peak();
// Highest resident bytes since restart_memory_peak().
uint64_t memory_peak();
uint64_t memory_now();
uint64_t address_space_now();
// Bytes that this process caused to be fetched from storage so far, direct reads included.
uint64_t storage_bytes_read();

// What a section of a program took: from construction to stop(), this process alone.
struct Usage {
  double seconds = 0;
  double cpu_seconds = 0;
  int64_t peak_bytes = 0;      // highest resident bytes, less those at the start
  int64_t retained_bytes = 0;  // resident bytes at the end, less those at the start
};
class Stopwatch {
 public:
  Stopwatch()
      : resident_(restart_memory_peak()),
        cpu_(bench::cpu_seconds()),
        start_(std::chrono::steady_clock::now()) {}
  Usage stop() const;

 private:
  uint64_t resident_;
  double cpu_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace caisson::bench

#include "bench/machine.h"

#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <string_view>
#include <thread>

namespace caisson::bench {

namespace {

// The number in the line "<field>: <number>" of a file below /proc/self.
uint64_t number_of_self(const char* file, std::string_view field) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with(field)) {
      return std::strtoull(line.c_str() + field.size() + 1, nullptr, 10);
    }
  }
  return 0;
}

uint64_t memory_of_self(std::string_view field) {
  return number_of_self("/proc/self/status", field) * 1024;  // given in kB
}

}  // namespace

std::string machine_words() {
  std::string model = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (!line.starts_with("model name")) continue;
    model = line.substr(line.find(':') + 2);
    break;
  }
  utsname kernel{};
  ::uname(&kernel);
  const auto pages = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES));
  const uint64_t gib = (pages * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE))) >> 30;
  return model + ", " + std::to_string(std::thread::hardware_concurrency()) + " cores, " +
         std::to_string(gib) + " GiB, Linux " + kernel.release;
}

double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

uint64_t restart_memory_peak() {
  std::ofstream("/proc/self/clear_refs") << "5";
  return memory_of_self("VmRSS");
}

uint64_t memory_peak() { return memory_of_self("VmHWM"); }

uint64_t memory_now() { return memory_of_self("VmRSS"); }

uint64_t address_space_now() { return memory_of_self("VmSize"); }

uint64_t storage_bytes_read() { return number_of_self("/proc/self/io", "read_bytes"); }

Usage Stopwatch::stop() const {
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start_;
  const double cpu = bench::cpu_seconds() - cpu_;
  const auto beyond = [this](uint64_t bytes) {
    return static_cast<int64_t>(bytes) - static_cast<int64_t>(resident_);
  };
  return {taken.count(), cpu, beyond(memory_peak()), beyond(memory_now())};
}

}  // namespace caisson::bench

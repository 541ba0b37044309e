// Who this process is, and whether another one is certainly gone. Reads /proc. Thread-safe.
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>

#include "engine/log.h"

namespace caisson {

namespace {

// The start time in clock ticks: field 22 of /proc/<pid>/stat, where field 2 is a name that may
// hold blanks and parentheses. Nullopt when there is no such process (or it cannot be seen).
std::optional<uint64_t> start_ticks(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::string field;
  for (int number = 3; number <= 22; ++number) {
    if (!(fields >> field)) return std::nullopt;
  }
  uint64_t ticks = 0;
  const auto parsed = std::from_chars(field.data(), field.data() + field.size(), ticks);
  if (parsed.ec != std::errc()) return std::nullopt;
  return ticks;
}

// The boot, and within it the pid namespace: a pid says nothing outside of its own.
std::string boot_and_namespace() {
  std::string boot;
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  if (!std::getline(file, boot)) return {};
  std::array<char, 64> link{};
  const ssize_t bytes = ::readlink("/proc/self/ns/pid", link.data(), link.size());
  if (bytes <= 0) return {};
  return boot + " " + std::string(link.data(), static_cast<size_t>(bytes));
}

// A /proc of another pid namespace, as sandboxes have it, shows other processes under our pids.
bool proc_is_ours() {
  std::array<char, 24> link{};
  const ssize_t bytes = ::readlink("/proc/self", link.data(), link.size());
  return bytes > 0 &&
         std::string(link.data(), static_cast<size_t>(bytes)) == std::to_string(::getpid());
}

}  // namespace

format::WriterInfo this_process() {
  format::WriterInfo self;
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) == 0) self.host = host.data();
  self.boot_id = boot_and_namespace();
  self.pid = static_cast<uint64_t>(::getpid());
  self.pid_start_ticks = proc_is_ours() ? start_ticks("self").value_or(0) : 0;
  self.unix_ns = system_clock().unix_ns();
  return self;
}

bool is_provably_dead(const format::WriterInfo& writer) {
  const format::WriterInfo self = this_process();
  // Anything that is not known is no proof; /proc must show at least ourselves.
  if (self.boot_id.empty() || self.pid_start_ticks == 0 || writer.pid == 0 ||
      writer.pid_start_ticks == 0 || writer.boot_id != self.boot_id || writer.host != self.host) {
    return false;
  }
  const std::optional<uint64_t> now = start_ticks(std::to_string(writer.pid));
  if (now) return *now != writer.pid_start_ticks;  // another process has the pid
  // hidepid mounts hide other people's processes: absence counts only if the kernel agrees.
  return ::access(("/proc/" + std::to_string(writer.pid)).c_str(), F_OK) != 0 &&
         ::kill(static_cast<pid_t>(writer.pid), 0) != 0 && errno == ESRCH;
}

}  // namespace caisson

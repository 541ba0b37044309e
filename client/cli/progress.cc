// See progress.h.
#include "client/cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "client/cli/text.h"

namespace caisson::cli {
namespace {

constexpr std::string_view kClearLine = "\r\033[K";

bool is_wanted(const Session& session) {
  return !session.globals.json && !session.globals.quiet && ::isatty(STDERR_FILENO) == 1;
}

}  // namespace

ProgressMeter::ProgressMeter(const Session& session, std::string label)
    : label_(std::move(label)), shown_(is_wanted(session)) {}

ProgressMeter::~ProgressMeter() {
  const MutexLock lock(mutex_);
  if (on_screen_) fmt::print(stderr, "{}", kClearLine);
}

double ProgressMeter::seconds() const {
  return std::chrono::duration<double>(Clock::now() - started_).count();
}

void ProgressMeter::update(const Progress& now) {
  if (!shown_) return;
  const MutexLock lock(mutex_);
  const Clock::time_point time = Clock::now();
  if (on_screen_ && time - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = time;
  on_screen_ = true;
  const double spent = seconds();
  std::string line =
      fmt::format("{}{}  {} of {}  {}  {}", kClearLine, label_, human_bytes(now.bytes_done),
                  human_bytes(now.bytes_total), percent(now.bytes_done, now.bytes_total),
                  human_rate(now.bytes_done, spent));
  if (now.bytes_done > 0 && now.bytes_done < now.bytes_total && spent > 0.5) {
    const double left = spent * static_cast<double>(now.bytes_total - now.bytes_done) /
                        static_cast<double>(now.bytes_done);
    line += fmt::format("  {} left", human_seconds(left));
  }
  fmt::print(stderr, "{}", line);
  std::fflush(stderr);
}

}  // namespace caisson::cli

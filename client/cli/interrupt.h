// Ctrl-C and SIGTERM as a stop request, so that a save or an export ends in order: the first asks,
// the second ends the process. Made once, first thing in main, before any thread.
#pragma once

#include <stop_token>
#include <thread>

namespace caisson::cli {

class InterruptWatch {
 public:
  InterruptWatch();
  ~InterruptWatch();
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

  std::stop_token token() const { return source_.get_token(); }

 private:
  std::stop_source source_;
  std::jthread watcher_;
};

}  // namespace caisson::cli

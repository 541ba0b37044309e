// --trace FILE of every verb: what the stages of its saves and restores did, rank processes
// included. main.cc makes one and writes it at the end; ranks.cc carries the children's part.
// Thread-compatible.
#pragma once

#include <memory>
#include <string>

#include "caisson/result.h"
#include "caisson/trace.h"
#include "client/cli/command.h"

namespace caisson::cli {

class TraceFile {
 public:
  // Of a rank process, whose events travel over a pipe.
  static constexpr uint64_t kRankEventsMax = 1u << 18;

  // Nothing is recorded until this is called.
  void start(uint64_t events_max = Trace::kEventsMax) {
    trace_ = std::make_shared<Trace>(events_max);
  }
  const std::shared_ptr<Trace>& trace() const { return trace_; }  // null: not started

  // This process's events, and those that were added.
  Json events() const;
  void add(const Json& events);  // of another process
  Status write(const std::string& path) const;

 private:
  std::shared_ptr<Trace> trace_;
  Json others_ = Json::array();
};

}  // namespace caisson::cli

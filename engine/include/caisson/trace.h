// What the stages of saves and restores did and when, as a picture: one row a worker and stage, and
// the bytes in flight beside them. The stage that starves is the one with gaps, the one that holds
// the others up is the one without. Hand one to StoreOptions, then write to_json() to a file, which
// Perfetto and chrome://tracing open.
//
// Thread-safe. Costs some tens of nanoseconds a span, a span is at least a tile. Bounded: events
// beyond events_max are counted, not kept.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace caisson {

class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  static constexpr uint64_t kEventsMax = 1u << 20;  // of 40 bytes
  explicit Trace(uint64_t events_max = kEventsMax);
  ~Trace();
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;

  // A row of the picture; equal names are one row. Rows are drawn in the order of their names.
  uint32_t row(std::string_view name);
  // `row` did something to `bytes` bytes (0: not told) from `begin` to `end`. `what` is a literal.
  void span(uint32_t row, const char* what, Clock::time_point begin, Clock::time_point end,
            uint64_t bytes);
  // From now on the level drawn in `row` is `value`.
  void level(uint32_t row, uint64_t value);

  // The Trace Event Format: {"traceEvents": [...]}, times in microseconds of the steady clock, so
  // that the events of several processes of one machine go into one file as they are.
  std::string to_json() const;
  uint64_t dropped() const;  // events beyond events_max

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

// A span from construction to destruction. `trace` may be null: then it costs a branch.
class TraceSpan {
 public:
  TraceSpan(Trace* trace, uint32_t row, const char* what, uint64_t bytes = 0)
      : trace_(trace), row_(row), what_(what), bytes_(bytes) {
    if (trace_ != nullptr) begin_ = Trace::Clock::now();
  }
  ~TraceSpan() {
    if (trace_ != nullptr) trace_->span(row_, what_, begin_, Trace::Clock::now(), bytes_);
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  Trace* const trace_;
  const uint32_t row_;
  const char* const what_;
  const uint64_t bytes_;
  Trace::Clock::time_point begin_{};
};

}  // namespace caisson

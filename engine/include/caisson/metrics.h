// What saves and restores of this process have done so far, as counters and histograms for a
// monitoring system: bytes by stage, dedup hits, codec decisions, queue depths, seconds, errors,
// memory. docs/operations.md lists every name. Hand one to StoreOptions, to several Stores if you
// like, and give to_prometheus() to whoever asks: an HTTP handler, or a file for a collector.
//
// Thread-safe. Counting costs some nanoseconds a chunk; nothing is allocated after construction.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace caisson {

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // Prometheus' text format 0.0.4. Each number is read by itself: those of a save in progress may
  // be some chunks apart.
  std::string to_prometheus() const;
  // The number that to_prometheus() has for one series, named as it stands there, labels included:
  // `caisson_save_bytes_total{stage="stored"}`. Nothing when there is no such series.
  std::optional<double> value(std::string_view series) const;

  struct State;  // what the engine counts with (engine/metrics.h)
  State& state() const { return *state_; }

 private:
  const std::unique_ptr<State> state_;
};

}  // namespace caisson

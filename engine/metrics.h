// The engine's side of caisson/metrics.h: everything that is counted, by name. A family (one name
// in the text) is one member here and one line of the list in metrics.cc. Thread-safe; every number
// is an atomic of its own.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "caisson/metrics.h"
#include "caisson/status.h"
#include "engine/dedup.h"

namespace caisson {

class Counter {
 public:
  void add(uint64_t amount = 1) { value_.fetch_add(amount, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

// The most that was ever seen.
class HighWater {
 public:
  void raise(uint64_t value) {
    uint64_t known = value_.load(std::memory_order_relaxed);
    while (known < value && !value_.compare_exchange_weak(known, value)) {
    }
  }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Histogram {
 public:
  // `bounds` rise, and outlive the histogram.
  explicit Histogram(std::span<const uint64_t> bounds)
      : bounds_(bounds), counts_(bounds.size() + 1) {}
  void observe(uint64_t value);
  void observe(std::chrono::steady_clock::duration time);  // in nanoseconds

  std::span<const uint64_t> bounds() const { return bounds_; }
  std::span<Counter> counts() { return counts_; }  // of each bucket alone; the last is unbounded
  Counter& sum() { return sum_; }

 private:
  const std::span<const uint64_t> bounds_;
  std::vector<Counter> counts_;
  Counter sum_;
};

enum class Operation : uint8_t { kSave, kRestore };

struct Metrics::State {
  static constexpr size_t kCodecs = 7;      // CodecId
  static constexpr size_t kReasons = 9;     // CodecReason
  static constexpr size_t kSources = 5;     // ChunkSource
  static constexpr size_t kOperations = 2;  // Operation
  static constexpr size_t kStatusCodes = 11;

  State();

  Counter save_raw_bytes, save_deduplicated_bytes, save_stored_bytes, save_written_bytes;
  Counter restore_read_bytes, restore_stored_bytes, restore_raw_bytes;
  std::array<Counter, kSources> save_chunks;
  std::array<Counter, kCodecs> codec_chunks, codec_raw_bytes, codec_stored_bytes;
  std::array<Counter, kReasons> codec_reason_raw_bytes;
  Histogram write_depth, read_depth;
  Histogram save_seconds, stall_seconds, part_seconds, commit_seconds, restore_seconds;
  std::array<Counter, kOperations * kStatusCodes> errors;
  Counter retried_chunks;
  Counter memory_yields;
  HighWater memory_peak_bytes, memory_max_bytes;

  void count_error(Operation operation, const Status& status);

  // Every number in a fixed order: a rank process hands its own to the process that started it.
  std::vector<uint64_t> numbers();
  // Sums them up, of high-water marks the higher. REQUIRES: numbers() of the same version.
  void add(std::span<const uint64_t> numbers);

  // One series of the text; exactly one of the three is set.
  struct Series {
    std::string labels;  // `stage="raw"`, or none
    Counter* counter = nullptr;
    HighWater* high_water = nullptr;
    Histogram* histogram = nullptr;
  };
  struct Family {
    std::string name, help;
    double unit = 1;  // what one counted unit is in the text
    std::vector<Series> series;
  };
  std::vector<Family> families;
};

}  // namespace caisson

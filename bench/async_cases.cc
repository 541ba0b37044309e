#include "bench/async_cases.h"

#include <pthread.h>
#include <sched.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "bench/workbench.h"

namespace caisson::bench {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// How long save() itself takes, of lent and of staged tensors.
class BlockingCase final : public Case {
 public:
  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(source_, bench.source());
    CAISSON_ASSIGN_OR_RETURN(target_, bench.target());
    few_ = whole_tensors(*source_);
    many_ = small_tensors(*source_);
    return {};
  }

  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(const double few, blocked(bench, few_, false));
    add_lent(round, "lent, " + std::to_string(few_.size()) + " tensors", few, few_.size());
    CAISSON_ASSIGN_OR_RETURN(const double many, blocked(bench, many_, false));
    add_lent(round, "lent, " + std::to_string(many_.size()) + " tensors", many, many_.size());
    const auto start = Clock::now();
    for (size_t i = 0; i < few_.size(); ++i) {
      std::memcpy(target_->blocks()[i], source_->blocks()[i], kTensorBytes);
    }
    const double copy = seconds_since(start);
    CAISSON_ASSIGN_OR_RETURN(const double staged, blocked(bench, few_, true));
    round.add({.name = "staged / memcpy", .unit = "x", .better = Better::kLower, .target = 1.1},
              staged / copy);
    round.add({.name = "staged", .unit = "ms", .better = Better::kLower, .comparable = false},
              staged * 1e3);
    return {};
  }

 private:
  static void add_lent(Round& round, const std::string& name, double seconds, size_t tensors) {
    round.add({.name = name,
               .unit = "ms",
               .better = Better::kLower,
               .target = 1 + 1e-3 * static_cast<double>(tensors)},
              seconds * 1e3);
  }

  Result<double> blocked(Workbench& bench, std::span<const TensorShard> shards, bool stage) {
    source_->change(++step_);
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    SaveOptions options;
    options.codec = "raw";
    options.stage = stage;
    options.stop = bench.options().stop;
    const auto start = Clock::now();
    CAISSON_ASSIGN_OR_RETURN(PendingSave pending, store->save("blocking/" + std::to_string(step_),
                                                              {.tensors = shards}, options));
    const double seconds = seconds_since(start);
    CAISSON_RETURN_IF_ERROR(pending.wait());
    CAISSON_RETURN_IF_ERROR(bench.discard_packs());
    return seconds;
  }

  TensorMemory* source_ = nullptr;
  TensorMemory* target_ = nullptr;
  std::vector<TensorShard> few_, many_;
  uint64_t step_ = 0;
};

// The processors that this thread may use, one of which it gives away while this object lives;
// threads that it starts meanwhile keep off that one too.
class OtherProcessors {
 public:
  OtherProcessors() {
    CPU_ZERO(&all_);
    if (::pthread_getaffinity_np(::pthread_self(), sizeof all_, &all_) != 0) return;
    if (CPU_COUNT(&all_) < 2) return;
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &all_)) given_away_ = i;
    }
    cpu_set_t others = all_;
    CPU_CLR(given_away_, &others);
    ::pthread_setaffinity_np(::pthread_self(), sizeof others, &others);
  }
  ~OtherProcessors() {
    if (given_away_ >= 0) ::pthread_setaffinity_np(::pthread_self(), sizeof all_, &all_);
  }
  OtherProcessors(const OtherProcessors&) = delete;
  OtherProcessors& operator=(const OtherProcessors&) = delete;

  int given_away() const { return given_away_; }  // -1: there is only one

 private:
  cpu_set_t all_{};
  int given_away_ = -1;
};

// Multiplies and adds in cache, on one processor, and counts how often.
class ComputeLoop {
 public:
  explicit ComputeLoop(int processor)
      : thread_([this, processor](const std::stop_token& stop) {
          cpu_set_t one;
          CPU_ZERO(&one);
          CPU_SET(processor, &one);
          ::pthread_setaffinity_np(::pthread_self(), sizeof one, &one);
          std::array<float, 4096> values;
          values.fill(1.0F);
          while (!stop.stop_requested()) {
            for (float& value : values) value = value * 0.9999F + 1e-4F;
            sink_.store(values.front(), std::memory_order_relaxed);
            turns_.fetch_add(1, std::memory_order_relaxed);
          }
        }) {}

  // Turns a second while `work` runs.
  template <typename Work>
  Result<double> rate_during(Work&& work) {
    const uint64_t before = turns_.load(std::memory_order_relaxed);
    const auto start = Clock::now();
    CAISSON_RETURN_IF_ERROR(work());
    return static_cast<double>(turns_.load(std::memory_order_relaxed) - before) /
           seconds_since(start);
  }

 private:
  std::atomic<uint64_t> turns_{0};
  std::atomic<float> sink_{0};
  std::jthread thread_;  // last: it uses the others
};

class InterferenceCase final : public Case {
 public:
  Status run(Workbench& bench, Round& round) override {
    const OtherProcessors others;
    if (others.given_away() < 0) {
      return unsupported("there is one processor only, and nothing beside a save on it");
    }
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * source, bench.source());
    source->change(1000 + round.number);
    const std::vector<TensorShard> shards = whole_tensors(*source);
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    ComputeLoop loop(others.given_away());
    const auto quiet = [] {
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
      return ok_status();
    };
    CAISSON_ASSIGN_OR_RETURN(const double before, loop.rate_during(quiet));
    CAISSON_ASSIGN_OR_RETURN(const double during, loop.rate_during([&] {
      return save_whole(bench, *store, "beside/" + std::to_string(round.number), shards).status();
    }));
    CAISSON_ASSIGN_OR_RETURN(const double after, loop.rate_during(quiet));
    round.add({.name = "slow-down", .unit = "%", .better = Better::kLower, .target = 3.0},
              100 * (1 - during / ((before + after) / 2)));
    return bench.discard_packs();
  }
};

}  // namespace

std::unique_ptr<Case> make_blocking() { return std::make_unique<BlockingCase>(); }
std::unique_ptr<Case> make_interference() { return std::make_unique<InterferenceCase>(); }

}  // namespace caisson::bench

// Stages 3 to 6 of a restore: RestoreRun is what its workers share, restore_reads one worker, on
// the thread that calls it. Used by restore_pipeline.cc alone.
#pragma once

#include <atomic>
#include <chrono>
#include <span>
#include <string>

#include "caisson/metrics.h"
#include "caisson/options.h"
#include "caisson/trace.h"
#include "engine/object_reads.h"
#include "engine/restore_plan.h"
#include "engine/restore_request.h"
#include "io/base/buffer.h"
#include "io/base/sync.h"

namespace caisson {

// What the workers of one restore share: the reads left to do, the first failure, progress.
// Thread-safe.
class RestoreRun {
 public:
  RestoreRun(ObjectStore& objects_in, Manifest& manifest_in, const RestoreRequest& request_in,
             const RestorePlan& plan_in, const RestoreOptions& options, Trace* trace_in,
             Metrics* metrics_in)
      : objects(objects_in),
        manifest(manifest_in),
        request(request_in),
        plan(plan_in),
        name(manifest.root().run + "/" + std::to_string(manifest.root().step)),
        trace(trace_in),
        metrics(metrics_in),
        bases(objects_in),
        options_(options) {}

  // The next read to do, or null when there is none left or the restore has failed.
  const PlannedRead* next_read() {
    if (failed_.load(std::memory_order_relaxed)) return nullptr;
    const size_t i = next_.fetch_add(1, std::memory_order_relaxed);
    return i < plan.reads.size() ? &plan.reads[i] : nullptr;
  }

  // The first failure is the restore's.
  void fail(const Status& status) CAISSON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    if (first_failure_.ok()) first_failure_ = status;
    failed_.store(true, std::memory_order_relaxed);
  }
  Status status() CAISSON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return first_failure_;
  }

  Status check_stop() const {
    if (!options_.stop.stop_requested()) return ok_status();
    return cancelled("the restore of " + name + " was cancelled; its targets are not filled");
  }

  uint32_t next_worker() { return workers_.fetch_add(1, std::memory_order_relaxed); }

  std::span<const Placement> placements_of(const PlannedChunk& chunk) const {
    return std::span(plan.placements).subspan(chunk.first_placement, chunk.placements);
  }
  const TensorSpec& spec_of(const Placement& placement) const {
    return request.tensors[request.targets[placement.target].tensor].spec;
  }
  Box piece_of(const Placement& placement) const {
    const WantedTensor& tensor = request.tensors[request.targets[placement.target].tensor];
    const ShardRecord& shard = tensor.shards[placement.shard];
    return piece_at(shard.grid, shard.box, placement.piece);
  }

  void add_progress(const PlannedChunk& chunk) CAISSON_EXCLUDES(mutex_) {
    if (!options_.progress) return;
    uint64_t bits = 0;
    for (const Placement& placement : placements_of(chunk)) {
      const Box& wanted = request.targets[placement.target].memory.box;
      bits += intersect(piece_of(placement), wanted).elements() * spec_of(placement).dtype.bits;
    }
    MutexLock lock(mutex_);
    done_ += bits / 8;
    const auto now = std::chrono::steady_clock::now();
    if (done_ < request.raw_bytes && now - told_ < kProgressInterval) return;
    told_ = now;
    options_.progress({.bytes_done = done_, .bytes_total = request.raw_bytes});
  }

  // The object that a planned read or chunk names.
  const format::SealedRef& object(uint32_t index) const {
    return object_of(manifest.root(), manifest.packs(), index);
  }

  ObjectStore& objects;
  Manifest& manifest;
  const RestoreRequest& request;
  const RestorePlan& plan;
  const std::string name;
  Trace* const trace;      // may be null
  Metrics* const metrics;  // may be null
  ObjectReads bases;
  std::atomic<uint64_t> retried_chunks{0};

 private:
  static constexpr std::chrono::milliseconds kProgressInterval{100};

  const RestoreOptions& options_;
  std::atomic<size_t> next_{0};
  std::atomic<uint32_t> workers_{0};
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  Status first_failure_ CAISSON_GUARDED_BY(mutex_);
  uint64_t done_ CAISSON_GUARDED_BY(mutex_) = 0;
  std::chrono::steady_clock::time_point told_ CAISSON_GUARDED_BY(mutex_){};
};

// One worker: reads until none is left or the restore has failed; gives its own failure. `workers`
// of them share the budget. On return nothing is in flight and no memory is held.
Status restore_reads(RestoreRun& run, MemoryBudget& budget, uint32_t workers);

}  // namespace caisson

// Hands the units of one put (PlannedRun) out to workers, a batch of consecutive ones at a time,
// and takes the finished batches back in order, so that the part table does not depend on which
// worker was faster. Plans may be added while workers are at work on others. Used by
// save_pipeline.cc alone.
//
// Thread-safe. Bounded: nobody runs more than kAheadMax batches ahead of the oldest unfinished one;
// that one's worker never waits here, so the window always moves. The first failure stops everyone.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "caisson/options.h"
#include "engine/dedup.h"
#include "io/base/sync.h"

namespace caisson {

struct SavePlan;

// What became of a piece.
struct SavedPiece {
  uint64_t entry = 0;  // its place in the part's table
  PlacedChunk chunk;   // entry.pack == kPackInline: its bytes are next in inline_bytes
};

// Units [first, first + count) of a plan, and what became of their pieces.
struct SaveBatch {
  uint64_t index = 0;
  SavePlan* plan = nullptr;
  uint64_t first = 0;
  uint64_t count = 0;
  std::vector<SavedPiece> pieces;
  ByteVector inline_bytes;
  uint64_t raw_bytes = 0;
  uint64_t deduplicated_bytes = 0;
};

class SaveBatches {
 public:
  static constexpr uint64_t kBatchUnits = 16;
  static constexpr uint64_t kAheadMax = 64;

  // `sink` is called with every batch, in order, by one thread at a time.
  using Sink = std::function<Status(const SaveBatch&)>;
  explicit SaveBatches(Sink sink) : sink_(std::move(sink)) {}

  // More to hand out, after what was added before. Whoever adds calls close() behind the last one.
  void add(SavePlan* plan, uint64_t units) CAISSON_EXCLUDES(mutex_);
  void close() CAISSON_EXCLUDES(mutex_);
  // The next batch, as soon as there is one; false when nothing is left or somebody failed.
  bool claim(SaveBatch& batch) CAISSON_EXCLUDES(mutex_);
  void finish(SaveBatch&& batch) CAISSON_EXCLUDES(mutex_);
  // Waits until every batch is finished or somebody failed.
  Status wait_finished() CAISSON_EXCLUDES(mutex_);
  void fail(Status status) CAISSON_EXCLUDES(mutex_);
  Status status() const CAISSON_EXCLUDES(mutex_);

 private:
  struct Added {
    SavePlan* plan = nullptr;
    uint64_t units_left = 0;
    uint64_t next = 0;  // unit
  };

  const Sink sink_;
  mutable Mutex mutex_;
  CondVar moved_;
  Status error_ CAISSON_GUARDED_BY(mutex_);
  std::deque<Added> added_ CAISSON_GUARDED_BY(mutex_);  // not handed out yet
  bool closed_ CAISSON_GUARDED_BY(mutex_) = false;
  uint64_t claimed_ CAISSON_GUARDED_BY(mutex_) = 0;  // batches handed out
  uint64_t sunk_ CAISSON_GUARDED_BY(mutex_) = 0;     // batches given to the sink
  std::map<uint64_t, SaveBatch> early_ CAISSON_GUARDED_BY(mutex_);
};

}  // namespace caisson

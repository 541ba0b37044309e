// Hands the units of one put (PlannedRun) out to workers, a batch of consecutive ones at a time,
// and takes the finished batches back in order, so that the part table does not depend on which
// worker was faster. Used by save_pipeline.cc alone.
//
// Thread-safe. Bounded: nobody runs more than kAheadMax batches ahead of the oldest unfinished one;
// that one's worker never waits here, so the window always moves. The first failure stops everyone.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <vector>

#include "caisson/options.h"
#include "engine/dedup.h"
#include "io/base/sync.h"

namespace caisson {

// What became of a piece.
struct SavedPiece {
  uint64_t entry = 0;  // its place in the part's table
  PlacedChunk chunk;   // entry.pack == kPackInline: its bytes are next in inline_bytes
};

// Units [first, first + count) of the put, and what became of their pieces.
struct SaveBatch {
  uint64_t index = 0;
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
  SaveBatches(uint64_t units, Sink sink) : units_(units), sink_(std::move(sink)) {}

  // The next batch, or false when nothing is left or somebody failed.
  bool claim(SaveBatch& batch) CAISSON_EXCLUDES(mutex_);
  void finish(SaveBatch&& batch) CAISSON_EXCLUDES(mutex_);
  // Waits until every batch is finished or somebody failed.
  Status wait_finished() CAISSON_EXCLUDES(mutex_);
  void fail(Status status) CAISSON_EXCLUDES(mutex_);
  Status status() const CAISSON_EXCLUDES(mutex_);

 private:
  const uint64_t units_;
  const Sink sink_;
  mutable Mutex mutex_;
  CondVar moved_;
  Status error_ CAISSON_GUARDED_BY(mutex_);
  uint64_t claimed_ CAISSON_GUARDED_BY(mutex_) = 0;  // batches handed out
  uint64_t sunk_ CAISSON_GUARDED_BY(mutex_) = 0;     // batches given to the sink
  std::map<uint64_t, SaveBatch> early_ CAISSON_GUARDED_BY(mutex_);
};

}  // namespace caisson

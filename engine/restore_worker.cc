#include "engine/restore_worker.h"

#include <algorithm>
#include <deque>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "engine/chunk_reader.h"
#include "engine/metrics.h"
#include "engine/restore_memory.h"
#include "engine/verify_hint.h"
#include "io/base/check.h"

namespace caisson {

namespace {

// Over all workers. Bytes, not reads: small reads need more of them at once.
constexpr uint64_t kBytesInFlightMax = 64u << 20;
// A device may answer in bursts as long as its queue (a virtual disk does): so much of one may have
// arrived, not looked at yet, while as much as before is read already.
constexpr uint64_t kStagedArrivedMax = 16u << 20;
constexpr size_t kArrivedMax = 16;          // reads of one worker
constexpr uint32_t kReadsInFlightMax = 64;  // of one worker
// Finding the pages of a fresh arena can take longer than the reads into it, so a restore starts
// with few of them, which lose little of the device's rate, and takes more as it gets longer.
constexpr uint64_t kFreshBytesInFlight = 16u << 20;
constexpr uint64_t kFreshGrowthDivisor = 32;
constexpr size_t kOpenPacksMax = 16;  // of one worker, beside those with reads in flight

// The packs that one worker has open. Reads come sorted by pack, so few are enough.
class OpenPacks {
 public:
  explicit OpenPacks(RestoreRun& run) : run_(run) {}

  Result<std::shared_ptr<ObjectReader>> get(uint32_t object) {
    for (auto it = open_.begin(); it != open_.end(); ++it) {
      if (it->object != object) continue;
      open_.splice(open_.begin(), open_, it);
      return open_.front().reader;
    }
    Result<std::unique_ptr<ObjectReader>> reader = open_sealed(run_.objects, run_.object(object));
    if (!reader.ok()) {
      const Status& status = reader.status();
      if (status.code() != StatusCode::kCorruption) return status.with_context(run_.name);
      return corruption(run_.name + ": " + std::string(status.message()) +
                        verify_hint(run_.name, "structure"));
    }
    open_.push_front({object, std::shared_ptr<ObjectReader>(std::move(reader).value())});
    if (open_.size() > kOpenPacksMax) open_.pop_back();
    return open_.front().reader;
  }

 private:
  struct Open {
    uint32_t object;
    std::shared_ptr<ObjectReader> reader;
  };
  RestoreRun& run_;
  std::list<Open> open_;  // most recently used first
};

// A read in flight or arrived: what it is of, and what it fills: a buffer of the arena, or the
// place where the bytes are wanted.
struct ReadSlot {
  const PlannedRead* read = nullptr;
  MutableBytes into{};
  bool staged = true;
  std::shared_ptr<ObjectReader> reader{};
  Status status{};  // once it has arrived
};

class RestoreWorker {
 public:
  RestoreWorker(RestoreRun& run, MemoryBudget& budget, uint32_t workers)
      : run_(run),
        budget_(budget),
        workers_(workers),
        packs_(run),
        chunks_(run.bases, run.manifest.packs()) {
    if (run.trace == nullptr) return;
    const std::string rows = "restore worker " + std::to_string(run.next_worker()) + ": ";
    read_row_ = run.trace->row(rows + "3 read: waits");
    flight_row_ = run.trace->row(rows + "3 read: bytes in flight");
    decode_row_ = run.trace->row(rows + "4 decode");
    place_row_ = run.trace->row(rows + "5 verify, 6 place");
  }

  // Stages 3 to 6, over the reads that this worker gets. One thread keeps the queue full and
  // verifies and places what has arrived; destruction of the queue waits for what is in flight.
  Status work() {
    CAISSON_RETURN_IF_ERROR(prepare());
    CAISSON_RETURN_IF_ERROR(fill_queue());
    while (queue_->in_flight() > 0 || !arrived_.empty()) {
      CAISSON_RETURN_IF_ERROR(run_.check_stop());
      // 3 read: take all that has arrived, and refill its place before spending time on it.
      CAISSON_RETURN_IF_ERROR(take_arrived());
      const ReadSlot slot = std::move(arrived_.front());
      arrived_.pop_front();
      if (!slot.status.ok()) CAISSON_RETURN_IF_ERROR(read_again(slot));

      const auto chunks =
          std::span(run_.plan.chunks).subspan(slot.read->first_chunk, slot.read->chunks);
      for (const PlannedChunk& chunk : chunks) {
        // 4 decode, 5 verify, 6 place; a chunk that fails is read and tried once more.
        CAISSON_RETURN_IF_ERROR(finish_chunk(slot, chunk));
      }
      base_ = {};  // it may lie in what is given back now
      if (slot.staged) arena_.give(slot.into);
      CAISSON_RETURN_IF_ERROR(fill_queue());
    }
    return ok_status();
  }

 private:
  Status prepare();
  Status make_arena();
  Status fill_queue();
  Result<bool> submit(const PlannedRead& read);
  Status take_arrived();
  Result<IoCompletion> wait();
  void arrive(IoCompletion completion);
  void trace_in_flight() const;
  uint64_t staged_bytes_max() const;
  Status read_again(const ReadSlot& slot);
  Status finish_chunk(const ReadSlot& slot, const PlannedChunk& chunk);
  Status decode_verify_place(const PlannedChunk& chunk, Bytes stored);
  Status verify_and_place(const PlannedChunk& chunk, Bytes raw);
  Status chunk_failure(const PlannedChunk& chunk, const Status& why) const;

  RestoreRun& run_;
  MemoryBudget& budget_;
  const uint32_t workers_;
  OpenPacks packs_;
  ChunkReader chunks_;
  BufferPool pool_;    // one buffer: the arena
  ReadArena arena_;    // of the reads through a buffer
  bool warm_ = false;  // the arena has served before
  // Of the arena, where chunks are decoded that have no place of their own; the second one for
  // those with a base, which may be in the first.
  MutableBytes scratch_, based_scratch_;
  KnownChunk base_;  // the chunk before, if it has a twin
  std::vector<ReadSlot> slots_;
  std::vector<uint32_t> free_slots_;
  std::deque<ReadSlot> arrived_;       // not looked at yet
  const PlannedRead* next_ = nullptr;  // taken from the run, waits for room
  uint64_t bytes_in_flight_ = 0, staged_in_flight_ = 0, staged_done_ = 0;
  uint32_t read_row_ = 0, flight_row_ = 0, decode_row_ = 0, place_row_ = 0;  // of the trace
  std::unique_ptr<TransferQueue> queue_;  // last: destroyed before what it reads into
};

Status RestoreWorker::prepare() {
  const RestorePlan& plan = run_.plan;
  if (plan.staged_bytes > 0 || plan.decode_bytes_max > 0) CAISSON_RETURN_IF_ERROR(make_arena());
  const auto depth =
      static_cast<uint32_t>(std::min<uint64_t>(plan.reads.size(), kReadsInFlightMax));
  slots_.resize(depth);
  for (uint32_t i = depth; i > 0; --i) free_slots_.push_back(i - 1);
  CAISSON_ASSIGN_OR_RETURN(
      queue_, run_.objects.make_queue({.depth = depth, .registered_memory = pool_.warm_arena()}));
  return ok_status();
}

// One arena holds the reads in flight, the one that is worked on and the scratch of decoding: asked
// for at once, so that two restores never wait for each other's second half.
Status RestoreWorker::make_arena() {
  const RestorePlan& plan = run_.plan;
  const uint64_t read = align_up(plan.read_bytes_max, kReadAlignment);
  const uint64_t one_scratch = align_up(plan.decode_bytes_max, kReadAlignment);
  const uint64_t scratch = plan.has_bases ? 2 * one_scratch : one_scratch;
  const uint64_t share = budget_.bytes_max() / workers_;
  const uint64_t all = std::max(plan.staged_bytes, plan.read_bytes - plan.staged_bytes);
  uint64_t reads = std::min((kBytesInFlightMax + kStagedArrivedMax) / workers_, all) + read;
  if (reads + scratch > share) reads = share > scratch ? share - scratch : 0;
  reads = align_up(std::max(reads, 2 * read), kReadAlignment);
  CAISSON_ASSIGN_OR_RETURN(pool_,
                           BufferPool::create(budget_, reads + scratch, 1, Urgency::kUrgent));
  warm_ = !pool_.warm_arena().empty();
  arena_ = ReadArena(pool_.take());
  if (scratch > 0) scratch_ = arena_.take(scratch);
  if (plan.has_bases) {
    based_scratch_ = scratch_.subspan(one_scratch);
    scratch_ = scratch_.first(one_scratch);
  }
  return ok_status();
}

uint64_t RestoreWorker::staged_bytes_max() const {
  if (warm_) return kBytesInFlightMax / workers_;
  return std::min((kFreshBytesInFlight + staged_done_ / kFreshGrowthDivisor),
                  kBytesInFlightMax / workers_);
}

Status RestoreWorker::fill_queue() {
  while (!free_slots_.empty()) {
    if (next_ == nullptr) next_ = run_.next_read();
    if (next_ == nullptr) return ok_status();
    CAISSON_ASSIGN_OR_RETURN(const bool submitted, submit(*next_));
    if (!submitted) return ok_status();
    next_ = nullptr;
  }
  return ok_status();
}

// False when there is no room for it now: then something is in flight, or being worked on.
Result<bool> RestoreWorker::submit(const PlannedRead& read) {
  const auto exceeds = [&](uint64_t in_flight, uint64_t bytes_max) {
    return in_flight > 0 && in_flight + read.bytes > bytes_max;
  };
  if (exceeds(bytes_in_flight_, kBytesInFlightMax / workers_)) return false;
  ReadSlot slot{.read = &read};
  CAISSON_ASSIGN_OR_RETURN(slot.reader, packs_.get(read.object));
  if (read.in_place != nullptr) {
    slot.into = {read.in_place, read.bytes};
    slot.staged = !slot.reader->alignment().takes(read.offset, slot.into);
  }
  if (slot.staged) {
    if (pool_.buffer_bytes() == 0) CAISSON_RETURN_IF_ERROR(make_arena());
    if (exceeds(staged_in_flight_, staged_bytes_max())) return false;
    slot.into = arena_.take(read.bytes);
    if (slot.into.empty()) return false;
    staged_in_flight_ += read.bytes;
  }
  if (run_.metrics != nullptr) {
    run_.metrics->state().read_depth.observe(uint64_t{queue_->in_flight()});
  }
  const uint32_t tag = free_slots_.back();
  CAISSON_RETURN_IF_ERROR(
      queue_->submit_read(*slot.reader, read.offset, slot.into.first(read.bytes), tag));
  bytes_in_flight_ += read.bytes;
  trace_in_flight();
  free_slots_.pop_back();
  slots_[tag] = std::move(slot);
  return true;
}

// Whatever there is, waiting for something only where nothing has arrived. As much as that is then
// in flight again, and arrives when this has been dealt with.
Status RestoreWorker::take_arrived() {
  if (!arrived_.empty() && !queue_->ready()) return ok_status();
  while (arrived_.empty() || (queue_->ready() && arrived_.size() < kArrivedMax)) {
    CAISSON_ASSIGN_OR_RETURN(IoCompletion completion, wait());
    arrive(std::move(completion));
  }
  return fill_queue();
}

Result<IoCompletion> RestoreWorker::wait() {
  const TraceSpan span(run_.trace, read_row_, "wait for a read");
  return queue_->wait();
}

void RestoreWorker::trace_in_flight() const {
  if (run_.trace != nullptr) run_.trace->level(flight_row_, bytes_in_flight_);
}

void RestoreWorker::arrive(IoCompletion completion) {
  ReadSlot slot = std::exchange(slots_[completion.tag], {});
  slot.status = std::move(completion.status);
  free_slots_.push_back(static_cast<uint32_t>(completion.tag));
  bytes_in_flight_ -= slot.read->bytes;
  trace_in_flight();
  if (slot.staged) {
    staged_in_flight_ -= slot.read->bytes;
    staged_done_ += slot.read->bytes;
  }
  arrived_.push_back(std::move(slot));
}

// A device may fail once in passing; twice in the same place is a fault to be told.
Status RestoreWorker::read_again(const ReadSlot& slot) {
  const Status second = slot.reader->read(slot.read->offset, slot.into.first(slot.read->bytes));
  if (second.ok()) return ok_status();
  const std::string where = run_.name + ": " + slot.reader->key() + " at offset " +
                            std::to_string(slot.read->offset) + ": ";
  return {second.code(), where + std::string(second.message()) +
                             " (at first: " + std::string(slot.status.message()) + ")" +
                             verify_hint(run_.name, "checksums")};
}

Status RestoreWorker::finish_chunk(const ReadSlot& slot, const PlannedChunk& chunk) {
  const MutableBytes stored =
      slot.into.subspan(static_cast<size_t>(chunk.offset - slot.read->offset), chunk.stored_bytes);
  Status status = decode_verify_place(chunk, stored);
  if (status.code() == StatusCode::kCorruption) {
    // Memory, bus or device may have erred in passing: the second reading decides.
    base_ = {};
    status = slot.reader->read(chunk.offset, stored);
    if (status.ok()) status = decode_verify_place(chunk, stored);
    if (status.ok()) run_.retried_chunks.fetch_add(1, std::memory_order_relaxed);
  }
  if (!status.ok()) return chunk_failure(chunk, status);
  run_.add_progress(chunk);
  return ok_status();
}

Status RestoreWorker::decode_verify_place(const PlannedChunk& chunk, Bytes stored) {
  // 4 decode: nothing to do for raw bytes; into place where they are wanted in one piece.
  const StoredChunk form{.id = chunk.id,
                         .raw_bytes = chunk.raw_bytes,
                         .codec = chunk.codec,
                         .flags = chunk.flags,
                         .element = chunk.element};
  const bool has_base = (chunk.flags & format::kFlagHasBase) != 0;
  const MutableBytes scratch = chunk.in_place != nullptr
                                   ? MutableBytes(chunk.in_place, chunk.raw_bytes)
                               : has_base ? based_scratch_
                                          : scratch_;
  const auto decode = [&] {
    const TraceSpan span(chunk.is_stored_raw() ? nullptr : run_.trace, decode_row_, "decode",
                         chunk.raw_bytes);
    return chunks_.decode(form, stored, scratch, base_);
  };
  CAISSON_ASSIGN_OR_RETURN(const Bytes raw, decode());
  CAISSON_RETURN_IF_ERROR(verify_and_place(chunk, raw));
  if (chunk.has_twin) base_ = {.id = chunk.id, .raw = raw};
  return ok_status();
}

Status RestoreWorker::verify_and_place(const PlannedChunk& chunk, Bytes raw) {
  // 5 verify and 6 place: the id covers the raw bytes end to end, so the stored checksum would add
  // nothing. What is hashed is what lies in place, or is placed by the same pass.
  const TraceSpan span(run_.trace, place_row_, "verify and place", chunk.raw_bytes);
  const auto verify = [&](const Digest& digest) {
    return verify_content(digest, chunk.id, chunk.element.bits);
  };
  if (raw.data() == chunk.in_place || chunk.placements == 0) return verify(digest_of(raw));
  const std::span<const Placement> placements = run_.placements_of(chunk);
  const auto place = [&](const Placement& placement, auto how) {
    return how(raw, run_.piece_of(placement), run_.spec_of(placement).dtype,
               run_.request.targets[placement.target].memory);
  };
  const std::optional<Digest> digest = place(placements.front(), scatter_hashed);
  CAISSON_RETURN_IF_ERROR(verify(digest ? *digest : digest_of(raw)));
  for (const Placement& placement : placements.subspan(digest ? 1 : 0)) place(placement, scatter);
  return ok_status();
}

Status RestoreWorker::chunk_failure(const PlannedChunk& chunk, const Status& why) const {
  std::string what = "a base that a twin needs";
  if (chunk.placements > 0) {
    const Placement& placement = run_.placements_of(chunk).front();
    what =
        to_string(run_.piece_of(placement)) + " of tensor \"" + run_.spec_of(placement).name + "\"";
  }
  return {why.code(), run_.name + ": " + run_.object(chunk.object).object.key() + " at offset " +
                          std::to_string(chunk.offset) + ": chunk " + to_hex(chunk.id) + ", " +
                          what + ": " + std::string(why.message()) +
                          verify_hint(run_.name, "full")};
}

}  // namespace

Status restore_reads(RestoreRun& run, MemoryBudget& budget, uint32_t workers) {
  return RestoreWorker(run, budget, workers).work();
}

}  // namespace caisson

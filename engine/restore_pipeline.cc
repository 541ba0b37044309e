#include "engine/restore_pipeline.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <list>
#include <string>
#include <thread>
#include <utility>

#include "engine/chunk_reader.h"
#include "engine/restore_memory.h"
#include "engine/restore_plan.h"
#include "engine/restore_request.h"
#include "engine/verify_hint.h"
#include "io/base/check.h"

namespace caisson {

namespace {

// Over all workers. Bytes, not reads: small reads need more of them at once.
constexpr uint64_t kBytesInFlightMax = 64u << 20;
constexpr uint32_t kReadsInFlightMax = 64;  // of one worker
// Finding the pages of a fresh arena can take longer than the reads into it, so a restore starts
// with few of them, which lose little of the device's rate, and takes more as it gets longer.
constexpr uint64_t kFreshBytesInFlight = 16u << 20;
constexpr uint64_t kFreshGrowthDivisor = 32;
// Smaller targets fault as they are filled.
constexpr uint64_t kPrefaultBytesMin = 1u << 20;
constexpr size_t kOpenPacksMax = 16;  // of one worker, beside those with reads in flight
constexpr std::chrono::milliseconds kProgressInterval{100};

// What the workers of one restore share.
class RestoreRun {
 public:
  RestoreRun(ObjectStore& objects_in, Manifest& manifest_in, const RestoreRequest& request_in,
             const RestorePlan& plan_in, const RestoreOptions& options)
      : objects(objects_in),
        manifest(manifest_in),
        request(request_in),
        plan(plan_in),
        name(manifest.root().run + "/" + std::to_string(manifest.root().step)),
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
  ObjectReads bases;
  std::atomic<uint64_t> retried_chunks{0};

 private:
  const RestoreOptions& options_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
  Mutex mutex_;
  Status first_failure_ CAISSON_GUARDED_BY(mutex_);
  uint64_t done_ CAISSON_GUARDED_BY(mutex_) = 0;
  std::chrono::steady_clock::time_point told_ CAISSON_GUARDED_BY(mutex_){};
};

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

// A read in flight: what it is of, and what it fills: a buffer of the arena, or the place where the
// bytes are wanted.
struct ReadSlot {
  const PlannedRead* read = nullptr;
  MutableBytes into;
  bool staged = false;
  std::shared_ptr<ObjectReader> reader;
};

class RestoreWorker {
 public:
  RestoreWorker(RestoreRun& run, MemoryBudget& budget, uint32_t workers)
      : run_(run),
        budget_(budget),
        workers_(workers),
        packs_(run),
        chunks_(run.bases, run.manifest.packs()) {}

  // Stages 3 to 6, over the reads that this worker gets. One thread keeps the queue full and
  // verifies and places what has arrived; destruction of the queue waits for what is in flight.
  Status work() {
    CAISSON_RETURN_IF_ERROR(prepare());
    CAISSON_RETURN_IF_ERROR(fill_queue());
    while (queue_->in_flight() > 0) {
      CAISSON_RETURN_IF_ERROR(run_.check_stop());
      // 3 read: take what has arrived, and refill its place before spending time on it.
      CAISSON_ASSIGN_OR_RETURN(const IoCompletion completion, queue_->wait());
      const ReadSlot arrived = take_slot(completion.tag);
      CAISSON_RETURN_IF_ERROR(fill_queue());
      if (!completion.status.ok()) CAISSON_RETURN_IF_ERROR(read_again(arrived, completion.status));

      const auto chunks =
          std::span(run_.plan.chunks).subspan(arrived.read->first_chunk, arrived.read->chunks);
      for (const PlannedChunk& chunk : chunks) {
        // 4 decode, 5 verify, 6 place; a chunk that fails is read and tried once more.
        CAISSON_RETURN_IF_ERROR(finish_chunk(arrived, chunk));
      }
      if (arrived.staged) arena_.give(arrived.into);
      CAISSON_RETURN_IF_ERROR(fill_queue());
    }
    return ok_status();
  }

 private:
  Status prepare();
  Status make_arena();
  Status fill_queue();
  Result<bool> submit(const PlannedRead& read);
  ReadSlot take_slot(uint64_t tag);
  uint64_t staged_bytes_max() const;
  Status read_again(const ReadSlot& slot, const Status& first);
  Status finish_chunk(const ReadSlot& slot, const PlannedChunk& chunk);
  Status decode_verify_place(const PlannedChunk& chunk, Bytes stored);
  Status chunk_failure(const PlannedChunk& chunk, const Status& why) const;

  RestoreRun& run_;
  MemoryBudget& budget_;
  const uint32_t workers_;
  OpenPacks packs_;
  ChunkReader chunks_;
  BufferPool pool_;       // one buffer: the arena
  ReadArena arena_;       // of the reads through a buffer
  bool warm_ = false;     // the arena has served before
  MutableBytes scratch_;  // of the arena, where a chunk is decoded that has no place of its own
  std::vector<ReadSlot> slots_;
  std::vector<uint32_t> free_slots_;
  const PlannedRead* next_ = nullptr;  // taken from the run, waits for room
  uint64_t bytes_in_flight_ = 0, staged_in_flight_ = 0, staged_done_ = 0;
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
  const uint64_t scratch = align_up(plan.decode_bytes_max, kReadAlignment);
  const uint64_t share = budget_.bytes_max() / workers_;
  const uint64_t all = std::max(plan.staged_bytes, plan.read_bytes - plan.staged_bytes);
  uint64_t reads = std::min(kBytesInFlightMax / workers_, all) + read;
  if (reads + scratch > share) reads = share > scratch ? share - scratch : 0;
  reads = align_up(std::max(reads, 2 * read), kReadAlignment);
  CAISSON_ASSIGN_OR_RETURN(pool_, BufferPool::create(budget_, reads + scratch, 1));
  warm_ = !pool_.warm_arena().empty();
  arena_ = ReadArena(pool_.take());
  if (scratch > 0) scratch_ = arena_.take(scratch);
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
  ReadSlot slot{.read = &read, .into = {}, .staged = true, .reader = nullptr};
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
  const uint32_t tag = free_slots_.back();
  CAISSON_RETURN_IF_ERROR(
      queue_->submit_read(*slot.reader, read.offset, slot.into.first(read.bytes), tag));
  bytes_in_flight_ += read.bytes;
  free_slots_.pop_back();
  slots_[tag] = std::move(slot);
  return true;
}

ReadSlot RestoreWorker::take_slot(uint64_t tag) {
  ReadSlot slot = std::exchange(slots_[tag], {});
  free_slots_.push_back(static_cast<uint32_t>(tag));
  bytes_in_flight_ -= slot.read->bytes;
  if (slot.staged) {
    staged_in_flight_ -= slot.read->bytes;
    staged_done_ += slot.read->bytes;
  }
  return slot;
}

// A device may fail once in passing; twice in the same place is a fault to be told.
Status RestoreWorker::read_again(const ReadSlot& slot, const Status& first) {
  const Status second = slot.reader->read(slot.read->offset, slot.into.first(slot.read->bytes));
  if (second.ok()) return ok_status();
  const std::string where = run_.name + ": " + slot.reader->key() + " at offset " +
                            std::to_string(slot.read->offset) + ": ";
  return {second.code(), where + std::string(second.message()) +
                             " (at first: " + std::string(first.message()) + ")" +
                             verify_hint(run_.name, "checksums")};
}

Status RestoreWorker::finish_chunk(const ReadSlot& slot, const PlannedChunk& chunk) {
  const MutableBytes stored =
      slot.into.subspan(static_cast<size_t>(chunk.offset - slot.read->offset), chunk.stored_bytes);
  Status status = decode_verify_place(chunk, stored);
  if (status.code() == StatusCode::kCorruption) {
    // Memory, bus or device may have erred in passing: the second reading decides.
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
  const MutableBytes scratch =
      chunk.in_place != nullptr ? MutableBytes(chunk.in_place, chunk.raw_bytes) : scratch_;
  CAISSON_ASSIGN_OR_RETURN(const Bytes raw, chunks_.decode(form, stored, scratch));

  // 5 verify: the id covers the raw bytes end to end, so the stored checksum would add nothing.
  CAISSON_RETURN_IF_ERROR(verify_content(raw, chunk.id, chunk.element.bits));

  // 6 place
  if (raw.data() == chunk.in_place) return ok_status();
  for (const Placement& placement : run_.placements_of(chunk)) {
    const WantedBox& target = run_.request.targets[placement.target];
    scatter(raw, run_.piece_of(placement), run_.spec_of(placement).dtype, target.memory);
  }
  return ok_status();
}

Status RestoreWorker::chunk_failure(const PlannedChunk& chunk, const Status& why) const {
  const Placement& placement = run_.placements_of(chunk).front();
  return {why.code(), run_.name + ": " + run_.object(chunk.object).object.key() + " at offset " +
                          std::to_string(chunk.offset) + ": chunk " + to_hex(chunk.id) + ", " +
                          to_string(run_.piece_of(placement)) + " of tensor \"" +
                          run_.spec_of(placement).name + "\": " + std::string(why.message()) +
                          verify_hint(run_.name, "full")};
}

// Which targets a device may write to without a detour; see PlannedRead::in_place.
void find_hugepages(RestoreRequest& request) {
  const HugePages hugepages;
  for (WantedBox& target : request.targets) {
    const DType dtype = request.tensors[target.tensor].spec.dtype;
    target.hugepages = hugepages.hold(memory_range(target.memory, dtype));
  }
}

Result<RestorePlan> plan_reads(Manifest& manifest, const RestoreRequest& request) {
  const format::Root& root = manifest.root();
  const std::string name = root.run + "/" + std::to_string(root.step);
  PlanBuilder builder(root, manifest.packs());
  for (const EntryRange& range : entry_ranges(request.uses)) {
    CAISSON_ASSIGN_OR_RETURN(const std::vector<format::ChunkEntry> entries,
                             manifest.entries(range.part, range.first, range.count));
    for (size_t i = range.first_use; i < range.end_use; ++i) {
      const PieceUse& use = request.uses[i];
      const WantedBox& target = request.targets[use.target];
      const Status fits = builder.add(use, request.tensors[target.tensor], target,
                                      entries[static_cast<size_t>(use.entry - range.first)]);
      if (fits.ok()) continue;
      return corruption(name + ": " + std::string(fits.message()) + verify_hint(name, "structure"));
    }
  }
  return std::move(builder).finish();
}

// The memory of the targets, as it will be filled. Targets with wide gaps between their runs are
// left out: their gaps are not ours to make resident.
std::vector<MutableBytes> memory_in_order(const RestorePlan& plan, const RestoreRequest& request) {
  std::vector<MutableBytes> ranges;
  std::vector<bool> seen(request.targets.size(), false);
  for (const Placement& placement : plan.placements) {
    if (seen[placement.target]) continue;
    seen[placement.target] = true;
    const WantedBox& target = request.targets[placement.target];
    const DType dtype = request.tensors[target.tensor].spec.dtype;
    const MutableBytes range = memory_range(target.memory, dtype);
    if (range.size() >= kPrefaultBytesMin &&
        range.size() / 2 <= target.memory.box.elements() * dtype.bits / 8)
      ranges.push_back(range);
  }
  return ranges;
}

}  // namespace

Result<RestoreReport> restore_boxes(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                                    std::span<const TensorTarget> targets,
                                    const RestoreOptions& options) {
  // 1 manifest: every name and box is checked before anything is read.
  CAISSON_ASSIGN_OR_RETURN(RestoreRequest request, resolve_targets(manifest, targets));
  find_hugepages(request);

  // 2 plan: which chunks, in the order of the device, each once.
  CAISSON_ASSIGN_OR_RETURN(const RestorePlan plan, plan_reads(manifest, request));

  // 3 read, 4 decode, 5 verify, 6 place: RestoreWorker::work.
  RestoreRun run(objects, manifest, request, plan, options);
  CAISSON_RETURN_IF_ERROR(run.check_stop());
  const auto workers =
      static_cast<uint32_t>(std::min<uint64_t>(std::max(options.workers, 1u), plan.reads.size()));
  const auto work = [&] {
    RestoreWorker worker(run, budget, workers);
    const Status status = worker.work();
    if (!status.ok()) run.fail(status);
  };
  {
    const Prefault prefault(memory_in_order(plan, request));
    std::vector<std::jthread> helpers;
    for (uint32_t i = 1; i < workers; ++i) helpers.emplace_back(work);
    if (workers > 0) work();
  }
  CAISSON_RETURN_IF_ERROR(run.status());
  return RestoreReport{.raw_bytes = request.raw_bytes,
                       .stored_bytes = plan.stored_bytes,
                       .read_bytes = plan.read_bytes,
                       .chunks = plan.chunks.size(),
                       .reads = plan.reads.size(),
                       .retried_chunks = run.retried_chunks.load()};
}

}  // namespace caisson

#include "engine/restore_pipeline.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <list>
#include <string>
#include <thread>
#include <utility>

#include "engine/chunk_reader.h"
#include "engine/restore_plan.h"
#include "engine/restore_request.h"
#include "engine/verify_hint.h"
#include "io/base/check.h"

namespace caisson {

namespace {

constexpr uint32_t kReadsInFlightMax = 16;
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

  void add_progress(uint64_t bytes) CAISSON_EXCLUDES(mutex_) {
    if (!options_.progress) return;
    MutexLock lock(mutex_);
    done_ += bytes;
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

// A read in flight: what it is of, and the buffer that it fills.
struct ReadSlot {
  const PlannedRead* read = nullptr;
  MutableBytes buffer;
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
      ReadSlot arrived = std::exchange(slots_[completion.tag], {});
      free_slots_.push_back(static_cast<uint32_t>(completion.tag));
      CAISSON_RETURN_IF_ERROR(fill_queue());
      if (!completion.status.ok()) CAISSON_RETURN_IF_ERROR(read_again(arrived, completion.status));

      const auto chunks =
          std::span(run_.plan.chunks).subspan(arrived.read->first_chunk, arrived.read->chunks);
      for (const PlannedChunk& chunk : chunks) {
        // 4 decode, 5 verify; a chunk that fails is read and tried once more.
        CAISSON_ASSIGN_OR_RETURN(const Bytes raw, verified_bytes(arrived, chunk));
        // 6 place
        place(chunk, raw);
      }
      pool_.give(arrived.buffer);
      CAISSON_RETURN_IF_ERROR(fill_queue());
    }
    return ok_status();
  }

 private:
  Status prepare();
  Status fill_queue();
  Status read_again(const ReadSlot& slot, const Status& first);
  Result<Bytes> verified_bytes(const ReadSlot& slot, const PlannedChunk& chunk);
  Result<Bytes> decode_and_verify(const PlannedChunk& chunk, Bytes stored);
  void place(const PlannedChunk& chunk, Bytes raw);
  Status chunk_failure(const PlannedChunk& chunk, const Status& why) const;

  RestoreRun& run_;
  MemoryBudget& budget_;
  const uint32_t workers_;
  OpenPacks packs_;
  ChunkReader chunks_;
  BufferPool pool_;
  MutableBytes scratch_;  // of the pool, where a chunk must be decoded
  std::vector<ReadSlot> slots_;
  std::vector<uint32_t> free_slots_;
  std::unique_ptr<TransferQueue> queue_;  // last: destroyed before what it reads into
};

// One pool holds the reads in flight, the one that is worked on and the scratch of decoding: asked
// for at once, so that two restores never wait for each other's second half.
Status RestoreWorker::prepare() {
  const RestorePlan& plan = run_.plan;
  const uint32_t scratch_buffers = plan.decode_bytes_max > 0 ? 1 : 0;
  const uint64_t buffer_bytes =
      align_up(std::max(plan.read_bytes_max, plan.decode_bytes_max), kReadAlignment);
  const uint64_t share = budget_.bytes_max() / workers_ / buffer_bytes;
  const uint64_t reads = std::min<uint64_t>(plan.reads.size(), kReadsInFlightMax);
  const auto depth = static_cast<uint32_t>(std::clamp<uint64_t>(
      share > 1 + scratch_buffers ? share - 1 - scratch_buffers : 1, 1, reads));
  CAISSON_ASSIGN_OR_RETURN(pool_,
                           BufferPool::create(budget_, buffer_bytes, depth + 1 + scratch_buffers));
  if (scratch_buffers > 0) scratch_ = pool_.take();
  slots_.resize(depth);
  for (uint32_t i = depth; i > 0; --i) free_slots_.push_back(i - 1);
  CAISSON_ASSIGN_OR_RETURN(
      queue_, run_.objects.make_queue({.depth = depth, .registered_memory = pool_.warm_arena()}));
  return ok_status();
}

Status RestoreWorker::fill_queue() {
  while (!free_slots_.empty() && pool_.free_count() > 0) {
    const PlannedRead* const read = run_.next_read();
    if (read == nullptr) return ok_status();
    ReadSlot slot{.read = read, .buffer = pool_.take(), .reader = nullptr};
    CAISSON_ASSIGN_OR_RETURN(slot.reader, packs_.get(read->object));
    const uint32_t tag = free_slots_.back();
    CAISSON_RETURN_IF_ERROR(
        queue_->submit_read(*slot.reader, read->offset, slot.buffer.first(read->bytes), tag));
    free_slots_.pop_back();
    slots_[tag] = std::move(slot);
  }
  return ok_status();
}

// A device may fail once in passing; twice in the same place is a fault to be told.
Status RestoreWorker::read_again(const ReadSlot& slot, const Status& first) {
  const Status second = slot.reader->read(slot.read->offset, slot.buffer.first(slot.read->bytes));
  if (second.ok()) return ok_status();
  const std::string where = run_.name + ": " + slot.reader->key() + " at offset " +
                            std::to_string(slot.read->offset) + ": ";
  return {second.code(), where + std::string(second.message()) +
                             " (at first: " + std::string(first.message()) + ")" +
                             verify_hint(run_.name, "checksums")};
}

Result<Bytes> RestoreWorker::verified_bytes(const ReadSlot& slot, const PlannedChunk& chunk) {
  const MutableBytes stored = slot.buffer.subspan(
      static_cast<size_t>(chunk.offset - slot.read->offset), chunk.stored_bytes);
  Result<Bytes> raw = decode_and_verify(chunk, stored);
  if (raw.ok() || raw.status().code() != StatusCode::kCorruption) {
    return raw.ok() ? raw : chunk_failure(chunk, raw.status());
  }
  // Memory, bus or device may have erred in passing: the second reading decides.
  const Status read = slot.reader->read(chunk.offset, stored);
  if (!read.ok()) return chunk_failure(chunk, read);
  raw = decode_and_verify(chunk, stored);
  if (!raw.ok()) return chunk_failure(chunk, raw.status());
  run_.retried_chunks.fetch_add(1, std::memory_order_relaxed);
  return raw;
}

Result<Bytes> RestoreWorker::decode_and_verify(const PlannedChunk& chunk, Bytes stored) {
  const StoredChunk form{.id = chunk.id,
                         .raw_bytes = chunk.raw_bytes,
                         .codec = chunk.codec,
                         .flags = chunk.flags,
                         .element = chunk.element};
  // 4 decode: nothing to do for raw bytes.
  CAISSON_ASSIGN_OR_RETURN(const Bytes raw, chunks_.decode(form, stored, scratch_));
  // 5 verify: the id covers the raw bytes end to end, so the stored checksum would add nothing.
  CAISSON_RETURN_IF_ERROR(verify_content(raw, chunk.id, chunk.element.bits));
  return raw;
}

void RestoreWorker::place(const PlannedChunk& chunk, Bytes raw) {
  const auto placements =
      std::span(run_.plan.placements).subspan(chunk.first_placement, chunk.placements);
  uint64_t placed_bits = 0;
  for (const Placement& placement : placements) {
    const WantedBox& target = run_.request.targets[placement.target];
    const WantedTensor& tensor = run_.request.tensors[target.tensor];
    const ShardRecord& shard = tensor.shards[placement.shard];
    const Box piece = piece_at(shard.grid, shard.box, placement.piece);
    scatter(raw, piece, tensor.spec.dtype, target.memory);
    placed_bits += intersect(piece, target.memory.box).elements() * tensor.spec.dtype.bits;
  }
  run_.add_progress(placed_bits / 8);
}

Status RestoreWorker::chunk_failure(const PlannedChunk& chunk, const Status& why) const {
  const Placement& placement = run_.plan.placements[chunk.first_placement];
  const WantedBox& target = run_.request.targets[placement.target];
  const WantedTensor& tensor = run_.request.tensors[target.tensor];
  const ShardRecord& shard = tensor.shards[placement.shard];
  return {why.code(), run_.name + ": " + run_.object(chunk.object).object.key() + " at offset " +
                          std::to_string(chunk.offset) + ": chunk " + to_hex(chunk.id) + ", " +
                          to_string(piece_at(shard.grid, shard.box, placement.piece)) +
                          " of tensor \"" + tensor.spec.name + "\": " + std::string(why.message()) +
                          verify_hint(run_.name, "full")};
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
      const WantedTensor& tensor = request.tensors[request.targets[use.target].tensor];
      const Status fits =
          builder.add(use, tensor, entries[static_cast<size_t>(use.entry - range.first)]);
      if (fits.ok()) continue;
      return corruption(name + ": " + std::string(fits.message()) + verify_hint(name, "structure"));
    }
  }
  return std::move(builder).finish();
}

}  // namespace

Result<RestoreReport> restore_boxes(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                                    std::span<const TensorTarget> targets,
                                    const RestoreOptions& options) {
  // 1 manifest: every name and box is checked before anything is read.
  CAISSON_ASSIGN_OR_RETURN(const RestoreRequest request, resolve_targets(manifest, targets));

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

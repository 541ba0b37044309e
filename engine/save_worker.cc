#include "engine/save_worker.h"

#include <algorithm>
#include <ctime>
#include <stop_token>
#include <utility>

namespace caisson {

namespace {

// Segments in flight over all workers, as measured best for one device; a worker never has fewer
// than kSegmentsMin, one of which is being filled.
constexpr uint32_t kSegmentsInFlight = 16;
constexpr uint32_t kSegmentsMin = 4;
constexpr uint64_t kPieceBytesMax = format::kSegmentBytesMax - format::kBlockBytes;

bool is_block_aligned(uint64_t raw_bytes) { return raw_bytes >= format::kRawAlignedBytesMin; }

// Tells the policy how much processor time its life took, where that is bounded: the clock costs
// a system call.
class CodingTime {
 public:
  using SteadyTime = std::chrono::steady_clock::time_point;
  CodingTime(CodecPolicy& policy, bool bounded, SteadyTime worker_began)
      : policy_(policy), bounded_(bounded), worker_began_(worker_began) {
    if (bounded_) began_ = thread_cpu_seconds();
  }
  ~CodingTime() {
    if (!bounded_) return;
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - worker_began_;
    policy_.on_coded(thread_cpu_seconds() - began_, elapsed.count());
  }
  CodingTime(const CodingTime&) = delete;
  CodingTime& operator=(const CodingTime&) = delete;

 private:
  static double thread_cpu_seconds() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  }

  CodecPolicy& policy_;
  const bool bounded_;
  const SteadyTime worker_began_;
  double began_ = 0;
};

uint64_t mark_of(const Digest& digest) { return load_le<uint64_t>(digest.bytes.data()); }

}  // namespace

SaveWorker::SaveWorker(ObjectStore& objects, MemoryBudget& budget, SaveShared& shared,
                       uint32_t number, uint32_t workers)
    : budget_(budget),
      shared_(shared),
      workers_(workers),
      trace_(shared.config.trace.get()),
      trace_rows_("save rank " + std::to_string(shared.config.rank) + " worker " +
                  std::to_string(number) + ": "),
      parent_(shared.config.parent),
      policy_({.codec = shared.config.codec,
               .cpu = shared.config.codec_cpu / workers,
               .deterministic = shared.config.codec_deterministic}),
      packs_(objects, {.save = shared.config.save,
                       .writer = shared.part.part().writer,
                       .first_number = number,
                       .number_step = workers,
                       .trace = trace_,
                       .trace_rows = trace_rows_,
                       .metrics = shared.config.metrics.get()}) {
  if (trace_ == nullptr) return;
  hash_row_ = trace_->row(trace_rows_ + "2 hash");
  encode_row_ = trace_->row(trace_rows_ + "4 encode");
  check_row_ = trace_->row(trace_rows_ + "7 is lent memory as it was");
}

// Buffers for what this put needs, no more: many small puts must not pay for a large one.
Status SaveWorker::make_buffers(const SavePlan& plan) {
  const uint64_t needed = plan.raw_bytes / (format::kSegmentBytesMax / 2) + 2;
  uint64_t segments = std::max(kSegmentsMin, kSegmentsInFlight / workers_ + 1);
  segments = std::min(segments, std::max<uint64_t>(needed, 2));
  // A put that fits one segment takes no more memory than that, however its pieces are aligned.
  const uint64_t whole = plan.raw_bytes + (plan.pieces + 2) * format::kBlockBytes;
  const uint64_t buffer_bytes = std::min(kSegmentBufferBytes, align_up(whole, format::kBlockBytes));
  const uint64_t share = budget_.bytes_max() / workers_ / buffer_bytes;
  segments = std::clamp<uint64_t>(share, 2, segments);
  CAISSON_ASSIGN_OR_RETURN(
      pool_, BufferPool::create(budget_, buffer_bytes, static_cast<uint32_t>(segments) + 1));
  scratch_ = pool_.take();
  return packs_.begin(pool_);
}

void SaveWorker::run(const SavePlan& plan, SaveBatches& batches, SaveBatches& checks) {
  selected_ = nullptr;
  shard_index_ = 0;
  if (began_.time_since_epoch().count() == 0) began_ = std::chrono::steady_clock::now();
  Status status = make_buffers(plan);
  SaveBatch batch;
  while (status.ok() && batches.claim(batch)) {
    status = save_batch(plan, batch);
    if (status.ok()) batches.finish(std::move(batch));
  }
  // While the last writes are in flight: is the memory what it was when it was read?
  if (status.ok() && shared_.config.memory_check != MemoryCheck::kOff) {
    shard_index_ = 0;
    status = batches.wait_finished();
    while (status.ok() && checks.claim(batch)) {
      status = check_batch(plan, batch);
      if (status.ok()) checks.finish(std::move(batch));
    }
  }
  // 6 write and sync: what is in flight comes back here; sync and name follow when a pack is full,
  // and for the last one in seal().
  const Status ended = packs_.end();
  if (status.ok()) status = ended;
  pool_ = BufferPool();
  if (!status.ok()) batches.fail(status);
}

const PlannedShard& SaveWorker::shard_of(const SavePlan& plan, uint64_t work) {
  const auto holds = [&](const PlannedShard& s) {
    return work >= s.first_work && work - s.first_work < s.pieces();
  };
  while (!holds(plan.shards[shard_index_])) ++shard_index_;  // batches come in rising order
  return plan.shards[shard_index_];
}

Status SaveWorker::save_batch(const SavePlan& plan, SaveBatch& batch) {
  batch.chunks.reserve(batch.count);
  for (uint64_t work = batch.first; work < batch.first + batch.count; ++work) {
    if (shared_.config.stop.stop_requested()) return cancelled("the save was cancelled");
    const PlannedShard& shard = shard_of(plan, work);
    const auto piece = tile(shard, work);
    const Status status = piece.ok() ? save_piece(*piece, batch) : piece.status();
    if (!status.ok()) {
      return status.with_context("tensor \"" + shard.record.spec.name + "\"");
    }
  }
  return ok_status();
}

// 1 tile
Result<SaveWorker::Piece> SaveWorker::tile(const PlannedShard& shard, uint64_t work) {
  const Box box = shard.piece(work);
  CAISSON_ASSIGN_OR_RETURN(const uint64_t raw_bytes,
                           packed_bytes(box.elements(), shard.record.spec.dtype));
  if (raw_bytes == 0 || raw_bytes > kPieceBytesMax) {
    return invalid_argument("its tile " + to_string(box) + " has " + std::to_string(raw_bytes) +
                            " bytes, a chunk takes 1 to " + std::to_string(kPieceBytesMax));
  }
  return Piece{.shard = shard, .work = work, .box = box, .raw_bytes = raw_bytes};
}

// Stages 2 to 6. What is hashed is what is written: a piece is copied into the segment buffer and
// hashed from the same loads, so lent memory that changes meanwhile gives a checkpoint of some
// moment's bytes, never one whose bytes are not their id.
Status SaveWorker::save_piece(const Piece& piece, SaveBatch& batch) {
  packs_.expect(shared_.bytes_left.load(std::memory_order_relaxed) / workers_ + kPieceBytesMax);
  shared_.bytes_left.fetch_sub(piece.raw_bytes, std::memory_order_relaxed);
  batch.raw_bytes += piece.raw_bytes;
  mark_sampled(piece);
  if (piece.raw_bytes <= format::kInlineBytesMax &&
      shared_.part.try_reserve_inline(piece.raw_bytes)) {
    save_inline(piece, batch);
    return ok_status();
  }
  std::optional<PlacedChunk> parent = find_in_parent(piece);
  if (parent && expect_same_ && is_unchanged(piece, parent->entry)) {
    reuse(std::move(*parent), batch);
    return ok_status();
  }
  return store_piece(piece, std::move(parent), batch);
}

void SaveWorker::save_inline(const Piece& piece, SaveBatch& batch) {
  const size_t at = batch.inline_bytes.size();
  batch.inline_bytes.resize(at + piece.raw_bytes);
  const MutableBytes raw = MutableBytes(batch.inline_bytes).subspan(at);
  const Digest digest = copy_hashed(piece, raw, CopyStores::kCached);
  mark_digest(piece, digest);
  format::ChunkEntry entry;
  entry.raw_bytes = entry.stored_bytes = static_cast<uint32_t>(piece.raw_bytes);
  entry.id = content_id(digest, piece.dtype().bits);
  entry.pack = format::kPackInline;
  batch.chunks.push_back({.entry = entry, .parent_pack = nullptr, .own_pack = {}});
}

// The parent's chunk of the same place and size.
std::optional<PlacedChunk> SaveWorker::find_in_parent(const Piece& piece) {
  if (selected_ != &piece.shard) {
    parent_.select(piece.shard.record.spec, piece.shard.shard().box);
    selected_ = &piece.shard;
  }
  std::optional<PlacedChunk> parent = parent_.find(piece.box);
  if (parent && parent->entry.raw_bytes != piece.raw_bytes) parent.reset();
  return parent;
}

// Hashed where it lies, so that an unchanged state is most often not copied at all.
bool SaveWorker::is_unchanged(const Piece& piece, const format::ChunkEntry& parent) {
  const auto digest = hash_in_place(piece);
  if (!digest || content_id(*digest, piece.dtype().bits) != parent.id) return false;
  mark_digest(piece, *digest);
  return true;
}

std::optional<PlacedChunk> SaveWorker::find_elsewhere(const format::ChunkEntry& entry) {
  std::optional<PlacedChunk> found = shared_.chunks.find(entry.id, entry.raw_bytes);
  if (!found && shared_.store_dedup) {
    found = shared_.store_dedup->find(entry.id, entry.raw_bytes);
  }
  return found;
}

Status SaveWorker::store_piece(const Piece& piece, std::optional<PlacedChunk> parent,
                               SaveBatch& batch) {
  std::optional<CodecChoice> choice =
      choose_codec(piece, contiguous_piece(piece.memory(), piece.box, piece.dtype()));
  const bool stored_raw = choice && choice->codec == CodecId::kRaw;
  MutableBytes raw = scratch_.first(piece.raw_bytes);
  if (stored_raw) {
    CAISSON_ASSIGN_OR_RETURN(raw,
                             packs_.reserve(piece.raw_bytes, is_block_aligned(piece.raw_bytes)));
  }

  // 2 hash
  const Digest digest =
      copy_hashed(piece, raw, stored_raw ? CopyStores::kPastCaches : CopyStores::kCached);
  mark_digest(piece, digest);
  format::ChunkEntry entry;
  entry.raw_bytes = entry.stored_bytes = static_cast<uint32_t>(piece.raw_bytes);
  entry.id = content_id(digest, piece.dtype().bits);

  // 3 dedup
  if (parent) expect_same_ = entry.id == parent->entry.id;
  if (!parent || !expect_same_) parent = find_elsewhere(entry);
  if (parent) {
    packs_.drop();
    reuse(std::move(*parent), batch);
    return ok_status();
  }

  // 4 encode
  Digest stored = digest;
  if (!stored_raw) {
    if (!choice) choice = choose_codec(piece, raw);
    CAISSON_ASSIGN_OR_RETURN(stored, encode(piece, *choice, raw, digest, entry));
  }
  tally_.add(*choice, entry.raw_bytes, entry.stored_bytes);

  // 5 pack (6 write: the pack writer submits each segment as soon as it is full)
  packs_.commit(entry, stored);
  PlacedChunk chunk{.entry = entry, .parent_pack = nullptr, .own_pack = packs_.pack()};
  shared_.chunks.add(chunk);
  batch.chunks.push_back(std::move(chunk));
  return ok_status();
}

// Into the segment being filled; gives the digest of what was stored. What does not get smaller is
// stored raw, and `choice` then says so.
Result<Digest> SaveWorker::encode(const Piece& piece, CodecChoice& choice, Bytes raw,
                                  const Digest& digest, format::ChunkEntry& entry) {
  if (choice.codec != CodecId::kRaw) {
    CAISSON_ASSIGN_OR_RETURN(const MutableBytes to, packs_.reserve(raw.size(), false));
    const CodingTime time(policy_, shared_.config.codec_cpu >= 0, began_);
    const TraceSpan span(trace_, encode_row_, to_string(choice.reason).data(), raw.size());
    CAISSON_ASSIGN_OR_RETURN(const Codec* codec, find_codec(static_cast<uint8_t>(choice.codec)));
    CAISSON_ASSIGN_OR_RETURN(
        const size_t bytes,
        codec->encode(codec_context_, element_format(piece.dtype()), raw, {}, to));
    if (bytes > 0) {
      entry.codec = static_cast<uint8_t>(choice.codec);
      entry.stored_bytes = static_cast<uint32_t>(bytes);
      return digest_of(to.first(bytes));
    }
    packs_.drop();
    choice = {CodecId::kRaw, CodecReason::kNotSmaller};
  }
  CAISSON_ASSIGN_OR_RETURN(const MutableBytes to,
                           packs_.reserve(raw.size(), is_block_aligned(raw.size())));
  std::ranges::copy(raw, to.begin());
  return digest;
}

// Tells the policy first what the pack writer met since the last piece.
std::optional<CodecChoice> SaveWorker::choose_codec(const Piece& piece, Bytes raw) {
  const PackWriter::Buffers& now = packs_.buffers();
  for (; buffers_seen_.waited < now.waited; ++buffers_seen_.waited, ++buffers_seen_.taken) {
    policy_.on_buffer(true);
  }
  for (; buffers_seen_.taken < now.taken; ++buffers_seen_.taken) policy_.on_buffer(false);
  return policy_.choose(piece.shard.record, codec_context_, raw);
}

Digest SaveWorker::copy_hashed(const Piece& piece, MutableBytes to, CopyStores stores) {
  const TraceSpan span(trace_, hash_row_, "copy and hash", piece.raw_bytes);
  return gather_hashed(piece.memory(), piece.box, piece.dtype(), to, stores);
}

std::optional<Digest> SaveWorker::hash_in_place(const Piece& piece) {
  const TraceSpan span(trace_, hash_row_, "hash in place", piece.raw_bytes);
  return digest_in_place(piece.memory(), piece.box, piece.dtype());
}

void SaveWorker::reuse(PlacedChunk chunk, SaveBatch& batch) {
  batch.deduplicated_bytes += chunk.entry.raw_bytes;
  batch.chunks.push_back(std::move(chunk));
}

// Before the piece is read, so that no later change is missed.
void SaveWorker::mark_sampled(const Piece& piece) {
  if (shared_.config.memory_check != MemoryCheck::kSampled) return;
  shared_.marks[piece.work] = sample_of(piece.memory(), piece.box, piece.dtype());
}

void SaveWorker::mark_digest(const Piece& piece, const Digest& digest) {
  if (shared_.config.memory_check != MemoryCheck::kFull) return;
  shared_.marks[piece.work] = mark_of(digest);
}

uint64_t SaveWorker::mark_now(const Piece& piece) {
  if (shared_.config.memory_check == MemoryCheck::kSampled) {
    return sample_of(piece.memory(), piece.box, piece.dtype());
  }
  if (const auto digest = hash_in_place(piece)) return mark_of(*digest);
  return mark_of(copy_hashed(piece, scratch_.first(piece.raw_bytes), CopyStores::kCached));
}

Status SaveWorker::check_batch(const SavePlan& plan, const SaveBatch& batch) {
  const TraceSpan span(trace_, check_row_, "look again");
  for (uint64_t work = batch.first; work < batch.first + batch.count; ++work) {
    const PlannedShard& shard = shard_of(plan, work);
    CAISSON_ASSIGN_OR_RETURN(const Piece piece, tile(shard, work));
    if (mark_now(piece) == shared_.marks[work]) continue;
    return invalid_argument("tensor \"" + shard.record.spec.name + "\": its memory changed, in " +
                            to_string(piece.box) +
                            ", before the save had read everything; leave lent memory alone until "
                            "then, or save with `stage`");
  }
  return ok_status();
}

}  // namespace caisson

#include "engine/save_worker.h"

#include <algorithm>
#include <ctime>
#include <stop_token>
#include <utility>

#include "compression/choose.h"
#include "engine/metrics.h"
#include "io/base/check.h"

namespace caisson {

namespace {

// Segments in flight over all workers. A device is busy with some 16; one that completes in bursts
// as long as its queue (a virtual disk does) finds the next ones filled. Two saves fit the default
// budget. A worker never has fewer than kSegmentsMin, one of which is being filled.
constexpr uint32_t kSegmentsInFlight = 20;
constexpr uint32_t kSegmentsMin = 4;
constexpr uint64_t kScratchAlignment = 64;
constexpr uint64_t kDeltaGainDivisor = 10;  // a delta saves a tenth at least: it costs two reads
constexpr uint64_t kPieceBytesMax = format::kSegmentBytesMax - format::kBlockBytes;

bool is_block_aligned(uint64_t raw_bytes) { return raw_bytes >= format::kRawAlignedBytesMin; }

using SteadyClock = std::chrono::steady_clock;

double seconds_since(SteadyClock::time_point began) {
  return std::chrono::duration<double>(SteadyClock::now() - began).count();
}

// Tells the policy what its life, in which a piece was encoded, took: also of the processor where
// that is bounded, because that clock costs a system call.
class CodingTime {
 public:
  CodingTime(CodecPolicy& policy, uint64_t raw_bytes, bool bounded,
             SteadyClock::time_point worker_began)
      : policy_(policy), raw_bytes_(raw_bytes), bounded_(bounded), worker_began_(worker_began) {
    if (bounded_) cpu_began_ = thread_cpu_seconds();
  }
  ~CodingTime() {
    policy_.on_coded(raw_bytes_, stored_bytes_, seconds_since(began_));
    if (bounded_) policy_.on_cpu(thread_cpu_seconds() - cpu_began_, seconds_since(worker_began_));
  }
  void stored(uint64_t bytes) { stored_bytes_ = bytes; }
  CodingTime(const CodingTime&) = delete;
  CodingTime& operator=(const CodingTime&) = delete;

 private:
  static double thread_cpu_seconds() {
    timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
  }

  CodecPolicy& policy_;
  const uint64_t raw_bytes_;
  uint64_t stored_bytes_ = raw_bytes_;
  const bool bounded_;
  const SteadyClock::time_point worker_began_;
  const SteadyClock::time_point began_ = SteadyClock::now();
  double cpu_began_ = 0;
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
      parent_{ParentDedup(objects, shared.config.parent)},
      twin_parent_{ParentDedup(objects, shared.config.parent)},
      policy_({.codec = shared.config.codec,
               .cpu = shared.config.codec_cpu / workers,
               .deterministic = shared.config.codec_deterministic,
               .workers = workers}),
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
Status SaveWorker::make_buffers(const PutSize& size) {
  const uint64_t needed = size.raw_bytes / (format::kSegmentBytesMax / 2) + 2;
  uint64_t segments = std::max(kSegmentsMin, kSegmentsInFlight / workers_ + 1);
  segments = std::min(segments, std::max<uint64_t>(needed, 2));
  // A put that fits one segment takes no more memory than that, however its pieces are aligned.
  const uint64_t whole = size.raw_bytes + (size.pieces + 2) * format::kBlockBytes;
  const uint64_t buffer_bytes = std::min(kSegmentBufferBytes, align_up(whole, format::kBlockBytes));
  const uint64_t share = budget_.bytes_max() / workers_ / buffer_bytes;
  segments = std::clamp<uint64_t>(share, 2, segments);
  // All saves take an arena of one size, so that each finds that of the one before.
  const bool codes = shared_.config.codec != "raw";
  const auto buffers = static_cast<uint32_t>(std::max<uint64_t>(segments + 1, codes ? 4 : 3));
  CAISSON_ASSIGN_OR_RETURN(pool_, BufferPool::create(budget_, buffer_bytes, buffers));
  scratch_ = pool_.take();
  if (codes) encoded_ = pool_.take();
  return packs_.begin(pool_);
}

// A restore waits for memory: it gets this worker's, which goes on when there is room again. Holds
// no batch then, so that no other worker waits for it.
Status SaveWorker::make_way(const PutSize& size) {
  if (shared_.config.metrics != nullptr) shared_.config.metrics->state().memory_yields.add();
  CAISSON_RETURN_IF_ERROR(packs_.end());
  base_ = {};  // it lies in scratch_
  band_.end();
  pool_ = BufferPool();
  return make_buffers(size);
}

void SaveWorker::run(const PutSize& size, SaveBatches& batches, SaveBatches& checks) {
  plan_ = nullptr;
  if (began_.time_since_epoch().count() == 0) began_ = std::chrono::steady_clock::now();
  band_.end();
  policy_.begin_put();
  Status status = make_buffers(size);
  SaveBatch batch;
  while (status.ok() && batches.claim(batch)) {
    batch.pieces.reserve(2 * batch.count);
    status = for_each_piece(batch, [&](const Piece& piece) { return save_piece(piece, batch); });
    if (status.ok()) batches.finish(std::move(batch));
    if (status.ok() && budget_.is_wanted()) status = make_way(size);
  }
  // While the last writes are in flight: is the memory what it was when it was read?
  if (status.ok() && shared_.config.memory_check != MemoryCheck::kOff) {
    plan_ = nullptr;
    status = batches.wait_finished();
    while (status.ok() && checks.claim(batch)) {
      status = for_each_piece(batch, [&](const Piece& piece) { return check_piece(piece); });
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

template <typename Visit>
Status SaveWorker::for_each_piece(const SaveBatch& batch, const Visit& visit) {
  if (plan_ != batch.plan) {
    plan_ = batch.plan;
    run_index_ = 0;
    parent_.selected = twin_parent_.selected = nullptr;
    memory_.shard = twin_memory_.shard = nullptr;
  }
  const SavePlan& plan = *plan_;
  const auto visit_piece = [&](const PlannedShard& shard, uint64_t i, Role role,
                               uint64_t in_a_row) {
    const auto piece = tile(plan, shard, i, role, in_a_row);
    const Status status = piece.ok() ? visit(*piece) : piece.status();
    return status.ok() ? status : status.with_context("tensor \"" + shard.spec().name + "\"");
  };
  for (uint64_t unit = batch.first; unit < batch.first + batch.count; ++unit) {
    if (shared_.config.stop.stop_requested()) return cancelled("the save was cancelled");
    // Batches come in rising order.
    while (unit - plan.runs[run_index_].first_unit >= plan.runs[run_index_].units) ++run_index_;
    const PlannedRun& run = plan.runs[run_index_];
    const uint64_t i = unit - run.first_unit;
    const Role role = run.twin ? Role::kBase : Role::kAlone;
    const uint64_t in_a_row = run.twin ? 1 : batch.first + batch.count - unit;
    CAISSON_RETURN_IF_ERROR(visit_piece(plan.shards[run.shard], i, role, in_a_row));
    if (run.twin) CAISSON_RETURN_IF_ERROR(visit_piece(plan.shards[*run.twin], i, Role::kTwin, 1));
  }
  return ok_status();
}

// 1 tile
Result<SaveWorker::Piece> SaveWorker::tile(const SavePlan& plan, const PlannedShard& shard,
                                           uint64_t i, Role role, uint64_t in_a_row) {
  const Box box = shard.piece(i);
  CAISSON_ASSIGN_OR_RETURN(const uint64_t raw_bytes,
                           packed_bytes(box.elements(), shard.spec().dtype));
  if (raw_bytes == 0 || raw_bytes > kPieceBytesMax) {
    return invalid_argument("its tile " + to_string(box) + " has " + std::to_string(raw_bytes) +
                            " bytes, a chunk takes 1 to " + std::to_string(kPieceBytesMax));
  }
  ShardMemory& known = role == Role::kTwin ? twin_memory_ : memory_;
  if (known.shard != &shard) known = {&shard, shard.memory()};
  return Piece{.shard = shard,
               .memory = known.memory,
               .role = role,
               .index = i,
               .in_a_row = in_a_row,
               .number = shard.first_entry - plan.first_entry + i,
               .box = box,
               .raw_bytes = raw_bytes};
}

// Stages 2 to 6. What is hashed is what is written: a piece is copied into the segment buffer and
// hashed from the same loads, so lent memory that changes meanwhile gives a checkpoint of some
// moment's bytes, never one whose bytes are not their id.
Status SaveWorker::save_piece(const Piece& piece, SaveBatch& batch) {
  packs_.expect(shared_.bytes_left.load(std::memory_order_relaxed) / workers_ + kPieceBytesMax);
  shared_.bytes_left.fetch_sub(piece.raw_bytes, std::memory_order_relaxed);
  batch.raw_bytes += piece.raw_bytes;
  if (!band_.holds(piece.shard, piece.index)) mark_sampled(piece, piece.number, piece.box);
  if (piece.role != Role::kTwin) base_ = {};
  if (piece.raw_bytes <= format::kInlineBytesMax &&
      shared_.part.try_reserve_inline(piece.raw_bytes)) {
    save_inline(piece, batch);
    return ok_status();
  }
  std::optional<PlacedChunk> parent = find_in_parent(piece);
  if (parent && expect_same_ && is_unchanged(piece, parent->entry)) {
    reuse(piece, std::move(*parent), batch);
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
  place(piece, {.entry = entry, .parent_pack = nullptr, .own_pack = {}}, batch);
}

// The parent's chunk of the same place and size.
std::optional<PlacedChunk> SaveWorker::find_in_parent(const Piece& piece) {
  const ParentShard& planned = piece.shard.parent;
  if (planned.match == ParentShard::Match::kNone) return std::nullopt;
  ParentView& view = parent_of(piece);
  std::optional<PlacedChunk> parent;
  if (planned.match == ParentShard::Match::kSame) {
    parent = view.dedup.find(planned, piece.shard.first_piece + piece.index);
  } else {
    if (view.selected != &piece.shard) {
      view.dedup.select(piece.shard.spec(), piece.shard.box());
      view.selected = &piece.shard;
    }
    parent = view.dedup.find(piece.box);
  }
  if (parent && parent->entry.raw_bytes != piece.raw_bytes) parent.reset();
  return parent;
}

// Hashed where it lies, so that an unchanged state is most often not copied at all.
bool SaveWorker::is_unchanged(const Piece& piece, const format::ChunkEntry& parent) {
  if (!band_.holds(piece.shard, piece.index) && begin_band(piece, TileBand::kTilesMax) > 1) {
    const TraceSpan span(trace_, hash_row_, "hash a band in place");
    band_.sweep({});
  }
  const auto digest =
      band_.holds(piece.shard, piece.index) ? band_.digest(piece.index) : hash_in_place(piece);
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

// Where the piece is gathered for encoding: behind its base, if it has one.
MutableBytes SaveWorker::scratch_for(const Piece& piece) {
  const uint64_t at = align_up(base_.raw.size(), kScratchAlignment);
  return scratch_.subspan(at, piece.raw_bytes);
}

Status SaveWorker::store_piece(const Piece& piece, std::optional<PlacedChunk> parent,
                               SaveBatch& batch) {
  // A base has to be gathered whatever its codec, if its twin, of twice the size, fits behind it.
  const bool keep = piece.role == Role::kBase && policy_.may_code() &&
                    3 * piece.raw_bytes + kScratchAlignment <= scratch_.size();
  std::optional<PlacedChunk> before;  // what a delta could start from
  if (may_be_delta(piece)) before = parent;
  std::optional<CodecChoice> choice;
  if (!keep && !before && base_.raw.empty()) {
    // A look at memory that nobody has read costs as much as the one after the copy twice.
    const bool look = !policy_.expects_coding();
    choice = choose_codec(
        piece, look ? contiguous_piece(piece.memory, piece.box, piece.dtype()) : Bytes());
  }
  const bool stored_raw = choice && choice->codec == CodecId::kRaw;
  MutableBytes raw;

  // 2 hash
  Digest digest;
  if (stored_raw) {
    CAISSON_ASSIGN_OR_RETURN(digest, gather_into_segment(piece, raw));
  } else {
    band_.end();  // what is encoded may reserve more than its place in a band
    raw = scratch_for(piece);
    digest = copy_hashed(piece, raw, CopyStores::kCached);
  }
  mark_digest(piece, digest);
  format::ChunkEntry entry;
  entry.raw_bytes = entry.stored_bytes = static_cast<uint32_t>(piece.raw_bytes);
  entry.id = content_id(digest, piece.dtype().bits);

  // 3 dedup
  if (parent) expect_same_ = entry.id == parent->entry.id;
  if (!parent || !expect_same_) parent = find_elsewhere(entry);
  if (parent) {
    packs_.drop();
    if (keep) base_ = {.raw = raw, .chunk = *parent};
    reuse(piece, std::move(*parent), batch);
    return ok_status();
  }

  // 4 encode
  Stored stored{.digest = digest};
  if (stored_raw) {
    stored.choice = *choice;
  } else {
    CAISSON_ASSIGN_OR_RETURN(stored, encode(piece, raw, digest, choice, before, entry));
  }
  entry.reason = stored.choice.reason;
  count_codec(stored.choice, entry);

  // 5 pack (6 write: the pack writer submits each segment as soon as it is full)
  packs_.commit(entry, stored.digest);
  PlacedChunk chunk{.entry = entry,
                    .parent_pack = nullptr,
                    .own_pack = packs_.pack(),
                    .base_pack = stored.base_pack};
  shared_.chunks.add(chunk);
  if (keep) base_ = {.raw = raw, .chunk = chunk};
  place(piece, std::move(chunk), batch);
  return ok_status();
}

void SaveWorker::count_codec(CodecChoice choice, const format::ChunkEntry& entry) {
  tally_.add(choice, entry.raw_bytes, entry.stored_bytes);
  if (shared_.config.metrics == nullptr) return;
  const auto reason = static_cast<size_t>(choice.reason);
  shared_.config.metrics->state().codec_reason_raw_bytes[reason].add(entry.raw_bytes);
}

// A weight with its master beside it is the master's base, which no delta can be.
bool SaveWorker::may_be_delta(const Piece& piece) const {
  return piece.role != Role::kBase && shared_.config.delta && policy_.may_spend() &&
         shared_.config.delta(piece.shard.spec().name);
}

// Into the segment being filled: against a base, if there is one that helps, else by itself.
Result<SaveWorker::Stored> SaveWorker::encode(const Piece& piece, Bytes raw, const Digest& digest,
                                              std::optional<CodecChoice> choice,
                                              const std::optional<PlacedChunk>& before,
                                              format::ChunkEntry& entry) {
  CAISSON_ASSIGN_OR_RETURN(const std::optional<Digest> twin, encode_twin(piece, raw, entry));
  if (twin) return Stored{*twin, {CodecId::kTwin, CodecReason::kBase}};
  if (before) {
    CAISSON_ASSIGN_OR_RETURN(const std::optional<Stored> delta,
                             encode_delta(piece, *before, raw, entry));
    if (delta) return *delta;
  }
  if (!choice) choice = choose_codec(piece, raw);
  return encode_alone(piece, *choice, raw, digest, entry);
}

// Against the base that was stored just before; nothing when there is none, or it lies in
// another pack, or its rounding is not what it is.
Result<std::optional<Digest>> SaveWorker::encode_twin(const Piece& piece, Bytes raw,
                                                      format::ChunkEntry& entry) {
  const format::ChunkEntry& base = base_.chunk.entry;
  const bool usable = piece.role == Role::kTwin && !base_.raw.empty() &&
                      base_.chunk.parent_pack == nullptr &&
                      (base.flags & format::kFlagHasBase) == 0;
  if (!usable || !policy_.may_code()) return std::optional<Digest>();
  const format::BaseRef ref{.id = base.id,
                            .raw_bytes = base.raw_bytes,
                            .stored_bytes = base.stored_bytes,
                            .offset_units = base.offset_units,
                            .codec = base.codec,
                            .pack = base_.chunk.own_pack};
  CAISSON_ASSIGN_OR_RETURN(const Bytes encoded, encode_with_base(CodecId::kTwin, piece, raw, ref,
                                                                 base_.raw, raw.size() / 4 * 3));
  if (encoded.empty()) return std::optional<Digest>();
  CAISSON_ASSIGN_OR_RETURN(const MutableBytes to, packs_.reserve(encoded.size(), false));
  if (packs_.pack() != ref.pack) {
    packs_.drop();
    return std::optional<Digest>();
  }
  return std::optional(pack_encoded(CodecId::kTwin, encoded, to, entry));
}

// Against the anchor of the chunk that the parent has in this place; nothing unless that is clearly
// smaller than what it would be by itself. An anchor that cannot be read is no reason to fail.
Result<std::optional<SaveWorker::Stored>> SaveWorker::encode_delta(const Piece& piece,
                                                                   const PlacedChunk& before,
                                                                   Bytes raw,
                                                                   format::ChunkEntry& entry) {
  const auto anchor = parent_of(piece).dedup.anchor_of(before);
  if (!anchor || anchor->ref.raw_bytes != raw.size()) return std::optional<Stored>();
  const ElementFormat element = element_format(piece.dtype());
  const Result<Bytes> base = parent_of(piece).dedup.read_anchor(*anchor);
  if (!base.ok()) return std::optional<Stored>();
  const uint64_t alone = bytes_alone(element, raw);
  CAISSON_ASSIGN_OR_RETURN(const Bytes encoded,
                           encode_with_base(CodecId::kDelta, piece, raw, anchor->ref, *base,
                                            alone - alone / kDeltaGainDivisor));
  if (encoded.empty()) return std::optional<Stored>();
  CAISSON_ASSIGN_OR_RETURN(const MutableBytes to, packs_.reserve(encoded.size(), false));
  const Digest digest = pack_encoded(CodecId::kDelta, encoded, to, entry);
  return std::optional(Stored{digest, {CodecId::kDelta, CodecReason::kBase}, anchor->pack});
}

// Reference and encoded bytes, in encoded_; nothing when they are more than `bytes_max`.
Result<Bytes> SaveWorker::encode_with_base(CodecId id, const Piece& piece, Bytes raw,
                                           const format::BaseRef& ref, Bytes base,
                                           uint64_t bytes_max) {
  if (bytes_max <= format::kBaseRefBytes) return Bytes();
  const MutableBytes to = encoded_.first(bytes_max);
  CodingTime time(policy_, raw.size(), shared_.config.codec_cpu >= 0, began_);
  const TraceSpan span(trace_, encode_row_, to_string(CodecReason::kBase).data(), raw.size());
  CAISSON_ASSIGN_OR_RETURN(const Codec* codec, find_codec(static_cast<uint8_t>(id)));
  CAISSON_ASSIGN_OR_RETURN(const size_t bytes,
                           codec->encode(codec_context_, element_format(piece.dtype()), raw, base,
                                         to.subspan(format::kBaseRefBytes)));
  if (bytes == 0) return Bytes();
  time.stored(format::kBaseRefBytes + bytes);
  ByteWriter header;
  format::put_base_ref(header, ref);
  std::ranges::copy(header.bytes(), to.begin());
  return Bytes(to.first(format::kBaseRefBytes + bytes));
}

// Codecs write to memory that stays in the caches; from there one pass copies and hashes.
Digest SaveWorker::pack_encoded(CodecId codec, Bytes encoded, MutableBytes to,
                                format::ChunkEntry& entry) {
  entry.codec = static_cast<uint8_t>(codec);
  entry.flags = find_codec(entry.codec).value()->needs_base() ? format::kFlagHasBase : 0;
  entry.stored_bytes = static_cast<uint32_t>(encoded.size());
  DigestStream stream(encoded.size(), to.data(), CopyStores::kPastCaches);
  stream.add(encoded);
  return stream.finish();
}

// What does not get smaller is stored raw.
Result<SaveWorker::Stored> SaveWorker::encode_alone(const Piece& piece, CodecChoice choice,
                                                    Bytes raw, const Digest& digest,
                                                    format::ChunkEntry& entry) {
  if (choice.codec != CodecId::kRaw) {
    CAISSON_ASSIGN_OR_RETURN(const Bytes encoded, encode_for(piece, choice, raw));
    if (!encoded.empty()) {
      CAISSON_ASSIGN_OR_RETURN(const MutableBytes to, packs_.reserve(encoded.size(), false));
      return Stored{pack_encoded(choice.codec, encoded, to, entry), choice};
    }
    choice = {CodecId::kRaw, CodecReason::kNotSmaller};
  }
  CAISSON_ASSIGN_OR_RETURN(const MutableBytes to,
                           packs_.reserve(raw.size(), is_block_aligned(raw.size())));
  std::ranges::copy(raw, to.begin());
  return Stored{digest, choice};
}

// In encoded_; nothing when it does not get smaller.
Result<Bytes> SaveWorker::encode_for(const Piece& piece, CodecChoice choice, Bytes raw) {
  CodingTime time(policy_, raw.size(), shared_.config.codec_cpu >= 0, began_);
  const TraceSpan span(trace_, encode_row_, to_string(choice.reason).data(), raw.size());
  CAISSON_ASSIGN_OR_RETURN(const Codec* codec, find_codec(static_cast<uint8_t>(choice.codec)));
  CAISSON_ASSIGN_OR_RETURN(const size_t bytes,
                           codec->encode(codec_context_, element_format(piece.dtype()), raw, {},
                                         encoded_.first(raw.size())));
  if (bytes > 0) time.stored(bytes);
  return Bytes(encoded_.first(bytes));
}

std::optional<CodecChoice> SaveWorker::choose_codec(const Piece& piece, Bytes raw) {
  policy_.on_device(packs_.device_use());
  return policy_.choose(piece.shard.spec(), codec_context_, raw);
}

size_t SaveWorker::begin_band(const Piece& piece, uint64_t tiles_max) {
  const size_t tiles = band_.begin(piece.shard, piece.index, std::min(tiles_max, piece.in_a_row));
  for (size_t i = 1; i < tiles; ++i) mark_sampled(piece, piece.number + i, band_.box(i));
  return tiles;
}

// The tiles beside it are packed behind it, to where they are reserved when their turn comes. One
// that is found elsewhere then leaves its place to the next.
Result<Digest> SaveWorker::gather_into_segment(const Piece& piece, MutableBytes& raw) {
  const bool aligned = is_block_aligned(piece.raw_bytes);
  if (!band_.holds_packed(piece.shard, piece.index)) {
    // Only as many of those beside it as will be stored raw, too, each in its place.
    uint64_t alike = policy_.raw_in_a_row(piece.shard.spec());
    if (piece.raw_bytes % (aligned ? format::kBlockBytes : format::kOffsetUnit) != 0) alike = 0;
    const uint64_t room =
        alike > 0 ? packs_.reservations_in_a_row(piece.raw_bytes, aligned) : uint64_t{1};
    const size_t tiles = begin_band(piece, std::min(room - 1, alike) + 1);
    CAISSON_ASSIGN_OR_RETURN(raw, packs_.reserve(tiles * piece.raw_bytes, aligned));
    if (tiles == 1) return copy_hashed(piece, raw, CopyStores::kPastCaches);
    const TraceSpan span(trace_, hash_row_, "copy and hash a band", raw.size());
    const auto began = SteadyClock::now();
    band_.sweep(raw);
    policy_.on_gathered(raw.size(), seconds_since(began));
    packs_.drop();
  }
  CAISSON_ASSIGN_OR_RETURN(raw, packs_.reserve(piece.raw_bytes, aligned));
  const Bytes packed = band_.bytes(piece.index);
  CAISSON_CHECK(raw.data() <= packed.data());
  if (raw.data() != packed.data()) std::ranges::copy(packed, raw.begin());
  return band_.digest(piece.index);
}

Digest SaveWorker::copy_hashed(const Piece& piece, MutableBytes to, CopyStores stores) {
  const TraceSpan span(trace_, hash_row_, "copy and hash", piece.raw_bytes);
  const auto began = SteadyClock::now();
  const Digest digest = gather_hashed(piece.memory, piece.box, piece.dtype(), to, stores);
  policy_.on_gathered(piece.raw_bytes, seconds_since(began));
  return digest;
}

std::optional<Digest> SaveWorker::hash_in_place(const Piece& piece) {
  const TraceSpan span(trace_, hash_row_, "hash in place", piece.raw_bytes);
  return digest_in_place(piece.memory, piece.box, piece.dtype());
}

void SaveWorker::place(const Piece& piece, PlacedChunk chunk, SaveBatch& batch) {
  const uint64_t entry = plan_->first_entry + piece.number;
  batch.pieces.push_back({.entry = entry, .chunk = std::move(chunk)});
}

void SaveWorker::reuse(const Piece& piece, PlacedChunk chunk, SaveBatch& batch) {
  batch.deduplicated_bytes += chunk.entry.raw_bytes;
  place(piece, std::move(chunk), batch);
}

// Before the piece is read, so that no later change is missed.
void SaveWorker::mark_sampled(const Piece& piece, uint64_t number, const Box& box) {
  if (shared_.config.memory_check != MemoryCheck::kSampled) return;
  plan_->marks[number] = sample_of(piece.memory, box, piece.dtype());
}

void SaveWorker::mark_digest(const Piece& piece, const Digest& digest) {
  if (shared_.config.memory_check != MemoryCheck::kFull) return;
  plan_->marks[piece.number] = mark_of(digest);
}

uint64_t SaveWorker::mark_now(const Piece& piece) {
  if (shared_.config.memory_check == MemoryCheck::kSampled) {
    return sample_of(piece.memory, piece.box, piece.dtype());
  }
  if (const auto digest = hash_in_place(piece)) return mark_of(*digest);
  return mark_of(copy_hashed(piece, scratch_.first(piece.raw_bytes), CopyStores::kCached));
}

Status SaveWorker::check_piece(const Piece& piece) {
  const TraceSpan span(trace_, check_row_, "look again");
  if (mark_now(piece) == plan_->marks[piece.number]) return ok_status();
  return invalid_argument("its memory changed, in " + to_string(piece.box) +
                          ", before the save had read everything; leave lent memory alone until "
                          "then, or save with `stage`");
}

}  // namespace caisson

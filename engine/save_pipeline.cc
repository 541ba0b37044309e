#include "engine/save_pipeline.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <stop_token>
#include <thread>
#include <utility>

#include "compression/codec.h"
#include "engine/pack_writer.h"
#include "engine/save_batches.h"
#include "engine/save_codec.h"
#include "engine/save_plan.h"
#include "io/base/check.h"

namespace caisson {

namespace {

// Segments in flight over all workers, as measured best for one device; a worker never has fewer
// than kSegmentsMin, one of which is being filled.
constexpr uint32_t kSegmentsInFlight = 16;
constexpr uint32_t kSegmentsMin = 4;
constexpr uint32_t kWorkersMax = 64;
constexpr uint64_t kPieceBytesMax = format::kSegmentBytesMax - format::kBlockBytes;

// What the workers of one rank part share.
struct SharedState {
  SavePipeline::Config config;
  PartWriter part;
  std::unique_ptr<StoreDedup> store_dedup;  // null without hints
  SaveChunks chunks{};
  std::atomic<uint64_t> bytes_left{0};  // of this put, not yet through stage 5
};

// One worker: gathers, hashes, encodes and drives its own ring, which was measured to be as fast as
// any division of labour. Thread-compatible.
class SaveWorker {
 public:
  SaveWorker(ObjectStore& objects, MemoryBudget& budget, SharedState& shared, uint32_t number,
             uint32_t workers)
      : budget_(budget),
        shared_(shared),
        workers_(workers),
        parent_(shared.config.parent),
        packs_(objects, {.save = shared.config.save,
                         .writer = shared.part.part().writer,
                         .first_number = number,
                         .number_step = workers}) {}

  // Saves batches until none is left; `batches` hears of a failure. On return nothing is in flight
  // and no memory is held.
  void run(const SavePlan& plan, SaveBatches& batches);
  ParentDedup& parent() { return parent_; }
  const Status& parent_error() const { return parent_.error(); }
  PackWriter& packs() { return packs_; }

 private:
  Status make_buffers(const SavePlan& plan);
  Status save_batch(const SavePlan& plan, SaveBatch& batch);
  Status save_piece(const PlannedShard& shard, uint64_t index, SaveBatch& batch);
  void reuse(PlacedChunk chunk, SaveBatch& batch);
  Status encode(const PlannedShard& shard, Bytes raw, format::ChunkEntry& entry);

  MemoryBudget& budget_;
  SharedState& shared_;
  const uint32_t workers_;
  ParentDedup parent_;
  CodecContext codec_context_;
  BufferPool pool_;  // outlives the packs' ring
  PackWriter packs_;
  MutableBytes scratch_;  // the raw bytes of a piece that is about to be encoded
  const PlannedShard* selected_ = nullptr;
  size_t shard_index_ = 0;
  bool expect_same_ = true;  // the last piece compared was unchanged
};

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

void SaveWorker::run(const SavePlan& plan, SaveBatches& batches) {
  selected_ = nullptr;
  shard_index_ = 0;
  Status status = make_buffers(plan);
  SaveBatch batch;
  while (status.ok() && batches.claim(batch)) {
    status = save_batch(plan, batch);
    if (status.ok()) batches.finish(std::move(batch));
  }
  // 6 write and sync: what is in flight comes back here; sync and name follow when a pack is full,
  // and for the last one in seal().
  const Status ended = packs_.end();
  if (status.ok()) status = ended;
  pool_ = BufferPool();
  if (!status.ok()) batches.fail(status);
}

Status SaveWorker::save_batch(const SavePlan& plan, SaveBatch& batch) {
  batch.chunks.reserve(batch.count);
  for (uint64_t work = batch.first; work < batch.first + batch.count; ++work) {
    if (shared_.config.stop.stop_requested()) return cancelled("the save was cancelled");
    const auto holds = [&](const PlannedShard& s) {
      return work >= s.first_work && work - s.first_work < s.pieces();
    };
    while (!holds(plan.shards[shard_index_])) ++shard_index_;  // batches come in rising order
    const PlannedShard& shard = plan.shards[shard_index_];
    const uint64_t index = shard.shard().first_piece + (work - shard.first_work);
    Status status = save_piece(shard, index, batch);
    if (!status.ok()) {
      return status.with_context("tensor \"" + shard.record.spec.name + "\"");
    }
  }
  return ok_status();
}

// One piece through stages 1 to 6. What is hashed is what is written: a piece is copied into the
// segment buffer first and its id is taken from the copy, so lent memory that changes meanwhile
// gives a checkpoint of some moment's bytes, never one whose bytes are not their id.
Status SaveWorker::save_piece(const PlannedShard& shard, uint64_t index, SaveBatch& batch) {
  const TensorSpec& spec = shard.record.spec;

  // 1 tile
  const Box piece = piece_at(shard.shard().grid, shard.shard().box, index);
  CAISSON_ASSIGN_OR_RETURN(const uint64_t raw_bytes, packed_bytes(piece.elements(), spec.dtype));
  if (raw_bytes == 0 || raw_bytes > kPieceBytesMax) {
    return invalid_argument("its tile " + to_string(piece) + " has " + std::to_string(raw_bytes) +
                            " bytes, a chunk takes 1 to " + std::to_string(kPieceBytesMax));
  }
  packs_.expect(shared_.bytes_left.load(std::memory_order_relaxed) / workers_ + kPieceBytesMax);
  shared_.bytes_left.fetch_sub(raw_bytes, std::memory_order_relaxed);
  batch.raw_bytes += raw_bytes;
  format::ChunkEntry entry;
  entry.raw_bytes = entry.stored_bytes = static_cast<uint32_t>(raw_bytes);
  if (raw_bytes <= format::kInlineBytesMax && shared_.part.try_reserve_inline(raw_bytes)) {
    const size_t at = batch.inline_bytes.size();
    batch.inline_bytes.resize(at + raw_bytes);
    const MutableBytes raw = MutableBytes(batch.inline_bytes).subspan(at);
    gather(shard.memory, piece, spec.dtype, raw);
    entry.id = content_id(raw, spec.dtype.bits);
    entry.pack = format::kPackInline;
    batch.chunks.push_back({.entry = entry, .parent_pack = nullptr, .own_pack = {}});
    return ok_status();
  }
  if (selected_ != &shard) {
    parent_.select(spec, shard.shard().box);
    selected_ = &shard;
  }
  std::optional<PlacedChunk> parent = parent_.find(piece);
  if (parent && parent->entry.raw_bytes != raw_bytes) parent.reset();
  if (parent && expect_same_) {
    // Unchanged so far: hash where it lies, and most often copy nothing at all.
    const Bytes in_place = contiguous_piece(shard.memory, piece, spec.dtype);
    if (!in_place.empty() && content_id(in_place, spec.dtype.bits) == parent->entry.id) {
      reuse(std::move(*parent), batch);
      return ok_status();
    }
  }
  const bool raw_codec = is_stored_raw(shared_.config.codec, shard.record);
  MutableBytes raw = scratch_.first(raw_bytes);
  if (raw_codec) {
    CAISSON_ASSIGN_OR_RETURN(raw,
                             packs_.reserve(raw_bytes, raw_bytes >= format::kRawAlignedBytesMin));
  }
  gather(shard.memory, piece, spec.dtype, raw);

  // 2 hash
  entry.id = content_id(raw, spec.dtype.bits);

  // 3 dedup
  if (parent) expect_same_ = entry.id == parent->entry.id;
  if (!parent || !expect_same_) parent = shared_.chunks.find(entry.id, entry.raw_bytes);
  if (!parent && shared_.store_dedup) {
    parent = shared_.store_dedup->find(entry.id, entry.raw_bytes);
  }
  if (parent) {
    packs_.drop();
    reuse(std::move(*parent), batch);
    return ok_status();
  }

  // 4 encode
  if (!raw_codec) CAISSON_RETURN_IF_ERROR(encode(shard, raw, entry));

  // 5 pack (6 write: the pack writer submits each segment as soon as it is full)
  packs_.commit(entry);
  PlacedChunk chunk{.entry = entry, .parent_pack = nullptr, .own_pack = packs_.pack()};
  shared_.chunks.add(chunk);
  batch.chunks.push_back(std::move(chunk));
  return ok_status();
}

void SaveWorker::reuse(PlacedChunk chunk, SaveBatch& batch) {
  batch.deduplicated_bytes += chunk.entry.raw_bytes;
  batch.chunks.push_back(std::move(chunk));
}

// Into the segment being filled. What does not get smaller is stored raw.
Status SaveWorker::encode(const PlannedShard& shard, Bytes raw, format::ChunkEntry& entry) {
  const DType dtype = shard.record.spec.dtype;
  CAISSON_ASSIGN_OR_RETURN(const Codec* codec,
                           choose_piece_codec(shared_.config.codec, dtype, codec_context_, raw));
  if (codec->id() != CodecId::kRaw) {
    CAISSON_ASSIGN_OR_RETURN(const MutableBytes to, packs_.reserve(raw.size(), false));
    CAISSON_ASSIGN_OR_RETURN(const size_t bytes,
                             codec->encode(codec_context_, element_format(dtype), raw, {}, to));
    if (bytes > 0) {
      entry.codec = static_cast<uint8_t>(codec->id());
      entry.stored_bytes = static_cast<uint32_t>(bytes);
      return ok_status();
    }
    packs_.drop();
  }
  CAISSON_ASSIGN_OR_RETURN(const MutableBytes to,
                           packs_.reserve(raw.size(), raw.size() >= format::kRawAlignedBytesMin));
  std::ranges::copy(raw, to.begin());
  return ok_status();
}

class RankPartPipeline final : public SavePipeline {
 public:
  RankPartPipeline(ObjectStore& objects, MemoryBudget& budget, Uuid writer, Config config)
      : part_ref_({.kind = format::ObjectKind::kPart,
                   .save = config.save,
                   .writer = writer,
                   .number = 0}),
        shared_{.config = std::move(config),
                .part = PartWriter(objects, part_ref_, shared_.config.rank),
                .store_dedup = nullptr} {
    if (shared_.config.hints != nullptr) {
      shared_.store_dedup = std::make_unique<StoreDedup>(objects, *shared_.config.hints);
    }
    const uint32_t workers = std::clamp(shared_.config.workers, 1u, kWorkersMax);
    for (uint32_t i = 0; i < workers; ++i) {
      workers_.emplace_back(objects, budget, shared_, i, workers);
    }
  }

  Status put(std::span<const SaveItem> items) override;
  Result<format::SealedRef> seal() override;
  const SaveTotals& totals() const override { return totals_; }
  Status parent_error() const override {
    for (const SaveWorker& worker : workers_) {
      if (!worker.parent_error().ok()) return worker.parent_error();
    }
    return ok_status();
  }

 private:
  Status take_batch(const SaveBatch& batch);
  void show_progress(bool always);

  const format::ObjectRef part_ref_;
  SharedState shared_;
  std::deque<SaveWorker> workers_;
  SaveTotals totals_;
  uint64_t bytes_total_ = 0;
  std::chrono::steady_clock::time_point shown_at_{};
  Status error_;
};

// The whole path, in order: plan (1), workers (1 to 6, above), the table. Stage 7 is commit.cc.
Status RankPartPipeline::put(std::span<const SaveItem> items) {
  if (!error_.ok()) return error_;
  auto planned = plan_save(items, workers_.front().parent(), shared_.part.entries());
  if (!planned.ok()) return error_ = planned.status();
  const SavePlan plan = std::move(planned).value();
  bytes_total_ += plan.raw_bytes;
  totals_.tensors += plan.shards.size();
  for (const PlannedShard& shard : plan.shards) shared_.part.add_record(shard.record);
  if (plan.pieces == 0) return ok_status();

  shared_.bytes_left = plan.raw_bytes;
  SaveBatches batches(plan.pieces, [this](const SaveBatch& batch) { return take_batch(batch); });
  {
    std::vector<std::jthread> others;
    for (size_t i = 1; i < workers_.size(); ++i) {
      others.emplace_back([&, i] { workers_[i].run(plan, batches); });
    }
    workers_.front().run(plan, batches);
  }
  error_ = batches.status();
  show_progress(true);
  return error_;
}

// In the order of the pieces, whichever worker was first.
Status RankPartPipeline::take_batch(const SaveBatch& batch) {
  Bytes inline_bytes = batch.inline_bytes;
  for (const PlacedChunk& chunk : batch.chunks) {
    format::ChunkEntry entry = chunk.entry;
    if (entry.pack == format::kPackInline) {
      CAISSON_RETURN_IF_ERROR(shared_.part.add_inline(entry, inline_bytes.first(entry.raw_bytes)));
      inline_bytes = inline_bytes.subspan(entry.raw_bytes);
      continue;
    }
    CAISSON_ASSIGN_OR_RETURN(entry.pack, chunk.parent_pack != nullptr
                                             ? shared_.part.pack_index(*chunk.parent_pack)
                                             : shared_.part.pack_index(chunk.own_pack));
    CAISSON_RETURN_IF_ERROR(shared_.part.add(entry));
  }
  totals_.tiles += batch.chunks.size();
  totals_.raw_bytes += batch.raw_bytes;
  totals_.deduplicated_bytes += batch.deduplicated_bytes;
  show_progress(false);
  return ok_status();
}

void RankPartPipeline::show_progress(bool always) {
  if (!shared_.config.progress) return;
  const auto now = std::chrono::steady_clock::now();
  if (!always && now - shown_at_ < std::chrono::milliseconds(100)) return;
  shown_at_ = now;
  shared_.config.progress({.bytes_done = totals_.raw_bytes, .bytes_total = bytes_total_});
}

Result<format::SealedRef> RankPartPipeline::seal() {
  if (!error_.ok()) return error_;
  std::vector<format::SealedRef> packs;
  for (SaveWorker& worker : workers_) {
    auto sealed = worker.packs().finish();
    if (!sealed.ok()) return error_ = sealed.status();
    packs.insert(packs.end(), sealed->begin(), sealed->end());
    shared_.part.add_stored_bytes(worker.packs().stored_bytes());
  }
  auto part = shared_.part.seal(packs);
  totals_.stored_bytes = shared_.part.trailer().stored_bytes;
  error_ = part.ok() ? invalid_argument("the rank part is sealed") : part.status();
  return part;
}

}  // namespace

SaveItem blob_item(std::string name, Bytes bytes) {
  SaveItem item{.kind = TensorKind::kBlob, .shard = {}, .alias_of = {}};
  item.shard.tensor = {.name = std::move(name),
                       .dtype = {.code = DTypeCode::kUInt, .bits = 8},
                       .shape = Shape::of(std::array<uint64_t, 1>{bytes.size()})};
  item.shard.box = Box::whole(item.shard.tensor.shape);
  item.shard.data = bytes.data();
  return item;
}

SaveItem alias_item(std::string name, std::string target) {
  SaveItem item{.kind = TensorKind::kAlias, .shard = {}, .alias_of = std::move(target)};
  item.shard.tensor.name = std::move(name);
  return item;
}

Result<std::unique_ptr<SavePipeline>> SavePipeline::create(ObjectStore& objects,
                                                           MemoryBudget& budget, UuidSource& uuids,
                                                           Config config) {
  CAISSON_RETURN_IF_ERROR(check_codec_policy(config.codec));
  return std::unique_ptr<SavePipeline>(
      std::make_unique<RankPartPipeline>(objects, budget, uuids.next(), std::move(config)));
}

}  // namespace caisson

#include "engine/save_pipeline.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <thread>
#include <utility>

#include "engine/metrics.h"
#include "engine/save_batches.h"
#include "engine/save_codec.h"
#include "engine/save_plan.h"
#include "engine/save_worker.h"

namespace caisson {

namespace {

constexpr uint32_t kWorkersMax = 64;

class RankPartPipeline final : public SavePipeline {
 public:
  RankPartPipeline(ObjectStore& objects, MemoryBudget& budget, Uuid writer, uint32_t rank,
                   Config config)
      : part_ref_({.kind = format::ObjectKind::kPart,
                   .save = config.save,
                   .writer = writer,
                   .number = 0}),
        shared_{.config = std::move(config),
                .part = PartWriter(objects, part_ref_, rank),
                .store_dedup = nullptr} {
    if (shared_.config.hints != nullptr) {
      shared_.store_dedup = std::make_unique<StoreDedup>(objects, *shared_.config.hints);
    }
    // Each worker fills one pack at a time, so there is one for every device at least.
    const uint32_t workers =
        std::clamp(std::max(shared_.config.workers, objects.devices()), 1u, kWorkersMax);
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
  void count(const SaveBatch& batch) const;
  Status add_entry(const PlacedChunk& chunk, Bytes inline_bytes);
  void show_progress(bool always);

  const format::ObjectRef part_ref_;
  SaveShared shared_;
  std::deque<SaveWorker> workers_;
  struct EarlyPiece {
    PlacedChunk chunk;
    ByteVector inline_bytes;
  };
  std::map<uint64_t, EarlyPiece> early_;  // by entry
  SaveTotals totals_;
  uint64_t bytes_total_ = 0;
  std::chrono::steady_clock::time_point shown_at_{};
  Status error_;
};

// The whole path, in order: plan (1), workers (1 to 6, save_worker.cc), the table. Stage 7 is
// commit.cc.
Status RankPartPipeline::put(std::span<const SaveItem> items) {
  if (!error_.ok()) return error_;
  // A codec that was asked for by name is the only one.
  const bool twins = shared_.config.codec == "auto" && shared_.config.codec_cpu != 0;
  auto planned = plan_save(items, workers_.front().parent(), shared_.part.entries(), twins);
  if (!planned.ok()) return error_ = planned.status();
  const SavePlan plan = std::move(planned).value();
  bytes_total_ += plan.raw_bytes;
  totals_.tensors += plan.shards.size();
  for (const PlannedShard& shard : plan.shards) shared_.part.add_record(shard.record);
  if (plan.pieces == 0) return ok_status();

  const uint64_t expected = shared_.config.bytes_expected;
  shared_.bytes_left = std::max(plan.raw_bytes, expected - std::min(expected, totals_.raw_bytes));
  shared_.first_entry = plan.first_entry;
  if (shared_.config.memory_check != MemoryCheck::kOff) shared_.marks.resize(plan.pieces);
  SaveBatches batches(plan.units, [this](const SaveBatch& batch) { return take_batch(batch); });
  SaveBatches checks(plan.units, [](const SaveBatch&) { return ok_status(); });
  {
    std::vector<std::jthread> others;
    // No more than there are batches: a small put needs no thread.
    const uint64_t working = std::min<uint64_t>(
        workers_.size(), (plan.units + SaveBatches::kBatchUnits - 1) / SaveBatches::kBatchUnits);
    for (size_t i = 1; i < working; ++i) {
      others.emplace_back([&, i] { workers_[i].run(plan, batches, checks); });
    }
    workers_.front().run(plan, batches, checks);
  }
  CodecTally tally;
  for (const SaveWorker& worker : workers_) tally.add(worker.tally());
  totals_.codecs = tally.uses();
  error_ = batches.status();
  show_progress(true);
  return error_;
}

// In the order of the units, whichever worker was first. Entries go to the table in its own order:
// those of a twin wait until the entries of its base are there.
Status RankPartPipeline::take_batch(const SaveBatch& batch) {
  Bytes inline_bytes = batch.inline_bytes;
  for (const SavedPiece& piece : batch.pieces) {
    Bytes raw;
    if (piece.chunk.entry.pack == format::kPackInline) {
      raw = inline_bytes.first(piece.chunk.entry.raw_bytes);
      inline_bytes = inline_bytes.subspan(raw.size());
    }
    if (piece.entry != shared_.part.entries()) {
      early_.emplace(piece.entry, EarlyPiece{piece.chunk, ByteVector(raw.begin(), raw.end())});
      continue;
    }
    CAISSON_RETURN_IF_ERROR(add_entry(piece.chunk, raw));
    for (auto next = early_.begin(); next != early_.end() && next->first == shared_.part.entries();
         next = early_.erase(next)) {
      CAISSON_RETURN_IF_ERROR(add_entry(next->second.chunk, next->second.inline_bytes));
    }
  }
  totals_.tiles += batch.pieces.size();
  totals_.raw_bytes += batch.raw_bytes;
  totals_.deduplicated_bytes += batch.deduplicated_bytes;
  if (shared_.config.metrics != nullptr) count(batch);
  show_progress(false);
  return ok_status();
}

void RankPartPipeline::count(const SaveBatch& batch) const {
  Metrics::State& metrics = shared_.config.metrics->state();
  metrics.save_raw_bytes.add(batch.raw_bytes);
  metrics.save_deduplicated_bytes.add(batch.deduplicated_bytes);
  for (const auto& [entry, chunk] : batch.pieces) {
    const bool is_inline = chunk.entry.pack == format::kPackInline;
    const ChunkSource source = is_inline ? ChunkSource::kInline : chunk.source;
    metrics.save_chunks[static_cast<size_t>(source)].add();
    if (source != ChunkSource::kNew) continue;
    metrics.save_stored_bytes.add(chunk.entry.stored_bytes);
    metrics.codec_chunks[chunk.entry.codec].add();
    metrics.codec_raw_bytes[chunk.entry.codec].add(chunk.entry.raw_bytes);
    metrics.codec_stored_bytes[chunk.entry.codec].add(chunk.entry.stored_bytes);
  }
}

Status RankPartPipeline::add_entry(const PlacedChunk& chunk, Bytes inline_bytes) {
  format::ChunkEntry entry = chunk.entry;
  if (entry.pack == format::kPackInline) return shared_.part.add_inline(entry, inline_bytes);
  // Listed, so that whoever keeps the part's packs keeps the base.
  if (chunk.base_pack != nullptr) {
    CAISSON_RETURN_IF_ERROR(shared_.part.pack_index(*chunk.base_pack).status());
  }
  CAISSON_ASSIGN_OR_RETURN(entry.pack, chunk.parent_pack != nullptr
                                           ? shared_.part.pack_index(*chunk.parent_pack)
                                           : shared_.part.pack_index(chunk.own_pack));
  return shared_.part.add(entry);
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
  const uint32_t rank = config.rank;
  return std::unique_ptr<SavePipeline>(
      std::make_unique<RankPartPipeline>(objects, budget, uuids.next(), rank, std::move(config)));
}

}  // namespace caisson

#include "engine/save_pipeline.h"

#include <algorithm>
#include <atomic>
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
#include "engine/twin_search.h"

namespace caisson {

namespace {

constexpr uint32_t kWorkersMax = 64;
// A put of more is planned so many at a time, while workers save what is planned already.
constexpr size_t kItemsPlanned = 2048;

// No item was checked yet, and what they have may be anything: what makes no sense adds nothing or
// as much as there can be, and the plan refuses it.
uint64_t bytes_of(std::span<const SaveItem> items) {
  constexpr uint64_t kBytesMax = uint64_t{1} << 48;
  uint64_t bytes = 0;
  for (const SaveItem& item : items) {
    const auto& [rank, offset, extent] = item.shard.box;
    const bool counts = item.kind != TensorKind::kAlias && item.shard.replica.count > 0 &&
                        rank >= 0 && rank <= kRankMax;
    if (!counts) continue;
    uint64_t bits = item.shard.tensor.dtype.bits;
    for (int i = 0; i < rank && bits > 0; ++i) {
      bits = extent[i] > 8 * kBytesMax / bits ? 8 * kBytesMax : bits * extent[i];
    }
    bytes = std::min(bytes + bits / 8 / item.shard.replica.count, kBytesMax);
  }
  return bytes;
}

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
                .store_dedup = nullptr},
        parent_(objects, shared_.config.parent) {
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
    return parent_.error();
  }

 private:
  Status plan(std::span<const SaveItem> items, bool twins, SaveBatches& batches,
              SaveBatches& checks);
  Status take_batch(const SaveBatch& batch);
  void count(const SaveBatch& batch) const;
  Status add_entry(const PlacedChunk& chunk, Bytes inline_bytes);
  void show_progress(bool always);

  const format::ObjectRef part_ref_;
  SaveShared shared_;
  ParentDedup parent_;  // of the planning
  std::deque<SaveWorker> workers_;
  std::deque<SavePlan> plans_;  // of the put
  uint64_t entries_planned_ = 0;
  struct EarlyPiece {
    PlacedChunk chunk;
    ByteVector inline_bytes;
  };
  std::map<uint64_t, EarlyPiece> early_;  // by entry
  SaveTotals totals_;
  std::atomic<uint64_t> bytes_total_{0};
  std::chrono::steady_clock::time_point shown_at_{};
  Status error_;
};

// The whole path, in order: plan (1), workers (1 to 6, save_worker.cc), the table. Stage 7 is
// commit.cc.
Status RankPartPipeline::put(std::span<const SaveItem> items) {
  if (!error_.ok()) return error_;
  // A codec that was asked for by name is the only one.
  const bool twins =
      shared_.config.codec == "auto" && shared_.config.codec_cpu != 0 && may_have_twins(items);
  const size_t at_once = twins ? items.size() : kItemsPlanned;
  plans_.clear();
  SaveBatches batches([this](const SaveBatch& batch) { return take_batch(batch); });
  SaveBatches checks([](const SaveBatch&) { return ok_status(); });
  error_ = plan(items.first(std::min(at_once, items.size())), twins, batches, checks);
  if (!error_.ok()) return error_;

  const bool at_first = at_once >= items.size();  // everything is planned
  PutSize size{.raw_bytes = plans_.front().raw_bytes, .pieces = plans_.front().pieces};
  if (at_first && size.pieces == 0) return ok_status();
  if (!at_first) size = {.raw_bytes = bytes_of(items), .pieces = items.size()};
  const uint64_t bytes_before = bytes_total_;
  bytes_total_ = bytes_before + size.raw_bytes;
  const uint64_t expected = shared_.config.bytes_expected;
  shared_.bytes_left = std::max(size.raw_bytes, expected - std::min(expected, totals_.raw_bytes));
  // No more workers than there are batches: a small put needs no thread.
  const uint64_t units = at_first ? plans_.front().units : items.size();
  const uint64_t working = std::min<uint64_t>(
      workers_.size(), (units + SaveBatches::kBatchUnits - 1) / SaveBatches::kBatchUnits);
  {
    std::vector<std::jthread> threads;
    const auto start = [&](size_t i) {
      threads.emplace_back([&, i] { workers_[i].run(size, batches, checks); });
    };
    for (size_t i = 1; i < working; ++i) start(i);
    if (!at_first) start(0);
    Status planned;
    for (size_t i = at_once; planned.ok() && i < items.size(); i += at_once) {
      planned = plan(items.subspan(i, std::min(at_once, items.size() - i)), twins, batches, checks);
    }
    if (!planned.ok()) {
      batches.fail(planned);
      checks.fail(planned);
    }
    batches.close();
    checks.close();
    if (at_first) workers_.front().run(size, batches, checks);
  }
  bytes_total_ = bytes_before;
  for (const SavePlan& done : plans_) bytes_total_ += done.raw_bytes;
  CodecTally tally;
  for (const SaveWorker& worker : workers_) tally.add(worker.tally());
  totals_.codecs = tally.uses();
  error_ = batches.status();
  plans_.clear();
  show_progress(true);
  return error_;
}

// 1 tile, of some items; workers may be at work on those before.
Status RankPartPipeline::plan(std::span<const SaveItem> items, bool twins, SaveBatches& batches,
                              SaveBatches& checks) {
  CAISSON_ASSIGN_OR_RETURN(SavePlan planned, plan_save(items, parent_, entries_planned_, twins));
  SavePlan& plan = plans_.emplace_back(std::move(planned));
  entries_planned_ += plan.pieces;
  totals_.tensors += plan.shards.size();
  for (const PlannedShard& shard : plan.shards) shared_.part.add_record(shard.record());
  if (shared_.config.memory_check != MemoryCheck::kOff) plan.marks.resize(plan.pieces);
  checks.add(&plan, plan.units);
  batches.add(&plan, plan.units);
  return ok_status();
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

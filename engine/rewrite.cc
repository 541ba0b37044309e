// A rewrite, step by step. Nothing before step 4 is visible to anybody; step 4 is one create-once
// record.
//
//  1. Append `open`: a save under the checkpoint's own name, in the epoch that the run has, so that
//     nobody is fenced by it. The checkpoint is its base: all that its root refers to stays until
//     the save ends, also when the checkpoint is pruned meanwhile.
//  2. Copy: every box that was saved is restored, which verifies it, and saved again, a batch at a
//     time. The save has no parent, so that nothing of the old packs is referred to; equal pieces
//     are stored once. Boxes are kept, so that later saves of the same sharding find the same
//     pieces; a box larger than a batch is cut between its pieces. It becomes one part, of rank 0.
//  3. The part is sealed, directory and root are written (commit.cc, steps 1 to 5): all durable.
//  4. Append `replace(checkpoint, old root, new root)`. The log refuses it when the checkpoint is
//     gone or has another root by now, and when the save has ended: by a claim of the run, or by a
//     `close`. What the new root needs is of this save, which is open, so nothing of it can be
//     condemned.
//
// A failure before 4 ends the save with `close`; a crash leaves an open save, as that of any writer
// does, and the checkpoint as it was.
//
// Memory: the budget, for the pipelines; one batch beside it (RewriteOptions); metadata of one
// part.
#include "engine/rewrite.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/commit.h"
#include "engine/manifest.h"
#include "engine/restore_pipeline.h"
#include "engine/save_pipeline.h"
#include "engine/tiling.h"

namespace caisson {

namespace {

constexpr uint64_t kBoxAlignment = 64;
constexpr size_t kBatchItemsMax = 1u << 16;

// Where the grid cuts `box` in two along `axis`, as near to the middle as it does; 0: nowhere.
uint64_t cut_of(const PieceGrid& grid, const Box& box, size_t axis) {
  const uint64_t begin = box.offset[axis], end = begin + box.extent[axis];
  const uint64_t cells = (begin + box.extent[axis] / 2 - grid.origin[axis]) / grid.cell[axis];
  uint64_t at = grid.origin[axis] + cells * grid.cell[axis];
  if (at <= begin) at += grid.cell[axis];
  return at < end ? at : 0;
}

// Step 2: from one manifest into one part, a batch at a time. Used once.
class Copier {
 public:
  Copier(ObjectStore& objects, MemoryBudget& budget, Manifest& from, SavePipeline& to,
         const RewriteOptions& options)
      : objects_(objects), budget_(budget), from_(from), to_(to), options_(options) {
    progress_.bytes_total = from.root().raw_bytes;
  }

  Status run() {
    CAISSON_RETURN_IF_ERROR(from_.for_each([&](const TensorRecord& record) {
      if (record.kind == TensorKind::kAlias) {
        batch_.push_back(alias_item(record.spec.name, record.alias_of));
        return batch_.size() < kBatchItemsMax ? ok_status() : flush();
      }
      return add_boxes(record);
    }));
    return flush();
  }

 private:
  Status add_boxes(const TensorRecord& record) {
    if (record.shards.empty()) return add_box(record, {}, Box::whole(record.spec.shape));
    std::vector<const ShardRecord*> shards;
    for (const ShardRecord& shard : record.shards) shards.push_back(&shard);
    std::sort(shards.begin(), shards.end(), [](const ShardRecord* a, const ShardRecord* b) {
      return std::tie(a->box.offset, a->box.extent) < std::tie(b->box.offset, b->box.extent);
    });
    const Box* last = nullptr;
    for (const ShardRecord* shard : shards) {
      // Replicas hold the same box on the same grid, each some of its pieces: it is copied once.
      if (last != nullptr && *last == shard->box) continue;
      last = &shard->box;
      CAISSON_RETURN_IF_ERROR(add_box(record, shard->grid, shard->box));
    }
    return ok_status();
  }

  Status add_box(const TensorRecord& record, const PieceGrid& grid, const Box& box) {
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes, packed_bytes(box.elements(), record.spec.dtype));
    if (bytes > options_.batch_bytes_max) {
      for (size_t axis = 0; axis < static_cast<size_t>(box.rank); ++axis) {
        const uint64_t at = cut_of(grid, box, axis);
        if (at == 0) continue;
        Box low = box, high = box;
        low.extent[axis] = at - box.offset[axis];
        high.offset[axis] = at;
        high.extent[axis] = box.extent[axis] - low.extent[axis];
        CAISSON_RETURN_IF_ERROR(add_box(record, grid, low));
        return add_box(record, grid, high);
      }
    }
    const uint64_t room = align_up(bytes, kBoxAlignment);
    if (batch_bytes_ + room > options_.batch_bytes_max || batch_.size() >= kBatchItemsMax) {
      CAISSON_RETURN_IF_ERROR(flush());
    }
    SaveItem item;
    item.kind = record.kind;
    item.shard.tensor = record.spec;
    item.shard.box = box;
    batch_.push_back(std::move(item));
    batch_bytes_ += room;
    return ok_status();
  }

  // Reads and writes what has been gathered.
  Status flush() {
    if (options_.stop.stop_requested()) return cancelled("the rewrite was cancelled");
    if (batch_.empty()) return ok_status();
    if (memory_.size() < batch_bytes_) {
      memory_ = AlignedBuffer();  // first, so that never two are held
      CAISSON_ASSIGN_OR_RETURN(memory_, AlignedBuffer::allocate(batch_bytes_));
    }
    std::vector<TensorTarget> targets;
    uint64_t at = 0, raw_bytes = 0;
    for (SaveItem& item : batch_) {
      TensorShard& shard = item.shard;
      if (item.kind == TensorKind::kAlias || shard.box.elements() == 0) continue;
      CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes,
                               packed_bytes(shard.box.elements(), shard.tensor.dtype));
      shard.data = memory_.data() + at;
      targets.push_back({.name = shard.tensor.name,
                         .box = shard.box,
                         .data = memory_.data() + at,
                         .strides_bytes = {}});
      at += align_up(bytes, kBoxAlignment);
      raw_bytes += bytes;
    }
    const RestoreOptions read{.workers = options_.workers, .progress = {}, .stop = options_.stop};
    if (!targets.empty()) {
      CAISSON_RETURN_IF_ERROR(restore_boxes(objects_, from_, budget_, targets, read).status());
    }
    CAISSON_RETURN_IF_ERROR(to_.put(batch_));
    batch_.clear();
    batch_bytes_ = 0;
    progress_.bytes_done += raw_bytes;
    if (options_.progress) options_.progress(progress_);
    return ok_status();
  }

  ObjectStore& objects_;
  MemoryBudget& budget_;
  Manifest& from_;
  SavePipeline& to_;
  const RewriteOptions& options_;
  Progress progress_;
  AlignedBuffer memory_;
  std::vector<SaveItem> batch_;
  uint64_t batch_bytes_ = 0;
};

// What a rewrite of one checkpoint knows after step 1.
struct Opened {
  Uuid save;
  format::SealedRef old_root;
};

Status gone(const Checkpoint& checkpoint) {
  return fenced(
      checkpoint.name() + " was pruned, or replaced by another save of that name, before " +
      "it was rewritten. Next: caisson ls STORE " + checkpoint.run + " shows what there is");
}

// Step 1.
Result<Opened> open_save(Log& log, UuidSource& uuids, const Checkpoint& checkpoint) {
  Opened opened{.save = uuids.next(), .old_root = {}};
  const auto appended = log.append([&](const LogState& state) -> Result<format::LogBody> {
    const auto live = state.checkpoints().find(checkpoint.seq);
    if (live == state.checkpoints().end()) return gone(checkpoint);
    opened.old_root = live->second.root;
    const format::OpenRecord open{.save = opened.save,
                                  .run = checkpoint.run,
                                  .step = checkpoint.step,
                                  .epoch = state.runs().at(checkpoint.run).epoch,
                                  .bases = {checkpoint.seq}};
    CAISSON_RETURN_IF_ERROR(state.check(open));
    return format::LogBody(open);
  });
  CAISSON_RETURN_IF_ERROR(appended.status());
  return opened;
}

// Step 4.
Status append_replace(Log& log, const Checkpoint& checkpoint, const Opened& opened,
                      const format::SealedRef& new_root) {
  const auto appended = log.append([&](const LogState& state) -> Result<format::LogBody> {
    if (!state.checkpoints().contains(checkpoint.seq)) return gone(checkpoint);
    const format::ReplaceRecord replace{
        .checkpoint = checkpoint.seq, .old_root = opened.old_root, .new_root = new_root};
    CAISSON_RETURN_IF_ERROR(state.check(replace));
    return format::LogBody(replace);
  });
  return appended.status();
}

// Steps 2 and 3.
Result<WrittenRoot> write_copy(ObjectStore& objects, MemoryBudget& budget, UuidSource& uuids,
                               Clock& clock, const Uuid& save, Manifest& from,
                               const RewriteOptions& options) {
  SavePipeline::Config config{.save = save,
                              .rank = 0,
                              .parent = nullptr,
                              .hints = nullptr,
                              .codec = options.codec,
                              .codec_cpu = -1,
                              .codec_deterministic = false,
                              .delta = {},
                              .workers = options.workers,
                              .memory_check = MemoryCheck::kOff,  // what is read is our copy
                              .bytes_expected = from.root().raw_bytes,
                              .progress = {},
                              .stop = options.stop};
  CAISSON_ASSIGN_OR_RETURN(const auto pipeline,
                           SavePipeline::create(objects, budget, uuids, std::move(config)));
  CAISSON_RETURN_IF_ERROR(Copier(objects, budget, from, *pipeline, options).run());
  CAISSON_ASSIGN_OR_RETURN(const format::SealedRef part, pipeline->seal());
  const format::Root& old = from.root();
  const CommitPlan plan{.save = save,
                        .run = old.run,
                        .step = old.step,
                        .epoch = old.epoch,
                        .metadata_json = old.metadata_json,
                        .created_unix_ns = old.created_unix_ns};
  CAISSON_ASSIGN_OR_RETURN(WrittenRoot made, write_root(objects, uuids, clock, plan, {&part, 1}));
  if (made.root.tensors == old.tensors && made.root.raw_bytes == old.raw_bytes) return made;
  // Its roots contradict its tables; no digest shows that.
  return corruption(old.object.key() + " says that the checkpoint has " +
                    std::to_string(old.raw_bytes) + " bytes in " + std::to_string(old.tensors) +
                    " tensors, but its tables hold " + std::to_string(made.root.raw_bytes) +
                    " in " + std::to_string(made.root.tensors) + "; nothing was replaced");
}

}  // namespace

Result<RewriteReport> rewrite_checkpoint(ObjectStore& objects, Log& log, MemoryBudget& budget,
                                         UuidSource& uuids, Clock& clock,
                                         const Checkpoint& checkpoint,
                                         const RewriteOptions& options) {
  const std::string context = "rewrite of " + checkpoint.name();
  const auto opened = open_save(log, uuids, checkpoint);
  if (!opened.ok()) return opened.status().with_context(context);

  RewriteReport report;
  const auto copy = [&]() -> Result<WrittenRoot> {
    CAISSON_ASSIGN_OR_RETURN(const auto manifest, Manifest::open(objects, opened->old_root));
    CAISSON_ASSIGN_OR_RETURN(const format::PackTables tables, manifest->packs().all());
    report.packs_before = tables.packs.size();
    for (const format::SealedRef& pack : tables.packs) {
      if (pack.object.save != opened->old_root.object.save) ++report.foreign_packs_before;
    }
    return write_copy(objects, budget, uuids, clock, opened->save, *manifest, options);
  };
  const auto made = copy();
  if (!made.ok()) {
    (void)close_save(log, opened->save);  // spares gc the wait; the error that counts is the first
    return made.status().with_context(context);
  }
  const Status replaced = append_replace(log, checkpoint, *opened, made->sealed);
  if (!replaced.ok()) {
    // An unknown outcome must stay unknown: a close would fail or contradict it.
    if (replaced.code() == StatusCode::kFenced) (void)close_save(log, opened->save);
    return replaced.with_context(context);
  }
  (void)log.snapshot_if_due();  // the next opening only reads a longer log
  report.tensors = made->root.tensors;
  report.raw_bytes = made->root.raw_bytes;
  report.stored_bytes = made->root.stored_bytes;
  report.packs = made->tables.packs.size();
  return report;
}

}  // namespace caisson

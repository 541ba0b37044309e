#include "tests/crash/world.h"

#include "client/open_objects.h"
#include "client/open_store.h"
#include "client/store_context.h"
#include "engine/gc.h"
#include "engine/log.h"
#include "engine/rewrite.h"
#include "io/object_dir.h"

namespace caisson::crash {
namespace {

// A disk with the directory that the store's directory goes into, durable.
sim::Image with_parent(sim::Image image) {
  if (!image.find("/disk")) {
    const sim::NodeId made = image.add_node(true);
    image.apply(
        {.kind = sim::EffectKind::kAdd, .node = sim::kRoot, .target = made, .name = "disk"});
  }
  return image;
}

StoreOptions small_store() {
  StoreOptions options;
  options.memory_bytes_max = 1 << 20;
  return options;
}

}  // namespace

World::World(uint64_t seed, sim::Image image, Expectation expectation,
             const sim::SimOptions& options)
    : spread_(image.find(kSecondDisk).has_value()),
      disk_(std::make_shared<sim::SimFileSystem>(options, with_parent(std::move(image)))),
      uuids_(seed),
      initial_(std::move(expectation)) {}

Result<std::unique_ptr<Store>> World::open() {
  CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<ObjectStore> objects, this->objects());
  return open_store(std::move(objects), uuids_, clock_, small_store());
}

Result<std::unique_ptr<ObjectStore>> World::objects() {
  if (!spread_) return make_object_dir(disk_, kStoreRoot, uuids_);
  return open_objects(disk_, {.root = kStoreRoot, .directories = {kSecondRoot}}, uuids_, clock_,
                      /*create=*/true);
}

Status World::spread() {
  CAISSON_RETURN_IF_ERROR(disk_->create_directory(kSecondDisk));
  CAISSON_RETURN_IF_ERROR(disk_->sync_directory("/"));
  spread_ = true;
  return ok_status();
}

void World::note(Event event) {
  journal_.push_back(std::move(event));
  disk_->mark(journal_.size());
}

Expectation World::expectation() const {
  Expectation now = initial_;
  for (const Event& event : journal_) now.apply(event);
  return now;
}

Status World::finish(const std::string& name, uint32_t version, const Status& status) {
  if (status.ok()) {
    note({EventKind::kSaved, name, version});
  } else if (status.code() == StatusCode::kFenced || status.code() == StatusCode::kAlreadyExists) {
    note({EventKind::kSaveRefused, name, version});
  }
  return status;
}

Status World::save(Store& store, const std::string& name, uint32_t version,
                   const SaveOptions& options, SaveReport* report) {
  const Content content(version);
  note({EventKind::kSaveBegun, name, version});
  Result<PendingSave> pending = store.save(name, content.input(), options);
  const Status saved = pending.ok() ? pending->wait() : pending.status();
  if (saved.ok() && report != nullptr) *report = pending->report();
  return finish(name, version, saved);
}

Result<RankSave> World::begin(Store& store, const std::string& name, uint32_t version,
                              uint32_t ranks) {
  note({EventKind::kSaveBegun, name, version});
  CAISSON_ASSIGN_OR_RETURN(std::string ticket, store.begin_save(name));
  RankSave save{name, version, std::move(ticket), ranks, {}};
  save.parts.resize(ranks);
  return save;
}

Status World::put_and_seal(Store& store, RankSave& save, uint32_t rank) {
  const Content content(save.version);
  const Content::Part part = content.part(rank, save.ranks);
  CAISSON_ASSIGN_OR_RETURN(auto joined, store.join_save(save.ticket, rank));
  CAISSON_RETURN_IF_ERROR(joined->put(part.input()));
  CAISSON_ASSIGN_OR_RETURN(save.parts[rank], joined->seal());
  return ok_status();
}

Status World::commit(Store& store, RankSave& save) {
  const Result<SaveReport> report = store.commit_save(save.ticket, save.ranks, save.parts);
  return finish(save.name, save.version, report.status());
}

Status World::abort(Store& store, RankSave& save) {
  const Status status = store.abort_save(save.ticket);
  if (status.ok()) note({EventKind::kSaveRefused, save.name, save.version});
  return status;
}

Status World::remove(Store& store, const std::string& name) {
  note({EventKind::kRemoveBegun, name, 0});
  const Status status = store.remove(name);
  if (status.ok()) note({EventKind::kRemoved, name, 0});
  return status;
}

Status World::collect_garbage() {
  CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectStore> objects, this->objects());
  CAISSON_ASSIGN_OR_RETURN(auto log, Log::open(*objects, uuids_, this_process(), clock_));
  return run_gc(*objects, *log).status();
}

Status World::rewrite(const std::string& name) {
  CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectStore> objects, this->objects());
  CAISSON_ASSIGN_OR_RETURN(auto log, Log::open(*objects, uuids_, this_process(), clock_));
  CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, find_checkpoint(*log->state(), name));
  MemoryBudget budget(small_store().memory_bytes_max);
  RewriteOptions options;
  options.batch_bytes_max = 16 << 10;
  return rewrite_checkpoint(*objects, *log, budget, uuids_, clock_, checkpoint, options).status();
}

Status World::write_snapshot() {
  CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectStore> objects, this->objects());
  CAISSON_ASSIGN_OR_RETURN(auto log, Log::open(*objects, uuids_, this_process(), clock_));
  return log->snapshot_if_due(1);
}

}  // namespace caisson::crash

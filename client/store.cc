// Store, as one object: the locks, threads and process checks around saver.h and restorer.h. Saves
// of one Store run on its background thread, one after the other: the next is then compared with
// the checkpoint that the one before has committed.
#include "caisson/store.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "client/background.h"
#include "client/glob.h"
#include "client/open_objects.h"
#include "client/open_store.h"
#include "client/pending_save.h"
#include "client/restorer.h"
#include "client/saver.h"
#include "client/store_context.h"
#include "engine/live_read.h"
#include "io/posix_file_system.h"

namespace caisson {

namespace {

// A directory that holds files but no store is refused, so that a mistyped path never becomes one.
Status refuse_foreign_directory(FileSystem& files, const std::string& root) {
  if (const auto there = files.stat(root); there.ok() && !there->is_directory) {
    return invalid_argument(root + " is a file; a store is a directory");
  }
  const auto entries = files.list(root);
  if (!entries.ok()) {
    return entries.status().code() == StatusCode::kNotFound ? ok_status() : entries.status();
  }
  const auto is_ours = [](const DirEntry& e) { return e.name == format::kStoreKey; };
  if (std::ranges::any_of(*entries, is_ours)) return ok_status();
  for (const DirEntry& entry : *entries) {
    // Left by a creation that did not get far, or going on right now.
    if (entry.name == "tmp" && entry.is_directory) continue;
    return invalid_argument(root + " is no store and not empty (\"" + entry.name +
                            "\"); choose an empty or new directory");
  }
  return ok_status();
}

class StoreImpl final : public Store {
 public:
  explicit StoreImpl(std::unique_ptr<StoreContext> context)
      : context_(std::move(context)), background_(std::make_unique<BackgroundThread>()) {}
  ~StoreImpl() override {
    // In a forked child the thread, and what it held, are the parent's.
    if (!context_->is_forked()) return;
    (void)background_.release();
    (void)context_.release();
  }
  StoreImpl(const StoreImpl&) = delete;
  StoreImpl& operator=(const StoreImpl&) = delete;

  Result<PendingSave> save(const std::string& name, const SaveInput& input,
                           const SaveOptions& options) override;
  Result<std::string> begin_save(const std::string& name, const SaveOptions& options) override;
  Result<std::unique_ptr<SaveTransaction>> join_save(const std::string& ticket, uint32_t rank,
                                                     const SaveOptions& options) override;
  Result<SaveReport> commit_save(const std::string& ticket, uint32_t ranks,
                                 std::span<const SealedPart> parts,
                                 const SaveOptions& options) override;
  Status abort_save(const std::string& ticket) override;
  Status claim(const std::string& run, const std::string& base) override;
  Result<std::vector<CheckpointInfo>> checkpoints() override;
  Result<CheckpointInfo> info(const std::string& name) override;
  Result<std::vector<TensorInfo>> tensors(const std::string& name, std::string_view glob) override;
  Status restore(const std::string& name, std::span<const TensorTarget> targets,
                 const RestoreOptions& options) override;
  Result<std::vector<std::byte>> read_blob(const std::string& name,
                                           const std::string& blob) override;
  Status remove(const std::string& name) override;
  StoreContext& context() { return *context_; }

 private:
  Status unseen_error() CAISSON_EXCLUDES(mutex_);
  Result<PendingSave> start_save(const std::string& name, const SaveInput& input,
                                 const SaveOptions& options);
  void post_save(const std::shared_ptr<PendingSave::State>& state,
                 std::shared_ptr<OwnedInput> owned, const std::string& name,
                 const SaveOptions& options, std::chrono::steady_clock::time_point started);
  Status restore_uncounted(const std::string& name, std::span<const TensorTarget> targets,
                           const RestoreOptions& options);
  template <typename T>
  Result<T> counted_save(Result<T> outcome) {
    context_->count_end(Operation::kSave, outcome.status());
    return outcome;
  }
  Result<CheckpointInfo> describe(const LogState& state, const Checkpoint& checkpoint);
  Result<std::vector<TensorInfo>> tensors_of(const Checkpoint& checkpoint, std::string_view glob);

  std::unique_ptr<StoreContext> context_;
  Mutex mutex_;
  std::vector<std::shared_ptr<PendingSave::State>> saves_ CAISSON_GUARDED_BY(mutex_);
  std::unique_ptr<BackgroundThread> background_;  // last: its tasks use the rest
};

// The error of an earlier save that nobody waited for, once.
Status StoreImpl::unseen_error() {
  MutexLock lock(mutex_);
  Status first;
  std::erase_if(saves_, [&](const std::shared_ptr<PendingSave::State>& save) {
    if (!save->is_done()) return false;
    if (first.ok()) first = save->take_unseen_error();
    return true;
  });
  return first.with_context("an earlier save failed, and nobody had asked for its outcome");
}

Result<PendingSave> StoreImpl::save(const std::string& name, const SaveInput& input,
                                    const SaveOptions& options) {
  return counted_save(start_save(name, input, options));
}

Result<PendingSave> StoreImpl::start_save(const std::string& name, const SaveInput& input,
                                          const SaveOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_RETURN_IF_ERROR(unseen_error());
  CAISSON_RETURN_IF_ERROR(check_save(*context_, name, options));
  auto owned = std::make_shared<OwnedInput>(own_input(input));
  // A host without room for the copy gets a save that is over when this returns: slower, not lost.
  SaveOptions how = options;
  if (options.stage) {
    CAISSON_ASSIGN_OR_RETURN(how.stage, stage_input(*context_, *owned));
  }

  auto state = std::make_shared<PendingSave::State>();
  {
    MutexLock lock(mutex_);
    saves_.push_back(state);
  }
  post_save(state, owned, name, how, started);
  if (options.stage && !how.stage) state->wait_done();
  if (context_->metrics() != nullptr) {
    context_->metrics()->state().stall_seconds.observe(std::chrono::steady_clock::now() - started);
  }
  return PendingSave(state);
}

void StoreImpl::post_save(const std::shared_ptr<PendingSave::State>& state,
                          std::shared_ptr<OwnedInput> owned, const std::string& name,
                          const SaveOptions& options,
                          std::chrono::steady_clock::time_point started) {
  const auto taken = [started] { return std::chrono::steady_clock::now() - started; };
  background_->post([this, state, owned, name, options, taken, stall = taken()]() mutable {
    // Two ways to cancel meet in one token.
    const std::stop_callback forward(options.stop, [state] { state->stop.request_stop(); });
    SaveOptions with_stop = options;
    with_stop.stop = state->stop.get_token();
    auto report = save_whole(*context_, name, owned->items, with_stop);
    context_->keep_staging(std::move(owned->arena));  // before anybody hears that the save is over
    owned.reset();
    context_->count_end(Operation::kSave, report.status());
    if (!report.ok()) return state->finish(report.status(), {});
    if (context_->metrics() != nullptr) {
      context_->metrics()->state().save_seconds.observe(taken());
    }
    report->stall_seconds = std::chrono::duration<double>(stall).count();
    report->seconds = std::chrono::duration<double>(taken()).count();
    state->finish(ok_status(), std::move(report).value());
  });
}

Result<std::string> StoreImpl::begin_save(const std::string& name, const SaveOptions& options) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_RETURN_IF_ERROR(unseen_error());
  CAISSON_ASSIGN_OR_RETURN(const Ticket ticket,
                           counted_save(caisson::begin_save(*context_, name, options)));
  return encode_ticket(ticket);
}

Result<std::unique_ptr<SaveTransaction>> StoreImpl::join_save(const std::string& ticket,
                                                              uint32_t rank,
                                                              const SaveOptions& options) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_RETURN_IF_ERROR(context_->check_writable());
  CAISSON_ASSIGN_OR_RETURN(const Ticket decoded, decode_ticket(ticket));
  return counted_save(caisson::join_save(*context_, decoded, rank, options));
}

Result<SaveReport> StoreImpl::commit_save(const std::string& ticket, uint32_t ranks,
                                          std::span<const SealedPart> parts,
                                          const SaveOptions& options) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_RETURN_IF_ERROR(context_->check_writable());
  CAISSON_ASSIGN_OR_RETURN(const Ticket decoded, decode_ticket(ticket));
  return counted_save(caisson::commit_save(*context_, decoded, ranks, parts, options));
}

Status StoreImpl::abort_save(const std::string& ticket) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_RETURN_IF_ERROR(context_->check_writable());
  CAISSON_ASSIGN_OR_RETURN(const Ticket decoded, decode_ticket(ticket));
  return caisson::abort_save(*context_, decoded);
}

Status StoreImpl::claim(const std::string& run, const std::string& base) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  return context_->claim(run, base);
}

// Fails when the root cannot be read.
Result<CheckpointInfo> StoreImpl::describe(const LogState& state, const Checkpoint& checkpoint) {
  CAISSON_ASSIGN_OR_RETURN(const auto manifest, context_->manifest(checkpoint.root));
  const format::Root& root = manifest->root();
  const Checkpoint* latest = state.latest(checkpoint.run);
  return CheckpointInfo{.name = checkpoint.name(),
                        .run = checkpoint.run,
                        .step = checkpoint.step,
                        .epoch = checkpoint.epoch,
                        .commit_seq = checkpoint.seq,
                        .latest = latest != nullptr && latest->seq == checkpoint.seq,
                        .rolled_back = checkpoint.rolled_back,
                        .created_unix_ns = root.created_unix_ns,
                        .tensors = root.tensors,
                        .ranks = root.parts.size(),
                        .raw_bytes = root.raw_bytes,
                        .stored_bytes = root.stored_bytes,
                        .metadata_json = root.metadata_json,
                        .problem = {}};
}

Result<std::vector<CheckpointInfo>> StoreImpl::checkpoints() {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_ASSIGN_OR_RETURN(const auto state, context_->log().refresh());
  std::vector<CheckpointInfo> found;
  for (const auto& [seq, checkpoint] : state->checkpoints()) {
    auto info = read_live(context_->log(), checkpoint,
                          [&](const Checkpoint& now) { return describe(*state, now); });
    if (info.status().code() == StatusCode::kFenced) continue;  // given up since we read the log
    if (!info.ok()) {
      // One damaged root must not hide the others.
      const Checkpoint* latest = state->latest(checkpoint.run);
      CheckpointInfo damaged;
      damaged.name = checkpoint.name();
      damaged.run = checkpoint.run;
      damaged.step = checkpoint.step;
      damaged.epoch = checkpoint.epoch;
      damaged.commit_seq = seq;
      damaged.latest = latest != nullptr && latest->seq == seq;
      damaged.rolled_back = checkpoint.rolled_back;
      damaged.problem = info.status().to_string();
      found.push_back(std::move(damaged));
      continue;
    }
    found.push_back(std::move(info).value());
  }
  return found;
}

Result<CheckpointInfo> StoreImpl::info(const std::string& name) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_ASSIGN_OR_RETURN(const auto state, context_->log().refresh());
  CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, find_checkpoint(*state, name));
  return read_live(context_->log(), checkpoint,
                   [&](const Checkpoint& now) { return describe(*state, now); });
}

Result<std::vector<TensorInfo>> StoreImpl::tensors(const std::string& name, std::string_view glob) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, context_->find(name));
  return read_live(context_->log(), checkpoint,
                   [&](const Checkpoint& now) { return tensors_of(now, glob); });
}

Result<std::vector<TensorInfo>> StoreImpl::tensors_of(const Checkpoint& checkpoint,
                                                      std::string_view glob) {
  CAISSON_ASSIGN_OR_RETURN(const auto manifest, context_->manifest(checkpoint.root));
  const auto& parts = manifest->root().parts;
  std::vector<TensorInfo> found;
  CAISSON_RETURN_IF_ERROR(manifest->for_each([&](const TensorRecord& record) -> Status {
    if (!matches_glob(glob, record.spec.name)) return ok_status();
    TensorInfo info{.spec = record.spec,
                    .blob = record.kind == TensorKind::kBlob,
                    .alias_of = record.alias_of,
                    .tile = record.tile,
                    .raw_bytes = 0,
                    .shards = {},
                    .ranks = {}};
    if (record.kind == TensorKind::kAlias) {
      // Shown with what it stands for.
      CAISSON_ASSIGN_OR_RETURN(const auto target, manifest->find(record.alias_of));
      if (target) {
        info.spec.dtype = target->spec.dtype;
        info.spec.shape = target->spec.shape;
        info.tile = target->tile;
      }
    } else {
      CAISSON_ASSIGN_OR_RETURN(const uint64_t elements, element_count(record.spec.shape));
      CAISSON_ASSIGN_OR_RETURN(info.raw_bytes, packed_bytes(elements, record.spec.dtype));
    }
    for (const ShardRecord& shard : record.shards) {
      info.shards.push_back(shard.box);
      info.ranks.push_back(parts[shard.part].rank);
    }
    found.push_back(std::move(info));
    return ok_status();
  }));
  return found;
}

Status StoreImpl::restore(const std::string& name, std::span<const TensorTarget> targets,
                          const RestoreOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  Status status = restore_uncounted(name, targets, options);
  context_->count_end(Operation::kRestore, status);
  if (status.ok() && context_->metrics() != nullptr) {
    context_->metrics()->state().restore_seconds.observe(std::chrono::steady_clock::now() -
                                                         started);
  }
  return status;
}

Status StoreImpl::restore_uncounted(const std::string& name, std::span<const TensorTarget> targets,
                                    const RestoreOptions& options) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, context_->find(name));
  return read_live(context_->log(), checkpoint, [&](const Checkpoint& now) -> Status {
    CAISSON_ASSIGN_OR_RETURN(const auto manifest, context_->manifest(now.root));
    return restore_targets(context_->objects(), *manifest, context_->budget(), targets, options,
                           context_->trace().get(), context_->metrics().get());
  });
}

Result<std::vector<std::byte>> StoreImpl::read_blob(const std::string& name,
                                                    const std::string& blob) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, context_->find(name));
  return read_live(
      context_->log(), checkpoint, [&](const Checkpoint& now) -> Result<std::vector<std::byte>> {
        CAISSON_ASSIGN_OR_RETURN(const auto manifest, context_->manifest(now.root));
        return caisson::read_blob(context_->objects(), *manifest, context_->budget(), blob);
      });
}

Status StoreImpl::remove(const std::string& name) {
  CAISSON_RETURN_IF_ERROR(context_->check_process());
  CAISSON_RETURN_IF_ERROR(context_->check_writable());
  const auto pruned = context_->log().append([&](const LogState& s) -> Result<format::LogBody> {
    CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, find_checkpoint(s, name));
    const format::PruneRecord prune{.checkpoint = checkpoint.seq};
    CAISSON_RETURN_IF_ERROR(s.check(prune));
    return format::LogBody(prune);
  });
  return pruned.status();
}

}  // namespace

Result<std::unique_ptr<Store>> open_store(std::unique_ptr<ObjectStore> objects, UuidSource& uuids,
                                          Clock& clock, const StoreOptions& options,
                                          ChunkHints* hints) {
  CAISSON_ASSIGN_OR_RETURN(auto context,
                           StoreContext::open(std::move(objects), uuids, clock, options, hints));
  return std::unique_ptr<Store>(std::make_unique<StoreImpl>(std::move(context)));
}

Result<StoreContext*> context_of(Store& store) {
  StoreContext& context = static_cast<StoreImpl&>(store).context();  // there is no other Store
  CAISSON_RETURN_IF_ERROR(context.check_process());
  return &context;
}

Result<std::unique_ptr<Store>> Store::open(const std::string& url, const StoreOptions& options) {
  return open_store_at(url, options, nullptr);
}

Result<std::unique_ptr<Store>> open_store_at(const std::string& url, const StoreOptions& options,
                                             ChunkHints* hints) {
  CAISSON_ASSIGN_OR_RETURN(const StoreUrl parsed, parse_store_url(url));
  CAISSON_ASSIGN_OR_RETURN(const std::shared_ptr<FileSystem> files,
                           make_posix_file_system(options.io_engine));
  if (!options.create_beside_files) {
    CAISSON_RETURN_IF_ERROR(refuse_foreign_directory(*files, parsed.root));
  }
  CAISSON_ASSIGN_OR_RETURN(
      std::unique_ptr<ObjectStore> objects,
      open_objects(files, parsed, system_uuids(), system_clock(), options.create));
  auto store = open_store(std::move(objects), system_uuids(), system_clock(), options, hints);
  if (!store.ok()) return store.status().with_context(parsed.root);
  return store;
}

}  // namespace caisson

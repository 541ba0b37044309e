#include "client/store_context.h"

#include <unistd.h>

#include <utility>

#include "client/checkpoint_name.h"
#include "engine/format/root.h"

namespace caisson {

namespace {

constexpr uint64_t kStoreFileBytesMax = 64u << 10;
constexpr size_t kManifestsKept = 4;

}  // namespace

StoreContext::StoreContext(std::unique_ptr<ObjectStore> objects, UuidSource& uuids, Clock& clock,
                           const StoreOptions& options, ChunkHints* hints)
    : objects_(std::move(objects)),
      uuids_(uuids),
      clock_(clock),
      hints_(hints),
      trace_(options.trace),
      metrics_(options.metrics),
      pid_(::getpid()),
      budget_(options.memory_bytes_max) {}

Result<std::unique_ptr<StoreContext>> StoreContext::open(std::unique_ptr<ObjectStore> objects,
                                                         UuidSource& uuids, Clock& clock,
                                                         const StoreOptions& options,
                                                         ChunkHints* hints) {
  std::unique_ptr<StoreContext> context(
      new StoreContext(std::move(objects), uuids, clock, options, hints));
  CAISSON_RETURN_IF_ERROR(context->open_store_file(options));
  CAISSON_ASSIGN_OR_RETURN(context->log_, Log::open(*context->objects_, uuids, this_process()));
  return context;
}

// Objects without the store file: not ours, or damaged. Never written over.
Status StoreContext::check_unused(std::string_view prefix) {
  return objects_->list(prefix, [](const ObjectInfo& object) -> Status {
    if (object.key == format::kStoreKey) return ok_status();  // created at this moment
    return invalid_argument("no store is created here: it is not empty (\"" + object.key +
                            "\"), and has no " + std::string(format::kStoreKey) +
                            "; choose an empty directory");
  });
}

Status StoreContext::open_store_file(const StoreOptions& options) {
  auto bytes = objects_->get(format::kStoreKey, kStoreFileBytesMax);
  if (!bytes.ok() && bytes.status().code() == StatusCode::kNotFound) {
    if (!options.create) {
      return not_found("no store here: there is no " + std::string(format::kStoreKey) +
                       "; open it with `create` to make one");
    }
    if (options.create_beside_files) {
      for (const std::string_view prefix : format::kStorePrefixes) {
        CAISSON_RETURN_IF_ERROR(check_unused(prefix));
      }
    } else {
      CAISSON_RETURN_IF_ERROR(check_unused(""));
    }
    const format::StoreFile fresh{.uuid = uuids_.next(), .created_unix_ns = clock_.unix_ns()};
    const Status created = objects_->put_new(format::kStoreKey, format::encode_store_file(fresh));
    if (!created.ok() && created.code() != StatusCode::kAlreadyExists) return created;
    bytes = objects_->get(format::kStoreKey, kStoreFileBytesMax);  // ours, or another creator's
  }
  if (!bytes.ok()) return bytes.status();
  CAISSON_ASSIGN_OR_RETURN(const format::StoreFile store, format::decode_store_file(*bytes));
  if (store.hash != 1 || store.id_bytes != 16) {
    return unsupported("the store names chunks by hash " + std::to_string(store.hash) +
                       ", which this version does not know; use a newer one");
  }
  uuid_ = store.uuid;
  store_file_ = std::move(bytes).value();
  writable_ = format::may_write(store.features);
  return ok_status();
}

void StoreContext::count_end(Operation operation, const Status& status) const {
  if (metrics_ == nullptr) return;
  Metrics::State& counted = metrics_->state();
  counted.count_error(operation, status);
  counted.memory_peak_bytes.raise(budget_.bytes_peak());
  counted.memory_max_bytes.raise(budget_.bytes_max());
}

bool StoreContext::is_forked() const { return ::getpid() != pid_; }

Status StoreContext::check_process() const {
  if (!is_forked()) return ok_status();
  return invalid_argument("this store was opened by process " + std::to_string(pid_) +
                          " before fork(); open it again in the child");
}

Status StoreContext::check_writable() const {
  if (writable_) return ok_status();
  return unsupported(
      "the store has a feature that this version may read but not write; "
      "use a newer one to save, claim or remove");
}

// Commits rest on it, so a target that would let two writers create one object must be found out
// before this one claims anything. `caisson doctor` races for longer.
Status StoreContext::check_create_once() {
  if (creates_once_) return ok_status();
  const Status again = objects_->put_new(format::kStoreKey, store_file_);
  if (again.ok()) {
    return unsupported(std::string(format::kStoreKey) +
                       " could be created a second time: the target does not keep create-once, or "
                       "the store was removed; save to another target, and see `caisson doctor`");
  }
  if (again.code() != StatusCode::kAlreadyExists) return again;
  creates_once_ = true;
  return ok_status();
}

Result<uint64_t> StoreContext::append_claim(const std::string& run, const std::string& base) {
  CAISSON_RETURN_IF_ERROR(check_writable());
  CAISSON_RETURN_IF_ERROR(format::check_run_name(run));
  CAISSON_RETURN_IF_ERROR(check_create_once());
  uint64_t epoch = 0;
  const auto appended = log_->append([&](const LogState& state) -> Result<format::LogBody> {
    const auto known = state.runs().find(run);
    format::ClaimRecord claim{.run = run, .epoch = 1, .base = 0};
    if (known != state.runs().end()) {
      claim.epoch = known->second.epoch + 1;
      claim.base = known->second.latest;
    }
    if (!base.empty()) {
      CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, find_checkpoint(state, base));
      claim.base = checkpoint.seq;
    }
    CAISSON_RETURN_IF_ERROR(state.check(claim));
    epoch = claim.epoch;
    return format::LogBody(claim);
  });
  if (!appended.ok()) return appended.status().with_context("claim of run \"" + run + "\"");
  return epoch;
}

Result<AlignedBuffer> StoreContext::take_staging(uint64_t bytes) {
  {
    MutexLock lock(staging_mutex_);
    AlignedBuffer kept = std::move(staging_);
    if (kept.size() >= bytes) return kept;
  }  // a smaller one is unmapped before a larger one is asked for
  return AlignedBuffer::allocate(bytes);
}

void StoreContext::keep_staging(AlignedBuffer arena) {
  MutexLock lock(staging_mutex_);
  if (arena.size() > staging_.size()) std::swap(arena, staging_);
}

Result<uint64_t> StoreContext::epoch_of(const std::string& run) {
  MutexLock lock(mutex_);
  if (const auto known = epochs_.find(run); known != epochs_.end()) return known->second;
  CAISSON_ASSIGN_OR_RETURN(const uint64_t epoch, append_claim(run, {}));
  epochs_.emplace(run, epoch);
  return epoch;
}

Status StoreContext::claim(const std::string& run, const std::string& base) {
  MutexLock lock(mutex_);
  CAISSON_ASSIGN_OR_RETURN(const uint64_t epoch, append_claim(run, base));
  epochs_[run] = epoch;
  return ok_status();
}

Result<Checkpoint> StoreContext::find(const std::string& name) {
  CAISSON_ASSIGN_OR_RETURN(const auto state, log_->refresh());
  return find_checkpoint(*state, name);
}

Result<std::shared_ptr<Manifest>> StoreContext::manifest(const format::SealedRef& root) {
  {
    MutexLock lock(mutex_);
    for (auto it = manifests_.begin(); it != manifests_.end(); ++it) {
      if (!(it->root == root)) continue;
      manifests_.splice(manifests_.begin(), manifests_, it);
      return it->manifest;
    }
  }
  CAISSON_ASSIGN_OR_RETURN(std::shared_ptr<Manifest> opened, Manifest::open(*objects_, root));
  MutexLock lock(mutex_);
  manifests_.push_front({.root = root, .manifest = opened});
  if (manifests_.size() > kManifestsKept) manifests_.pop_back();
  return opened;
}

std::string pinned_name(const Checkpoint& checkpoint) {
  return checkpoint.name() + "@" + std::to_string(checkpoint.seq);
}

Result<Checkpoint> find_checkpoint(const LogState& state, const std::string& name) {
  CAISSON_ASSIGN_OR_RETURN(const CheckpointName wanted, parse_checkpoint_name(name));
  const Checkpoint* found =
      wanted.step ? state.find(wanted.run, *wanted.step) : state.latest(wanted.run);
  if (wanted.commit && (found == nullptr || found->seq != *wanted.commit)) {
    return fenced(name + " was pruned, or replaced by another save of that name" +
                  (found == nullptr ? std::string() : ", " + pinned_name(*found)) +
                  "; nothing is damaged by that. Next: caisson ls STORE " + wanted.run);
  }
  if (found != nullptr) return *found;
  if (!state.runs().contains(wanted.run)) {
    return not_found("no run \"" + wanted.run + "\" in this store; next: caisson ls STORE");
  }
  const Checkpoint* latest = state.latest(wanted.run);
  return not_found("no checkpoint " + name + "; the run's latest is " +
                   (latest == nullptr ? std::string("none yet") : latest->name()));
}

}  // namespace caisson

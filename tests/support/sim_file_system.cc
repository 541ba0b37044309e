#include "tests/support/sim_file_system.h"

#include <algorithm>
#include <cerrno>
#include <random>

namespace caisson::sim {
namespace {

bool aligned(const void* address, uint64_t offset, uint64_t bytes, const IoAlignment& want) {
  return reinterpret_cast<uintptr_t>(address) % want.memory == 0 && offset % want.offset == 0 &&
         bytes % want.offset == 0;
}

Status shorter(const std::string& path, uint64_t wanted, uint64_t size) {
  return corruption(path + ": ends at " + std::to_string(size) + ", wanted bytes up to " +
                    std::to_string(wanted));
}

}  // namespace

std::string_view call_name(CallKind kind) {
  constexpr std::string_view kNames[] = {
      "open",           "create", "read",   "write",       "allocate",         "truncate",
      "sync",           "link",   "rename", "remove_file", "remove_directory", "create_directory",
      "sync_directory", "stat",   "list",   "make_queue"};
  return kNames[static_cast<size_t>(kind)];
}

class SimFile final : public File {
 public:
  SimFile(SimFileSystem& fs, NodeId node, std::string path, Access access)
      : fs_(fs), node_(node), path_(std::move(path)) {
    if (access == Access::kDirect) {
      alignment_ = {fs.options_.alignment, fs.options_.alignment, true};
    } else {
      alignment_ = {1, 1, false};
    }
  }
  ~SimFile() override {
    MutexLock lock(fs_.mutex_);
    --fs_.open_files_;
  }
  const std::string& path() const override { return path_; }
  IoAlignment alignment() const override { return alignment_; }
  Result<uint64_t> size() override {
    fs_.arrive(CallKind::kStat, path_);
    MutexLock lock(fs_.mutex_);
    if (Outcome out = fs_.enter(CallKind::kStat, path_); !out.status.ok()) return out.status;
    return fs_.live_.size(node_);
  }
  Status read_at(uint64_t offset, MutableBytes into) override {
    return fs_.read(node_, path_, offset, into);
  }
  Status write_at(uint64_t offset, Bytes from) override {
    return fs_.write(node_, path_, offset, from);
  }
  Status allocate(uint64_t bytes) override {
    return resize(CallKind::kAllocate, EffectKind::kGrow, bytes);
  }
  Status truncate(uint64_t bytes) override {
    return resize(CallKind::kTruncate, EffectKind::kResize, bytes);
  }
  Status sync() override {
    fs_.arrive(CallKind::kSync, path_);
    MutexLock lock(fs_.mutex_);
    const Outcome out = fs_.enter(CallKind::kSync, path_);
    const bool done = out.status.ok() || out.applied;
    Op op;
    op.kind = done ? OpKind::kSyncFile : OpKind::kSyncFailed;
    op.node = node_;
    op.path = path_;
    fs_.commit(std::move(op));
    return out.status;
  }
  NodeId node() const { return node_; }
  const SimFileSystem& file_system() const { return fs_; }

 private:
  Status resize(CallKind call, EffectKind effect, uint64_t bytes) {
    fs_.arrive(call, path_);
    MutexLock lock(fs_.mutex_);
    const Outcome out = fs_.enter(call, path_);
    if (out.status.ok() || out.applied) {
      Op op;
      op.path = path_;
      op.effects.push_back({.kind = effect, .node = node_, .size = bytes});
      fs_.commit(std::move(op));
    }
    return out.status;
  }

  SimFileSystem& fs_;
  const NodeId node_;
  const std::string path_;
  IoAlignment alignment_;
};

class SimQueue final : public IoQueue {
 public:
  SimQueue(SimFileSystem& fs, uint32_t depth, uint64_t seed)
      : fs_(fs), depth_(depth), random_(seed) {}
  ~SimQueue() override {
    while (!waiting_.empty()) finish_one();
    MutexLock lock(fs_.mutex_);
    --fs_.open_files_;
  }
  Status submit_write(File& file, uint64_t offset, Bytes from, uint64_t tag) override {
    return submit({&file, offset, from, {}, tag});
  }
  Status submit_read(File& file, uint64_t offset, MutableBytes into, uint64_t tag) override {
    return submit({&file, offset, {}, into, tag});
  }
  Status submit_sync(File& file, uint64_t tag) override {
    if (waiting_.size() >= depth_) return invalid_argument("queue is full");
    waiting_.push_back({&file, 0, {}, {}, tag, true});
    return ok_status();
  }
  Result<IoCompletion> wait() override {
    if (waiting_.empty()) return invalid_argument("wait() with nothing in flight");
    return finish_one();
  }
  uint32_t in_flight() const override { return static_cast<uint32_t>(waiting_.size()); }
  uint32_t depth() const override { return depth_; }

 private:
  struct Request {
    File* file;
    uint64_t offset;
    Bytes from;
    MutableBytes into;
    uint64_t tag;
    bool is_sync = false;
  };
  Status submit(const Request& request) {
    if (waiting_.size() >= depth_) return invalid_argument("queue is full");
    const bool write = request.into.empty();
    const void* address = write ? static_cast<const void*>(request.from.data())
                                : static_cast<const void*>(request.into.data());
    const uint64_t bytes = write ? request.from.size() : request.into.size();
    if (!aligned(address, request.offset, bytes, request.file->alignment())) {
      return errno_status(EINVAL, request.file->path() + ": misaligned request at " +
                                      std::to_string(request.offset));
    }
    waiting_.push_back(request);
    return ok_status();
  }
  IoCompletion finish_one() {
    std::swap(waiting_[random_() % waiting_.size()], waiting_.back());
    const Request request = waiting_.back();
    waiting_.pop_back();
    auto& file = static_cast<SimFile&>(*request.file);
    if (request.is_sync) return {request.tag, file.sync()};
    const Status status = request.into.empty()
                              ? fs_.write(file.node(), file.path(), request.offset, request.from)
                              : fs_.read(file.node(), file.path(), request.offset, request.into);
    return {request.tag, status};
  }

  SimFileSystem& fs_;
  const uint32_t depth_;
  std::mt19937_64 random_;
  std::vector<Request> waiting_;
};

SimFileSystem::SimFileSystem(const SimOptions& options, Image image)
    : options_(options), base_(std::move(image)), live_(base_) {}
SimFileSystem::~SimFileSystem() = default;

Outcome SimFileSystem::enter(CallKind kind, std::string_view path) {
  const Call call{calls_++, kind, path};
  return hook_ ? hook_(call) : Outcome{};
}

void SimFileSystem::arrive(CallKind kind, std::string_view path) {
  std::function<void(const Call&)> interloper;
  {
    MutexLock lock(mutex_);
    interloper = interloper_;
  }
  if (interloper) interloper(Call{0, kind, path});
}

void SimFileSystem::set_interloper(std::function<void(const Call&)> interloper) {
  MutexLock lock(mutex_);
  interloper_ = std::move(interloper);
}

void SimFileSystem::commit(Op op) {
  if (op.made != kNoNode) live_.ensure_node(op.made, op.directory);
  for (const Effect& effect : op.effects) live_.apply(effect);
  history_.push_back(std::move(op));
}

Result<NodeId> SimFileSystem::directory_of(std::string_view path) const {
  if (path.empty() || path.front() != '/') {
    return invalid_argument(std::string(path) + ": not an absolute path");
  }
  const std::optional<NodeId> parent = live_.find(split_path(path).first);
  if (!parent) return errno_status(ENOENT, path);
  if (!live_.is_directory(*parent)) return errno_status(ENOTDIR, path);
  return *parent;
}

Status SimFileSystem::make_node(const std::string& path, bool directory) {
  CAISSON_ASSIGN_OR_RETURN(const NodeId parent, directory_of(path));
  Op op;
  op.path = path;
  op.made = static_cast<NodeId>(live_.nodes());
  op.directory = directory;
  op.effects.push_back({.kind = EffectKind::kAdd,
                        .node = parent,
                        .target = op.made,
                        .name = std::string(split_path(path).second)});
  commit(std::move(op));
  return ok_status();
}

Result<std::unique_ptr<File>> SimFileSystem::open(const std::string& path, OpenMode mode,
                                                  Access access) {
  arrive(mode == OpenMode::kCreateNew ? CallKind::kCreate : CallKind::kOpen, path);
  MutexLock lock(mutex_);
  const bool create = mode == OpenMode::kCreateNew;
  const Outcome out = enter(create ? CallKind::kCreate : CallKind::kOpen, path);
  if (!out.status.ok() && !out.applied) return out.status;
  std::optional<NodeId> found = live_.find(path);
  if (create) {
    if (found) return errno_status(EEXIST, path);
    CAISSON_RETURN_IF_ERROR(make_node(path, false));
    found = live_.find(path);
  } else if (!found) {
    return errno_status(ENOENT, path);
  }
  if (!out.status.ok()) return out.status;
  if (live_.is_directory(*found)) return errno_status(EISDIR, path);
  ++open_files_;
  return std::unique_ptr<File>(std::make_unique<SimFile>(*this, *found, path, access));
}

Status SimFileSystem::link(const std::string& from, const std::string& to) {
  arrive(CallKind::kLink, to);
  MutexLock lock(mutex_);
  const Outcome out = enter(CallKind::kLink, to);
  if (!out.status.ok() && !out.applied) return out.status;
  const std::optional<NodeId> file = live_.find(from);
  if (!file) return errno_status(ENOENT, from);
  CAISSON_ASSIGN_OR_RETURN(const NodeId parent, directory_of(to));
  const std::string name(split_path(to).second);
  Op op;
  op.path = to;
  if (const std::optional<NodeId> taken = live_.find(to); taken) {
    if (!options_.link_replaces) return errno_status(EEXIST, to);
    op.effects.push_back(
        {.kind = EffectKind::kRemove, .node = parent, .target = *taken, .name = name});
  }
  op.effects.push_back({.kind = EffectKind::kAdd, .node = parent, .target = *file, .name = name});
  commit(std::move(op));
  return out.status;
}

Status SimFileSystem::rename(const std::string& from, const std::string& to) {
  arrive(CallKind::kRename, to);
  MutexLock lock(mutex_);
  const Outcome out = enter(CallKind::kRename, to);
  if (!out.status.ok() && !out.applied) return out.status;
  const std::optional<NodeId> file = live_.find(from);
  if (!file) return errno_status(ENOENT, from);
  CAISSON_ASSIGN_OR_RETURN(const NodeId from_parent, directory_of(from));
  CAISSON_ASSIGN_OR_RETURN(const NodeId to_parent, directory_of(to));
  const std::optional<NodeId> taken = live_.find(to);
  if (taken == file) return out.status;  // two names of one file: nothing to do, says POSIX
  if (taken && live_.is_directory(*taken)) return errno_status(EISDIR, to);
  Op op;
  op.path = to;
  op.effects.push_back({.kind = EffectKind::kRename,
                        .node = from_parent,
                        .target = *file,
                        .to_node = to_parent,
                        .name = std::string(split_path(from).second),
                        .to_name = std::string(split_path(to).second)});
  commit(std::move(op));
  return out.status;
}

Status SimFileSystem::remove(const std::string& path, bool directory) {
  const Outcome out = enter(directory ? CallKind::kRemoveDirectory : CallKind::kRemoveFile, path);
  if (!out.status.ok() && !out.applied) return out.status;
  const std::optional<NodeId> node = live_.find(path);
  if (!node) return errno_status(ENOENT, path);
  if (live_.is_directory(*node) != directory)
    return errno_status(directory ? ENOTDIR : EISDIR, path);
  if (directory && !live_.entries(*node).empty()) return errno_status(ENOTEMPTY, path);
  CAISSON_ASSIGN_OR_RETURN(const NodeId parent, directory_of(path));
  Op op;
  op.path = path;
  op.effects.push_back({.kind = EffectKind::kRemove,
                        .node = parent,
                        .target = *node,
                        .name = std::string(split_path(path).second)});
  commit(std::move(op));
  return out.status;
}

Status SimFileSystem::remove_file(const std::string& path) {
  arrive(CallKind::kRemoveFile, path);
  MutexLock lock(mutex_);
  return remove(path, false);
}

Status SimFileSystem::remove_directory(const std::string& path) {
  arrive(CallKind::kRemoveDirectory, path);
  MutexLock lock(mutex_);
  return remove(path, true);
}

Status SimFileSystem::create_directory(const std::string& path) {
  arrive(CallKind::kCreateDirectory, path);
  MutexLock lock(mutex_);
  const Outcome out = enter(CallKind::kCreateDirectory, path);
  if (!out.status.ok() && !out.applied) return out.status;
  if (const std::optional<NodeId> found = live_.find(path); found) {
    if (!live_.is_directory(*found)) return errno_status(ENOTDIR, path);
    return out.status;
  }
  CAISSON_RETURN_IF_ERROR(make_node(path, true));
  return out.status;
}

Status SimFileSystem::sync_directory(const std::string& path) {
  arrive(CallKind::kSyncDirectory, path);
  MutexLock lock(mutex_);
  const Outcome out = enter(CallKind::kSyncDirectory, path);
  const std::optional<NodeId> node = live_.find(path);
  if (!node) return errno_status(ENOENT, path);
  if (!live_.is_directory(*node)) return errno_status(ENOTDIR, path);
  Op op;
  op.kind = out.status.ok() || out.applied ? OpKind::kSyncDirectory : OpKind::kSyncFailed;
  op.node = *node;
  op.path = path;
  commit(std::move(op));
  return out.status;
}

Result<DirEntry> SimFileSystem::stat(const std::string& path) {
  arrive(CallKind::kStat, path);
  MutexLock lock(mutex_);
  if (const Outcome out = enter(CallKind::kStat, path); !out.status.ok()) return out.status;
  const std::optional<NodeId> node = live_.find(path);
  if (!node) return errno_status(ENOENT, path);
  return DirEntry{std::string(split_path(path).second), live_.is_directory(*node),
                  live_.size(*node)};
}

Result<std::vector<DirEntry>> SimFileSystem::list_after(const std::string& path,
                                                        std::string_view after) {
  arrive(CallKind::kList, path);
  MutexLock lock(mutex_);
  if (const Outcome out = enter(CallKind::kList, path); !out.status.ok()) return out.status;
  const std::optional<NodeId> node = live_.find(path);
  if (!node) return errno_status(ENOENT, path);
  if (!live_.is_directory(*node)) return errno_status(ENOTDIR, path);
  std::vector<DirEntry> found;
  for (const auto& [name, child] : live_.entries(*node)) {
    if (name > after) found.push_back({name, live_.is_directory(child), live_.size(child)});
  }
  // In no order, as the contract says, but the same for one seed.
  std::shuffle(found.begin(), found.end(), std::mt19937_64(options_.seed + found.size()));
  return found;
}

Result<std::unique_ptr<IoQueue>> SimFileSystem::make_queue(const IoQueueOptions& options) {
  MutexLock lock(mutex_);
  if (const Outcome out = enter(CallKind::kMakeQueue, ""); !out.status.ok()) return out.status;
  const uint64_t seed = options_.seed * 1000 + queues_++;
  ++open_files_;  // a queue is a descriptor, too
  return std::unique_ptr<IoQueue>(std::make_unique<SimQueue>(*this, options.depth, seed));
}

void SimFileSystem::write_now(NodeId node, const std::string& path, uint64_t offset, Bytes from) {
  Op op;
  op.path = path;
  op.effects.push_back({.kind = EffectKind::kData,
                        .node = node,
                        .offset = offset,
                        .bytes = std::make_shared<ByteVector>(from.begin(), from.end())});
  if (const uint64_t end = offset + from.size(); end > live_.size(node)) {
    op.effects.push_back({.kind = EffectKind::kGrow, .node = node, .size = end});
  }
  commit(std::move(op));
}

Status SimFileSystem::write(NodeId node, const std::string& path, uint64_t offset, Bytes from) {
  arrive(CallKind::kWrite, path);
  MutexLock lock(mutex_);
  const Outcome out = enter(CallKind::kWrite, path);
  if (out.status.ok() || out.applied) {
    if (!from.empty()) write_now(node, path, offset, from);
  } else if (from.size() > 1) {
    write_now(node, path, offset, from.first(from.size() / 2));
  }
  return out.status;
}

Status SimFileSystem::read(NodeId node, const std::string& path, uint64_t offset,
                           MutableBytes into) {
  arrive(CallKind::kRead, path);
  MutexLock lock(mutex_);
  if (const Outcome out = enter(CallKind::kRead, path); !out.status.ok()) return out.status;
  const uint64_t size = live_.size(node);
  if (offset > size || into.size() > size - offset)
    return shorter(path, offset + into.size(), size);
  live_.read(node, offset, into);
  return ok_status();
}

Image SimFileSystem::base() const { return base_; }

History SimFileSystem::history() const {
  MutexLock lock(mutex_);
  return history_;
}

Image SimFileSystem::image() const {
  MutexLock lock(mutex_);
  return live_;
}

void SimFileSystem::mark(uint64_t value) {
  MutexLock lock(mutex_);
  Op op;
  op.kind = OpKind::kMark;
  op.mark = value;
  commit(std::move(op));
}

void SimFileSystem::set_fault_hook(FaultHook hook) {
  MutexLock lock(mutex_);
  hook_ = std::move(hook);
}

uint64_t SimFileSystem::calls() const {
  MutexLock lock(mutex_);
  return calls_;
}

int SimFileSystem::open_files() const {
  MutexLock lock(mutex_);
  return open_files_;
}

}  // namespace caisson::sim

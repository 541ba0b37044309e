// An object is a file, its key the path below the root.
//
// Small objects that must have one winner, put_new:
//   1. make the parent directories durable: create each, sync the directory that holds it
//   2. write tmp/<uuid>, sync it
//   3. link it to the key; link never replaces, so exactly one of many racing links succeeds
//   4. sync the key's directory: from here on the object is there after any crash
//   5. remove tmp/<uuid>
// A crash before 3 leaves a temporary file, before 4 the whole object or none, before 5 both names.
// A temporary file may be swept away, and an empty directory removed, at any time: 2 and 3 then
// find nothing, and put_new starts again.
//
// Large objects, which one writer owns because their names are never used twice, create:
//   1. the parent directories, as above
//   2. create the file under its final name (O_EXCL), reserve the bound
//   3. writes, in any order, synchronous or queued
//   4. publish: cut to the final size, sync the file, sync its directory
// A crash before the end of 4 leaves garbage that no record refers to.
//
// After a failed write or sync the writer is poisoned: the kernel may have dropped the pages that
// it could not write, so another sync would lie. A directory that failed to sync poisons the store
// for this process, for the same reason.
#include "io/object_dir.h"

#include <unistd.h>

#include <set>
#include <utility>
#include <vector>

#include "io/base/check.h"
#include "io/base/sync.h"

namespace caisson {

namespace {

constexpr std::string_view kTemporary = "tmp";
constexpr std::string_view kReserved[] = {kTemporary, "index"};
constexpr int kAttempts = 64;  // against sweeps and leftover temporary names; each needs a new race

bool is_reserved(std::string_view key) {
  const std::string_view first = key.substr(0, key.find('/'));
  for (const std::string_view name : kReserved) {
    if (first == name) return true;
  }
  return false;
}

Status check_object_key(std::string_view key) {
  CAISSON_RETURN_IF_ERROR(check_key(key));
  if (is_reserved(key))
    return invalid_argument("object key \"" + std::string(key) + "\" is reserved");
  return ok_status();
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == 0 ? "/" : path.substr(0, slash);
}

// Paths, and which directories are durable. Thread-safe; shared by the store and its writers.
class Directories {
 public:
  Directories(std::shared_ptr<FileSystem> files, std::string root)
      : files_(std::move(files)), root_(std::move(root)) {}

  FileSystem& files() { return *files_; }
  const std::string& root() const { return root_; }
  std::string path_of(std::string_view key) const {
    if (key.empty()) return root_;
    return (root_ == "/" ? root_ : root_ + "/") + std::string(key);
  }

  // Creates the directories above `path`, which lies below the root, and makes them durable.
  Status ensure_parents(const std::string& path) CAISSON_EXCLUDES(mutex_) {
    const std::string parent = parent_of(path);
    {
      MutexLock lock(mutex_);
      CAISSON_RETURN_IF_ERROR(failure_);
      if (durable_.count(parent) > 0) return ok_status();
    }
    if (parent == root_) {
      CAISSON_RETURN_IF_ERROR(ensure_root());
    } else {
      CAISSON_RETURN_IF_ERROR(ensure_parents(parent));
      CAISSON_RETURN_IF_ERROR(files_->create_directory(parent));
      // Also when it was there: whoever created it may not have come to this line.
      CAISSON_RETURN_IF_ERROR(sync(parent_of(parent)));
    }
    MutexLock lock(mutex_);
    durable_.insert(parent);
    return ok_status();
  }

  // tmp/ holds nothing worth keeping, so it is not synced.
  Status ensure_temporary() {
    CAISSON_RETURN_IF_ERROR(ensure_parents(path_of(kTemporary)));
    return files_->create_directory(path_of(kTemporary));
  }

  // After a directory turned out to be gone.
  void forget() CAISSON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    durable_.clear();
  }

  Status sync(const std::string& directory) CAISSON_EXCLUDES(mutex_) {
    {
      MutexLock lock(mutex_);
      CAISSON_RETURN_IF_ERROR(failure_);
    }
    Status status = files_->sync_directory(directory);
    if (status.ok() || status.code() == StatusCode::kNotFound) return status;
    MutexLock lock(mutex_);
    if (failure_.ok()) {
      failure_ = status.with_context(
          "names may have been lost, so this store takes no more writes; find the cause, open it "
          "again");
    }
    return failure_;
  }

  // Removes what remove() left empty, up to but not including the directories just below the root.
  void prune_above(std::string path) CAISSON_EXCLUDES(mutex_) {
    for (;;) {
      path = parent_of(path);
      if (path == root_ || parent_of(path) == root_) return;
      if (!files_->remove_directory(path).ok()) return;
      MutexLock lock(mutex_);
      durable_.erase(path);
    }
  }

 private:
  // The root's own name. A parent that we may not even list is closed to us, which must not matter
  // to a root that stands; any other failure does: whoever made the root may not have come to sync.
  Status ensure_root() {
    const std::string parent = parent_of(root_);
    const bool existed = files_->stat(root_).ok();
    CAISSON_RETURN_IF_ERROR(files_->create_directory(root_));
    if (existed && !files_->list(parent).ok()) return ok_status();
    return sync(parent);
  }

  const std::shared_ptr<FileSystem> files_;
  const std::string root_;
  Mutex mutex_;
  std::set<std::string> durable_ CAISSON_GUARDED_BY(mutex_);
  Status failure_ CAISSON_GUARDED_BY(mutex_);
};

class DirWriter final : public ObjectWriter {
 public:
  DirWriter(std::shared_ptr<Directories> directories, std::string key, std::unique_ptr<File> file,
            uint64_t bytes_max)
      : directories_(std::move(directories)),
        key_(std::move(key)),
        file_(std::move(file)),
        bytes_max_(bytes_max) {}
  ~DirWriter() override {
    // A forked child holds a copy of the writer; the file is its parent's.
    if (published_ || ::getpid() != process_) return;
    const std::string path = file_->path();
    file_.reset();
    static_cast<void>(directories_->files().remove_file(path));
  }
  DirWriter(const DirWriter&) = delete;
  DirWriter& operator=(const DirWriter&) = delete;

  const std::string& key() const override { return key_; }

  Status write(uint64_t offset, Bytes from) override {
    CAISSON_RETURN_IF_ERROR(writable());
    return note(file_->write_at(offset, from));
  }

  Status publish(uint64_t bytes) override {
    CAISSON_RETURN_IF_ERROR(cut_for_publish(bytes));
    CAISSON_RETURN_IF_ERROR(note(file_->sync()));
    return publish_name();
  }

  // For DirQueue, which syncs the file between these two.
  Status cut_for_publish(uint64_t bytes) {
    CAISSON_RETURN_IF_ERROR(writable());
    if (bytes > bytes_max_) return note(invalid_argument(key_ + ": larger than it was to be"));
    // Nobody saw those outcomes, so nobody may vouch for them.
    if (in_flight_ > 0) return note(invalid_argument(key_ + ": published with writes in flight"));
    return bytes < bytes_max_ ? note(file_->truncate(bytes)) : ok_status();
  }
  Status publish_name() {
    CAISSON_RETURN_IF_ERROR(writable());
    CAISSON_RETURN_IF_ERROR(note(directories_->sync(parent_of(file_->path()))));
    published_ = true;
    return ok_status();
  }
  File& file() { return *file_; }
  Status writable() const {
    if (published_) return invalid_argument(key_ + ": already published");
    return failure_.with_context("an earlier write or sync failed, so this object is given up");
  }
  void submitted() { ++in_flight_; }
  void completed(const Status& status) {
    --in_flight_;
    static_cast<void>(note(status));
  }
  // The first failure is for good, also of a request that could not be made.
  Status note(Status status) {
    if (!status.ok() && failure_.ok()) failure_ = status;
    return status;
  }

 private:
  const std::shared_ptr<Directories> directories_;
  const std::string key_;
  std::unique_ptr<File> file_;
  const uint64_t bytes_max_;
  const pid_t process_ = ::getpid();
  uint32_t in_flight_ = 0;
  Status failure_;
  bool published_ = false;
};

class DirReader final : public ObjectReader {
 public:
  DirReader(std::string key, std::unique_ptr<File> file, uint64_t bytes)
      : key_(std::move(key)), file_(std::move(file)), bytes_(bytes) {}
  const std::string& key() const override { return key_; }
  uint64_t bytes() const override { return bytes_; }
  IoAlignment alignment() const override { return file_->alignment(); }
  Status read(uint64_t offset, MutableBytes into) override { return file_->read_at(offset, into); }
  File& file() { return *file_; }

 private:
  const std::string key_;
  const std::unique_ptr<File> file_;
  const uint64_t bytes_;
};

// Passes requests through, and poisons a writer of which one failed.
class DirQueue final : public TransferQueue {
 public:
  explicit DirQueue(std::unique_ptr<IoQueue> queue)
      : queue_(std::move(queue)), slots_(queue_->depth()) {
    for (uint32_t i = queue_->depth(); i > 0; --i) free_.push_back(i - 1);
  }

  Status submit_write(ObjectWriter& object, uint64_t offset, Bytes from, uint64_t tag) override {
    auto* const writer = dynamic_cast<DirWriter*>(&object);
    if (writer == nullptr) return foreign(object.key());
    CAISSON_RETURN_IF_ERROR(writer->writable());
    CAISSON_CHECK(!free_.empty());
    Status status = queue_->submit_write(writer->file(), offset, from, free_.back());
    if (!status.ok()) return writer->note(std::move(status));
    writer->submitted();
    occupy(writer, tag);
    return ok_status();
  }
  Status submit_read(ObjectReader& object, uint64_t offset, MutableBytes into,
                     uint64_t tag) override {
    auto* const reader = dynamic_cast<DirReader*>(&object);
    if (reader == nullptr) return foreign(object.key());
    CAISSON_CHECK(!free_.empty());
    CAISSON_RETURN_IF_ERROR(queue_->submit_read(reader->file(), offset, into, free_.back()));
    occupy(nullptr, tag);
    return ok_status();
  }
  Status submit_publish(ObjectWriter& object, uint64_t bytes, uint64_t tag) override {
    auto* const writer = dynamic_cast<DirWriter*>(&object);
    if (writer == nullptr) return foreign(object.key());
    CAISSON_CHECK(!free_.empty());
    CAISSON_RETURN_IF_ERROR(writer->cut_for_publish(bytes));
    Status status = queue_->submit_sync(writer->file(), free_.back());
    if (!status.ok()) return writer->note(std::move(status));
    writer->submitted();
    occupy(writer, tag, true);
    return ok_status();
  }
  Result<IoCompletion> wait() override {
    CAISSON_ASSIGN_OR_RETURN(IoCompletion completion, queue_->wait());
    const auto index = static_cast<uint32_t>(completion.tag);
    const Slot& slot = slots_[index];
    if (slot.writer != nullptr) slot.writer->completed(completion.status);
    // Cheap right behind the sync of the file: the name stands in the same journal.
    if (slot.publishes && completion.status.ok()) completion.status = slot.writer->publish_name();
    completion.tag = slot.tag;
    free_.push_back(index);
    return completion;
  }
  bool ready() const override { return queue_->ready(); }
  uint32_t in_flight() const override { return queue_->in_flight(); }
  uint32_t depth() const override { return queue_->depth(); }

 private:
  struct Slot {
    DirWriter* writer = nullptr;  // null: a read
    uint64_t tag = 0;
    bool publishes = false;
  };
  void occupy(DirWriter* writer, uint64_t tag, bool publishes = false) {
    slots_[free_.back()] = {writer, tag, publishes};
    free_.pop_back();
  }
  static Status foreign(const std::string& key) {
    return invalid_argument("object " + key + " belongs to another store than this queue");
  }

  const std::unique_ptr<IoQueue> queue_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
};

class ObjectDir final : public ObjectStore {
 public:
  ObjectDir(std::shared_ptr<FileSystem> files, std::string root, UuidSource& uuids)
      : directories_(std::make_shared<Directories>(std::move(files), std::move(root))),
        uuids_(uuids) {}

  Status put_new(std::string_view key, Bytes bytes) override {
    CAISSON_RETURN_IF_ERROR(check_object_key(key));
    const std::string path = directories_->path_of(key);
    Status status;
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      status = try_put_new(path, bytes);
      if (status.code() != StatusCode::kNotFound) return status;
      directories_->forget();
    }
    return status;
  }

  Result<ByteVector> get(std::string_view key, uint64_t bytes_max) override {
    CAISSON_RETURN_IF_ERROR(check_object_key(key));
    CAISSON_ASSIGN_OR_RETURN(
        const std::unique_ptr<File> file,
        files().open(directories_->path_of(key), OpenMode::kRead, Access::kBuffered));
    CAISSON_ASSIGN_OR_RETURN(const uint64_t size, file->size());
    if (size > bytes_max) {
      return corruption(file->path() + " has " + std::to_string(size) + " bytes, more than the " +
                        std::to_string(bytes_max) + " that its kind may have");
    }
    ByteVector bytes(size);
    CAISSON_RETURN_IF_ERROR(file->read_at(0, bytes));
    return bytes;
  }

  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key, uint64_t bytes_max) override {
    CAISSON_RETURN_IF_ERROR(check_object_key(key));
    const std::string path = directories_->path_of(key);
    for (int attempt = 0;; ++attempt) {
      auto file = create_file(path);
      if (file.ok()) {
        auto writer = std::make_unique<DirWriter>(directories_, std::string(key),
                                                  std::move(file).value(), bytes_max);
        CAISSON_RETURN_IF_ERROR(writer->file().allocate(bytes_max));  // it removes what it made
        return std::unique_ptr<ObjectWriter>(std::move(writer));
      }
      if (file.status().code() != StatusCode::kNotFound || attempt >= kAttempts) {
        return file.status();
      }
      directories_->forget();
    }
  }

  Result<std::unique_ptr<ObjectReader>> open(std::string_view key) override {
    CAISSON_RETURN_IF_ERROR(check_object_key(key));
    CAISSON_ASSIGN_OR_RETURN(
        std::unique_ptr<File> file,
        files().open(directories_->path_of(key), OpenMode::kRead, Access::kDirect));
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes, file->size());
    return std::unique_ptr<ObjectReader>(
        std::make_unique<DirReader>(std::string(key), std::move(file), bytes));
  }

  Result<ObjectInfo> stat(std::string_view key) override {
    CAISSON_RETURN_IF_ERROR(check_object_key(key));
    CAISSON_ASSIGN_OR_RETURN(const DirEntry entry, files().stat(directories_->path_of(key)));
    if (entry.is_directory) return not_found(directories_->path_of(key) + " is a directory");
    return ObjectInfo{.key = std::string(key), .bytes = entry.bytes};
  }

  Status list(std::string_view prefix,
              const std::function<Status(const ObjectInfo&)>& visit) override {
    CAISSON_ASSIGN_OR_RETURN(const std::string directory, directory_of(prefix));
    // A stack of keys, not recursion: what stands on disk never decides how deep we call.
    std::vector<std::string> pending{directory};
    while (!pending.empty()) {
      const std::string at = std::move(pending.back());
      pending.pop_back();
      auto entries = files().list(directories_->path_of(at));
      if (entries.status().code() == StatusCode::kNotFound) continue;
      CAISSON_RETURN_IF_ERROR(entries.status());
      for (const DirEntry& entry : *entries) {
        const std::string key = at.empty() ? entry.name : at + "/" + entry.name;
        if (!check_key(key).ok()) continue;  // somebody else's file
        if (at.empty() && is_reserved(key)) continue;
        if (entry.is_directory) {
          pending.push_back(key);
        } else {
          CAISSON_RETURN_IF_ERROR(visit({.key = key, .bytes = entry.bytes}));
        }
      }
    }
    return ok_status();
  }

  Status list_after(std::string_view prefix, std::string_view key,
                    const std::function<Status(const ObjectInfo&)>& visit) override {
    CAISSON_ASSIGN_OR_RETURN(const std::string directory, directory_of(prefix));
    const bool below = key.starts_with(prefix);
    if (!below && key > prefix) return ok_status();  // all of the prefix sorts before it
    const std::string_view after = below ? key.substr(prefix.size()) : std::string_view();
    auto entries = files().list_after(directories_->path_of(directory), after);
    if (entries.status().code() == StatusCode::kNotFound) return ok_status();
    CAISSON_RETURN_IF_ERROR(entries.status());
    for (const DirEntry& entry : *entries) {
      const std::string found = std::string(prefix) + entry.name;
      if (entry.is_directory || !check_key(found).ok()) continue;
      CAISSON_RETURN_IF_ERROR(visit({.key = found, .bytes = entry.bytes}));
    }
    return ok_status();
  }

  // Not synced: what a power loss brings back is whole, and as unwanted as before. gc, snapshots
  // and sweeps delete again what they find again.
  Status remove(std::string_view key) override {
    CAISSON_RETURN_IF_ERROR(check_key(key));
    const std::string path = directories_->path_of(key);
    Status status = files().remove_file(path);
    if (!status.ok() && status.code() != StatusCode::kNotFound) return status;
    directories_->prune_above(path);
    return ok_status();
  }

  Status sync_names(std::string_view prefix) override {
    CAISSON_ASSIGN_OR_RETURN(const std::string directory, directory_of(prefix));
    for (size_t at = 0; at < directory.size(); ++at) {  // the directories that lead to it
      if (at != 0 && directory[at] != '/') continue;
      CAISSON_RETURN_IF_ERROR(sync_if_there(directory.substr(0, at)));
    }
    return sync_if_there(directory);
  }

  ObjectCaps caps() override {
    ObjectCaps caps;
    caps.alignment = {.memory = 4096, .offset = 4096, .direct = true};  // enough for any file
    if (auto temporary = make_temporary(Access::kDirect); temporary.ok()) {
      caps.alignment = (*temporary)->alignment();
      static_cast<void>(files().remove_file((*temporary)->path()));
    }
    caps.engine = "directory " + directories_->root() + ", " + files().io_engine() +
                  (caps.alignment.direct ? ", O_DIRECT " + std::to_string(caps.alignment.memory)
                                         : ", no O_DIRECT");
    return caps;
  }

  Result<std::unique_ptr<TransferQueue>> make_queue(const IoQueueOptions& options) override {
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<IoQueue> queue, files().make_queue(options));
    return std::unique_ptr<TransferQueue>(std::make_unique<DirQueue>(std::move(queue)));
  }

 private:
  FileSystem& files() { return directories_->files(); }

  // "log/" names the directory "log", "" the root.
  static Result<std::string> directory_of(std::string_view prefix) {
    if (prefix.empty()) return std::string();
    if (prefix.back() != '/') {
      return invalid_argument("prefix \"" + std::string(prefix) + "\" does not end in \"/\"");
    }
    prefix.remove_suffix(1);
    CAISSON_RETURN_IF_ERROR(check_key(prefix));
    return std::string(prefix);
  }

  // kNotFound: the temporary file was swept, or a directory removed as empty.
  Status try_put_new(const std::string& path, Bytes bytes) {
    CAISSON_RETURN_IF_ERROR(directories_->ensure_parents(path));
    CAISSON_ASSIGN_OR_RETURN(const std::string temporary, write_temporary(bytes));
    Status status = files().link(temporary, path);
    if (status.ok()) status = directories_->sync(parent_of(path));
    static_cast<void>(files().remove_file(temporary));
    return status;
  }

  Result<std::unique_ptr<File>> create_file(const std::string& path) {
    CAISSON_RETURN_IF_ERROR(directories_->ensure_parents(path));
    return files().open(path, OpenMode::kCreateNew, Access::kDirect);
  }

  Status sync_if_there(const std::string& directory) {
    Status status = directories_->sync(directories_->path_of(directory));
    if (status.code() == StatusCode::kNotFound) return ok_status();
    return status;
  }

  // A new file in tmp/, which must be there. Names of dead processes may come up again where
  // uuids are not random.
  Result<std::unique_ptr<File>> make_temporary(Access access) {
    for (int attempt = 0;; ++attempt) {
      const std::string key = std::string(kTemporary) + "/" + to_hex(uuids_.next());
      auto file = files().open(directories_->path_of(key), OpenMode::kCreateNew, access);
      if (file.status().code() != StatusCode::kAlreadyExists || attempt >= kAttempts) return file;
    }
  }

  // The path of a durable file with these bytes.
  Result<std::string> write_temporary(Bytes bytes) {
    CAISSON_RETURN_IF_ERROR(directories_->ensure_temporary());
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<File> file, make_temporary(Access::kBuffered));
    const std::string path = file->path();
    Status status = file->write_at(0, bytes);
    if (status.ok()) status = file->sync();
    if (status.ok()) return path;
    file.reset();
    static_cast<void>(files().remove_file(path));
    return status;
  }

  const std::shared_ptr<Directories> directories_;
  UuidSource& uuids_;
};

}  // namespace

std::unique_ptr<ObjectStore> make_object_dir(std::shared_ptr<FileSystem> files, std::string root,
                                             UuidSource& uuids) {
  while (root.size() > 1 && root.back() == '/') root.pop_back();
  CAISSON_CHECK(!root.empty() && root.front() == '/');
  return std::make_unique<ObjectDir>(std::move(files), std::move(root), uuids);
}

Result<uint64_t> sweep_temporary(ObjectStore& store) {
  std::vector<std::string> keys;
  CAISSON_RETURN_IF_ERROR(store.list("tmp/", [&](const ObjectInfo& object) {
    keys.push_back(object.key);
    return ok_status();
  }));
  for (const std::string& key : keys) CAISSON_RETURN_IF_ERROR(store.remove(key));
  return uint64_t{keys.size()};
}

}  // namespace caisson

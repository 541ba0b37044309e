// Names and directories; file contents are posix_file.cc. The engine is probed once, at
// construction, and its reason kept.
#include "io/posix_file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>

#include "io/posix_file.h"
#include "io/thread_queue.h"
#include "io/uring_queue.h"

namespace caisson {

namespace {

enum class Engine : uint8_t { kIoUring, kThreads, kBuffered };

Status failed(std::string_view what, const std::string& path) {
  return errno_status(errno, std::string(what) + " " + path);
}

bool is_same_file(const std::string& a, const std::string& b) {
  struct stat left {};
  struct stat right {};
  return ::lstat(a.c_str(), &left) == 0 && ::lstat(b.c_str(), &right) == 0 &&
         left.st_dev == right.st_dev && left.st_ino == right.st_ino;
}

class PosixFileSystem final : public FileSystem {
 public:
  PosixFileSystem(Engine engine, std::string words) : engine_(engine), words_(std::move(words)) {}

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode,
                                     Access access) override {
    return PosixFile::open(path, mode, access == Access::kDirect && engine_ != Engine::kBuffered);
  }

  Status link(const std::string& from, const std::string& to) override {
    if (::link(from.c_str(), to.c_str()) == 0) return ok_status();
    const int error = errno;
    // A network file system may have done it and lost the answer.
    if (error == EEXIST && is_same_file(from, to)) return ok_status();
    if (error == EPERM || error == EOPNOTSUPP) {
      return unsupported("linking " + to + ": this file system has no hard links, which the log " +
                         "needs to create a record exactly once; use another one");
    }
    return errno_status(error, "linking " + from + " to " + to);
  }

  Status rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) == 0) return ok_status();
    return failed("renaming " + from + " to", to);
  }
  Status remove_file(const std::string& path) override {
    if (::unlink(path.c_str()) == 0) return ok_status();
    return failed("removing", path);
  }
  Status remove_directory(const std::string& path) override {
    if (::rmdir(path.c_str()) == 0) return ok_status();
    return failed("removing the directory", path);
  }

  Status create_directory(const std::string& path) override {
    if (::mkdir(path.c_str(), 0777) == 0) return ok_status();
    const int error = errno;
    struct stat info {};
    if (error == EEXIST && ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) {
      return ok_status();
    }
    return errno_status(error, "creating the directory " + path);
  }

  Status sync_directory(const std::string& path) override {
    CAISSON_ASSIGN_OR_RETURN(UniqueFd fd, open_fd(path, O_RDONLY | O_DIRECTORY));
    if (::fsync(fd.get()) != 0) return failed("syncing the directory", path);
    return ok_status();
  }

  Result<DirEntry> stat(const std::string& path) override {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) return failed("examining", path);
    return DirEntry{.name = path.substr(path.rfind('/') + 1),
                    .is_directory = S_ISDIR(info.st_mode),
                    .bytes = static_cast<uint64_t>(info.st_size)};
  }

  // Files and directories; symbolic links, sockets and the like are no part of a store.
  Result<std::vector<DirEntry>> list_after(const std::string& path,
                                           std::string_view after) override {
    CAISSON_ASSIGN_OR_RETURN(UniqueFd fd, open_fd(path, O_RDONLY | O_DIRECTORY));
    const auto close = [](DIR* stream) { ::closedir(stream); };
    const std::unique_ptr<DIR, decltype(close)> stream(::fdopendir(fd.get()), close);
    if (stream == nullptr) return failed("listing", path);
    const int directory = fd.release();  // closed with the stream
    std::vector<DirEntry> entries;
    for (;;) {
      errno = 0;
      const dirent* const found = ::readdir(stream.get());
      if (found == nullptr) {
        if (errno != 0) return failed("listing", path);
        return entries;
      }
      const std::string_view name = found->d_name;
      if (name == "." || name == ".." || name <= after) continue;
      struct stat info {};
      if (::fstatat(directory, found->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) {
        if (errno == ENOENT) continue;  // removed since
        return failed("examining " + std::string(name) + " in", path);
      }
      if (!S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) continue;
      entries.push_back({.name = std::string(name),
                         .is_directory = S_ISDIR(info.st_mode),
                         .bytes = static_cast<uint64_t>(info.st_size)});
    }
  }

  Result<std::unique_ptr<IoQueue>> make_queue(const IoQueueOptions& options) override {
    return engine_ == Engine::kIoUring ? make_uring_queue(options) : make_thread_queue(options);
  }
  std::string io_engine() override { return words_; }

 private:
  const Engine engine_;
  const std::string words_;
};

}  // namespace

Result<std::unique_ptr<FileSystem>> make_posix_file_system(std::string_view engine) {
  const auto made = [](Engine kind, std::string words) -> std::unique_ptr<FileSystem> {
    return std::make_unique<PosixFileSystem>(kind, std::move(words));
  };
  if (engine == "threads") return made(Engine::kThreads, "threads");
  if (engine == "buffered") return made(Engine::kBuffered, "threads, buffered");
  if (engine != "auto" && engine != "io_uring") {
    return invalid_argument("unknown I/O engine \"" + std::string(engine) +
                            "\": use auto, io_uring, threads or buffered");
  }
  const Status uring = probe_uring();
  if (uring.ok()) return made(Engine::kIoUring, "io_uring");
  if (engine == "io_uring") {
    return unsupported(std::string(uring.message()) + ": use the engine \"auto\" or \"threads\"");
  }
  return made(Engine::kThreads, "threads (" + std::string(uring.message()) + ")");
}

}  // namespace caisson

// See new_file.h.
#include "client/new_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

namespace caisson {
namespace {

std::string directory_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

Status sync_directory(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno_status(errno, "open " + path);
  const int outcome = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  return outcome == 0 ? ok_status() : errno_status(error, "fsync " + path);
}

}  // namespace

Result<NewFile> NewFile::create(const std::string& path, uint64_t bytes, bool overwrite) {
  struct stat info {};
  if (!overwrite && ::lstat(path.c_str(), &info) == 0) {
    return already_exists(path + ": exists; give another destination or --overwrite");
  }
  const std::filesystem::path place(path);
  const std::string temporary = directory_of(path) + "/." + place.filename().string() + "." +
                                std::to_string(::getpid()) + ".tmp";
  const int fd =
      ::open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd < 0) return errno_status(errno, "create " + temporary);
  NewFile file(fd, path, temporary, overwrite);
  // EOPNOTSUPP: a filesystem without reservation; writing finds out instead.
  if (bytes > 0 && ::fallocate(fd, 0, 0, static_cast<off_t>(bytes)) != 0 && errno != EOPNOTSUPP) {
    return errno_status(errno, "reserve " + std::to_string(bytes) + " bytes for " + path);
  }
  return file;
}

NewFile::~NewFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

NewFile::NewFile(NewFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, {})),
      overwrite_(other.overwrite_) {}

Status NewFile::write(uint64_t offset, Bytes from) {
  while (!from.empty()) {
    const ssize_t n = ::pwrite(fd_, from.data(), from.size(), static_cast<off_t>(offset));
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno_status(errno, "write " + temporary_ + " at " + std::to_string(offset));
    }
    from = from.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return ok_status();
}

Status NewFile::publish() {
  if (::fsync(fd_) != 0) return errno_status(errno, "fsync " + temporary_);
  const int outcome = ::close(std::exchange(fd_, -1));
  if (outcome != 0) return errno_status(errno, "close " + temporary_);
  const unsigned flags = overwrite_ ? 0U : static_cast<unsigned>(RENAME_NOREPLACE);
  if (::renameat2(AT_FDCWD, temporary_.c_str(), AT_FDCWD, path_.c_str(), flags) != 0) {
    if (errno == EEXIST) return already_exists(path_ + ": appeared meanwhile");
    // EINVAL: a filesystem without NOREPLACE; create() looked already.
    if (errno != EINVAL || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
      return errno_status(errno, "rename " + temporary_ + " to " + path_);
    }
  }
  temporary_.clear();
  return sync_directory(directory_of(path_));
}

Status make_directories(const std::string& path) {
  if (path.empty()) return ok_status();  // a bare file name: the working directory
  std::error_code error;
  const std::filesystem::path place(path);
  if (std::filesystem::is_directory(place, error)) return ok_status();
  if (!std::filesystem::create_directories(place, error) && error) {
    return errno_status(error.value(), "create directory " + path);
  }
  return sync_directory(directory_of(path));
}

}  // namespace caisson

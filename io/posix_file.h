// An open POSIX file, direct or buffered. PosixFileSystem opens it; the queues take its descriptor.
// Several threads may use one File at different offsets.
//
// A file that is written has two descriptors: whole blocks go through the direct one, the ends of
// a range that are not whole blocks through the buffered one. No block is padded, so the file never
// grows past what was written. Blocks are at least a page, so that no cached page mixes both ways.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "caisson/result.h"
#include "io/file_system.h"
#include "io/transfer.h"

namespace caisson {

// Owns a file descriptor. Thread-compatible.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  ~UniqueFd();
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  UniqueFd(UniqueFd&& other) noexcept;
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  bool valid() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};
// open(2) with O_CLOEXEC, again after EINTR.
Result<UniqueFd> open_fd(const std::string& path, int flags);

class PosixFile final : public File {
 public:
  static Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode, bool direct);

  const std::string& path() const override { return path_; }
  IoAlignment alignment() const override { return alignment_; }
  Result<uint64_t> size() override;
  Status read_at(uint64_t offset, MutableBytes into) override;
  Status write_at(uint64_t offset, Bytes from) override;
  Status allocate(uint64_t bytes) override;
  Status truncate(uint64_t bytes) override;
  Status sync() override;

 private:
  PosixFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  void go_direct(OpenMode mode);
  bool takes(uint64_t offset, Bytes bytes) const;
  Transfer transfer(bool write, uint64_t offset, Bytes bytes) const;
  Status read_bounced(uint64_t offset, MutableBytes into);
  Status write_blocks(uint64_t offset, Bytes from);
  Status write_buffered(uint64_t offset, Bytes from);
  friend Result<Transfer> queued_transfer(File& file, bool write, uint64_t offset, Bytes bytes);
  friend Result<int> queued_sync(File& file);

  const std::string path_;
  UniqueFd fd_;      // of a file that is read: direct where alignment_ says so
  UniqueFd direct_;  // of a file that is written, where alignment_ says so
  IoAlignment alignment_{.memory = 1, .offset = 1, .direct = false};
};

// What a queue does for its caller: kInvalidArgument when `file` is not a PosixFile, or when the
// request does not obey its alignment. Reads fill `bytes`, const or not.
Result<Transfer> queued_transfer(File& file, bool write, uint64_t offset, Bytes bytes);
// The descriptor to fdatasync. kInvalidArgument when `file` is not a PosixFile.
Result<int> queued_sync(File& file);
// What fdatasync of `path` answered: 0, or an errno.
Status sync_status(int error, const std::string& path);

}  // namespace caisson

#include "io/posix_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "io/base/buffer.h"

namespace caisson {

namespace {

constexpr uint32_t kBlockBytes = 4096;
constexpr uint64_t kBounceBytes = 1u << 20;

Status failed(std::string_view what, const std::string& path) {
  return errno_status(errno, std::string(what) + " " + path);
}

Status foreign(const File& file) {
  return invalid_argument(file.path() + " belongs to another file system than this queue");
}

bool fits_in_a_file(uint64_t offset, uint64_t bytes) {
  return offset <= INT64_MAX && bytes <= INT64_MAX - offset;
}

// What direct I/O on `fd` asks for; .direct is false where it is pointless or not offered.
IoAlignment direct_alignment(int fd) {
  IoAlignment alignment{.memory = kBlockBytes, .offset = kBlockBytes, .direct = true};
  struct statfs system {};
  // tmpfs takes O_DIRECT since Linux 6.6 and copies all the same.
  if (::fstatfs(fd, &system) == 0 && system.f_type == TMPFS_MAGIC) alignment.direct = false;
#ifdef STATX_DIOALIGN
  struct statx info {};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 &&
      (info.stx_mask & STATX_DIOALIGN) != 0) {
    alignment.memory = info.stx_dio_mem_align;
    alignment.offset = std::max(info.stx_dio_offset_align, kBlockBytes);
    if (info.stx_dio_mem_align == 0 || info.stx_dio_offset_align == 0) alignment.direct = false;
  }
#endif
  return alignment;
}

bool same_file(int a, int b) {
  struct stat left {};
  struct stat right {};
  return ::fstat(a, &left) == 0 && ::fstat(b, &right) == 0 && left.st_dev == right.st_dev &&
         left.st_ino == right.st_ino;
}

}  // namespace

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) ::close(fd_);
}
UniqueFd::UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Result<UniqueFd> open_fd(const std::string& path, int flags) {
  int fd = -1;
  do {
    fd = ::open(path.c_str(), flags | O_CLOEXEC, 0666);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) return failed((flags & O_CREAT) != 0 ? "creating" : "opening", path);
  return UniqueFd(fd);
}

Result<std::unique_ptr<File>> PosixFile::open(const std::string& path, OpenMode mode, bool direct) {
  // Never created with O_DIRECT: where that is refused, the refusal would leave the file behind.
  const int flags = mode == OpenMode::kRead ? O_RDONLY : O_RDWR | O_CREAT | O_EXCL;
  CAISSON_ASSIGN_OR_RETURN(UniqueFd fd, open_fd(path, flags | O_NOFOLLOW));
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return failed("examining", path);
  if (!S_ISREG(info.st_mode)) return invalid_argument(path + " is not a regular file");
  std::unique_ptr<PosixFile> file(new PosixFile(path, std::move(fd)));
  if (direct) file->go_direct(mode);
  return std::unique_ptr<File>(std::move(file));
}

// Any refusal leaves the file buffered: slower, never wrong.
void PosixFile::go_direct(OpenMode mode) {
  const IoAlignment alignment = direct_alignment(fd_.get());
  if (!alignment.direct) return;
  if (mode == OpenMode::kRead) {
    const int flags = ::fcntl(fd_.get(), F_GETFL);
    if (flags < 0 || ::fcntl(fd_.get(), F_SETFL, flags | O_DIRECT) != 0) return;
  } else {
    auto second = open_fd(path_, O_RDWR | O_DIRECT | O_NOFOLLOW);
    if (!second.ok() || !same_file(second->get(), fd_.get())) return;
    direct_ = std::move(second).value();
  }
  alignment_ = alignment;
}

bool PosixFile::takes(uint64_t offset, Bytes bytes) const {
  return alignment_.takes(offset, bytes);
}

Transfer PosixFile::transfer(bool write, uint64_t offset, Bytes bytes) const {
  return {.write = write,
          .fd = direct_.valid() ? direct_.get() : fd_.get(),
          .data = const_cast<std::byte*>(bytes.data()),
          .offset = offset,
          .bytes = bytes.size(),
          .enough = bytes.size(),
          .alignment = alignment_.offset,
          .path = &path_};
}

Result<uint64_t> PosixFile::size() {
  struct stat info {};
  if (::fstat(fd_.get(), &info) != 0) return failed("examining", path_);
  return static_cast<uint64_t>(info.st_size);
}

Status PosixFile::read_at(uint64_t offset, MutableBytes into) {
  if (into.empty()) return ok_status();
  if (!fits_in_a_file(offset, into.size() + kBounceBytes)) {
    return corruption(path_ + ": a read at offset " + std::to_string(offset) +
                      ", where no file reaches");
  }
  if (!takes(offset, into)) return read_bounced(offset, into);
  Transfer read = transfer(false, offset, into);
  return run_transfer(read);
}

Status PosixFile::read_bounced(uint64_t offset, MutableBytes into) {
  const uint64_t end = align_up(offset + into.size(), alignment_.offset);
  uint64_t at = offset / alignment_.offset * alignment_.offset;
  CAISSON_ASSIGN_OR_RETURN(
      AlignedBuffer bounce,
      AlignedBuffer::allocate(std::min(end - at, align_up(kBounceBytes, alignment_.offset))));
  while (!into.empty()) {
    const uint64_t skipped = offset - at;
    const uint64_t window = std::min(end - at, bounce.size());
    const uint64_t wanted = std::min<uint64_t>(into.size(), window - skipped);
    Transfer read = transfer(false, at, bounce.bytes().first(window));
    read.enough = skipped + wanted;  // the last block of a file need not be whole
    CAISSON_RETURN_IF_ERROR(run_transfer(read));
    std::memcpy(into.data(), bounce.data() + skipped, wanted);
    into = into.subspan(wanted);
    offset += wanted;
    at += window;
  }
  return ok_status();
}

Status PosixFile::write_at(uint64_t offset, Bytes from) {
  if (from.empty()) return ok_status();
  if (!fits_in_a_file(offset, from.size() + kBounceBytes)) {
    return invalid_argument(path_ + ": a write at offset " + std::to_string(offset) +
                            ", where no file reaches");
  }
  if (!alignment_.direct) return write_buffered(offset, from);
  const uint64_t end = offset + from.size();
  const uint64_t blocks_begin = align_up(offset, alignment_.offset);
  const uint64_t blocks_end = end / alignment_.offset * alignment_.offset;
  if (blocks_begin >= blocks_end) return write_buffered(offset, from);
  const uint64_t head = blocks_begin - offset;
  const uint64_t middle = blocks_end - blocks_begin;
  CAISSON_RETURN_IF_ERROR(write_buffered(offset, from.first(head)));
  CAISSON_RETURN_IF_ERROR(write_blocks(blocks_begin, from.subspan(head, middle)));
  return write_buffered(blocks_end, from.subspan(head + middle));
}

Status PosixFile::write_blocks(uint64_t offset, Bytes from) {
  if (takes(offset, from)) {
    Transfer write = transfer(true, offset, from);
    return run_transfer(write);
  }
  CAISSON_ASSIGN_OR_RETURN(AlignedBuffer bounce,
                           AlignedBuffer::allocate(std::min<uint64_t>(
                               from.size(), align_up(kBounceBytes, alignment_.offset))));
  while (!from.empty()) {
    const Bytes piece = from.first(std::min<uint64_t>(from.size(), bounce.size()));
    std::memcpy(bounce.data(), piece.data(), piece.size());
    Transfer write = transfer(true, offset, Bytes(bounce.bytes()).first(piece.size()));
    CAISSON_RETURN_IF_ERROR(run_transfer(write));
    from = from.subspan(piece.size());
    offset += piece.size();
  }
  return ok_status();
}

Status PosixFile::write_buffered(uint64_t offset, Bytes from) {
  if (from.empty()) return ok_status();
  Transfer write = transfer(true, offset, from);
  write.fd = fd_.get();
  write.alignment = 1;
  return run_transfer(write);
}

Status PosixFile::allocate(uint64_t bytes) {
  if (bytes == 0) return ok_status();
  if (!fits_in_a_file(0, bytes)) return no_space("allocating " + path_ + ": no file is that large");
  int rc = 0;
  do {
    rc = ::fallocate(fd_.get(), 0, 0, static_cast<off_t>(bytes));
  } while (rc != 0 && errno == EINTR);
  if (rc == 0) return ok_status();
  if (errno == EOPNOTSUPP || errno == ENOSYS) return truncate(bytes);
  return failed("allocating " + std::to_string(bytes) + " bytes for", path_);
}

Status PosixFile::truncate(uint64_t bytes) {
  if (!fits_in_a_file(0, bytes)) return invalid_argument(path_ + ": no file is that large");
  int rc = 0;
  do {
    rc = ::ftruncate(fd_.get(), static_cast<off_t>(bytes));
  } while (rc != 0 && errno == EINTR);
  if (rc != 0) return failed("setting the size of", path_);
  return ok_status();
}

// No loop: a sync that failed may have dropped the pages it could not write, and the next one
// would succeed without them.
Status PosixFile::sync() { return sync_status(::fdatasync(fd_.get()) == 0 ? 0 : errno, path_); }

Status sync_status(int error, const std::string& path) {
  return error == 0 ? ok_status() : errno_status(error, "syncing " + path);
}

Result<Transfer> queued_transfer(File& file, bool write, uint64_t offset, Bytes bytes) {
  auto* const posix = dynamic_cast<PosixFile*>(&file);
  if (posix == nullptr) return foreign(file);
  if (bytes.empty() || !posix->takes(offset, bytes) || !fits_in_a_file(offset, bytes.size())) {
    return invalid_argument(posix->path() + ": a queued transfer of " +
                            std::to_string(bytes.size()) + " bytes at offset " +
                            std::to_string(offset) + " is empty or not aligned");
  }
  return posix->transfer(write, offset, bytes);
}

Result<int> queued_sync(File& file) {
  auto* const posix = dynamic_cast<PosixFile*>(&file);
  if (posix == nullptr) return foreign(file);
  return posix->fd_.get();
}

}  // namespace caisson

// See mapped_file.h.
#include "client/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>

namespace caisson {

// A signal handler can take no lock, so guards stand in a list that only grows; one whose file was
// closed (begin 0) is used again. They are reachable for ever, which is what the handler needs.
struct MappedFile::Guard {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> lost{false};
  Guard* next = nullptr;

  // A handler reaches nothing but globals.
  // NOLINTBEGIN(cppcoreguidelines-avoid-non-const-global-variables)
  static inline std::atomic<Guard*> first{nullptr};
  static inline struct sigaction before {};  // what SIGBUS did before us
  // NOLINTEND(cppcoreguidelines-avoid-non-const-global-variables)
};

MappedFile::Guard* MappedFile::guard(const std::byte* data, uint64_t size) {
  const auto begin = reinterpret_cast<uintptr_t>(data);
  Guard* found = Guard::first.load();
  for (uintptr_t free = 0; found != nullptr; found = found->next, free = 0) {
    if (found->begin.compare_exchange_strong(free, begin)) break;
  }
  if (found == nullptr) {
    found = new Guard;
    found->begin = begin;
    found->next = Guard::first.load();
    while (!Guard::first.compare_exchange_weak(found->next, found)) {
    }
  }
  found->lost = false;
  found->end = begin + size;
  return found;
}

// Only async-signal-safe work: atomics without locks, mmap and sigaction as plain system calls.
void MappedFile::on_lost_page(int /*signal*/, siginfo_t* info, void* /*context*/) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  for (Guard* guard = Guard::first.load(); guard != nullptr; guard = guard->next) {
    const uintptr_t begin = guard->begin.load();
    const uintptr_t end = guard->end.load();
    if (begin == 0 || at < begin || at >= end) continue;
    // Everything from here on in one go: a file is cut at its end.
    const uintptr_t into_page = (at - begin) % static_cast<uintptr_t>(::getpagesize());
    std::byte* const page = static_cast<std::byte*>(info->si_addr) - into_page;
    void* const zeros = ::mmap(page, end - (at - into_page), PROT_READ,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (zeros == MAP_FAILED) break;
    guard->lost = true;
    return;
  }
  ::sigaction(SIGBUS, &Guard::before, nullptr);  // the access faults again, and that one decides
}

void MappedFile::install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_lost_page;
    action.sa_flags = SA_SIGINFO;
    ::sigaction(SIGBUS, &action, &Guard::before);
  });
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  MappedFile file;
  file.path_ = path;
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.fd_ < 0) return errno_status(errno, "open " + path);
  struct stat info {};
  if (::fstat(file.fd_, &info) != 0) return errno_status(errno, "stat " + path);
  if (!S_ISREG(info.st_mode)) return invalid_argument(path + ": not a regular file");
  file.changed_ = info.st_mtim;
  file.size_ = static_cast<uint64_t>(info.st_size);
  if (file.size_ == 0) return file;
  install_handler();
  void* const data = ::mmap(nullptr, file.size_, PROT_READ, MAP_PRIVATE, file.fd_, 0);
  if (data == MAP_FAILED) return errno_status(errno, "map " + path);
  ::madvise(data, file.size_, MADV_SEQUENTIAL);  // a hint: its failure costs only speed
  file.data_ = static_cast<const std::byte*>(data);
  file.guard_ = guard(file.data_, file.size_);
  return file;
}

Status MappedFile::check_unchanged() const {
  struct stat now {};
  if (::fstat(fd_, &now) != 0) return errno_status(errno, "stat " + path_);
  const bool same = static_cast<uint64_t>(now.st_size) == size_ &&
                    now.st_mtim.tv_sec == changed_.tv_sec &&
                    now.st_mtim.tv_nsec == changed_.tv_nsec;
  if (!same) {
    return invalid_argument(path_ + ": changed while it was read (" + std::to_string(size_) +
                            " bytes before, " + std::to_string(now.st_size) +
                            " now); nothing was committed, try again when its writer is done");
  }
  if (guard_ != nullptr && guard_->lost) {
    return io_error(path_ + ": some of it could not be read; nothing was committed");
  }
  return ok_status();
}

MappedFile::~MappedFile() {
  if (guard_ != nullptr) {
    guard_->end = 0;
    guard_->begin = 0;
  }
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  if (fd_ >= 0) ::close(fd_);
}

void MappedFile::swap(MappedFile& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(fd_, other.fd_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(changed_, other.changed_);
  std::swap(guard_, other.guard_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept { swap(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  swap(other);
  return *this;
}

}  // namespace caisson

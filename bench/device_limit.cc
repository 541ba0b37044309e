#include "bench/device_limit.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "io/base/check.h"
#include "io/posix_file_system.h"

namespace caisson::bench {

namespace {

Status write_and_sync(int fd, Bytes data, const std::string& path, const std::stop_token& stop) {
  for (size_t done = 0; done < data.size();) {
    if (stop.stop_requested()) return cancelled("interrupted");
    const size_t step = std::min<size_t>(data.size() - done, kLimitRequestBytes);
    const ssize_t wrote = ::write(fd, data.data() + done, step);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return errno_status(wrote < 0 ? errno : EIO, path);
    done += static_cast<size_t>(wrote);
  }
  return ::fsync(fd) == 0 ? Status() : errno_status(errno, path);
}

}  // namespace

Result<std::unique_ptr<DeviceLimit>> DeviceLimit::create(FileSystem& files,
                                                         std::vector<std::string> paths,
                                                         uint64_t bytes) {
  CAISSON_CHECK(bytes > 0 && bytes % kLimitRequestBytes == 0);
  std::unique_ptr<DeviceLimit> limit(new DeviceLimit(files, std::move(paths), bytes));
  CAISSON_ASSIGN_OR_RETURN(limit->memory_,
                           AlignedBuffer::allocate(kLimitRequestBytes * kLimitDepth, true));
  // Not zeros: a device or a virtual disk may take those for free.
  uint64_t word = 0x9e3779b97f4a7c15;
  const MutableBytes memory = limit->memory_.bytes();
  for (size_t i = 0; i < memory.size(); i += 8) {
    word ^= word << 13, word ^= word >> 7, word ^= word << 17;
    store_le(memory.data() + i, word);
  }
  for (const std::string& path : limit->paths_) {
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<File> file,
                             files.open(path, OpenMode::kCreateNew, Access::kDirect));
    limit->opened_.push_back(std::move(file));
  }
  CAISSON_ASSIGN_OR_RETURN(limit->queue_,
                           files.make_queue({.depth = kLimitDepth, .registered_memory = memory}));
  return limit;
}

DeviceLimit::~DeviceLimit() {
  queue_.reset();
  const size_t created = opened_.size();
  opened_.clear();
  // Scratch files; nothing to do about a failure.
  for (size_t i = 0; i < created; ++i) (void)files_.remove_file(paths_[i]);
}

Status DeviceLimit::transfer(bool write) {
  uint64_t next = 0;
  const auto submit = [&](uint64_t slot) {
    const MutableBytes buffer =
        memory_.bytes().subspan(slot * kLimitRequestBytes, kLimitRequestBytes);
    const uint64_t request = next / kLimitRequestBytes;
    File& file = *opened_[request % opened_.size()];
    const uint64_t offset = request / opened_.size() * kLimitRequestBytes;
    next += kLimitRequestBytes;
    return write ? queue_->submit_write(file, offset, buffer, slot)
                 : queue_->submit_read(file, offset, buffer, slot);
  };
  for (uint64_t slot = 0; slot < kLimitDepth && next < bytes_; ++slot) {
    CAISSON_RETURN_IF_ERROR(submit(slot));
  }
  while (queue_->in_flight() > 0) {
    CAISSON_ASSIGN_OR_RETURN(const IoCompletion done, queue_->wait());
    CAISSON_RETURN_IF_ERROR(done.status);
    if (next < bytes_) CAISSON_RETURN_IF_ERROR(submit(done.tag));
  }
  return {};
}

Status DeviceLimit::write() {
  const uint64_t requests = bytes_ / kLimitRequestBytes;
  for (size_t i = 0; i < opened_.size() && !allocated_; ++i) {
    const uint64_t own = (requests + opened_.size() - 1 - i) / opened_.size();
    CAISSON_RETURN_IF_ERROR(opened_[i]->allocate(own * kLimitRequestBytes));
  }
  allocated_ = true;
  CAISSON_RETURN_IF_ERROR(transfer(true));
  for (const auto& file : opened_) CAISSON_RETURN_IF_ERROR(file->sync());
  return {};
}

Result<LimitRates> measure_limit(const std::string& directory, uint64_t bytes,
                                 std::string_view io_engine) {
  using Clock = std::chrono::steady_clock;
  const std::string path = directory + "/caisson-limit-" + std::to_string(::getpid());
  CAISSON_ASSIGN_OR_RETURN(const auto files, make_posix_file_system(io_engine));
  CAISSON_ASSIGN_OR_RETURN(const auto limit, DeviceLimit::create(*files, {path}, bytes));
  const auto rate_since = [bytes](Clock::time_point began) {
    return static_cast<double>(bytes) / std::chrono::duration<double>(Clock::now() - began).count();
  };
  LimitRates rates;
  auto began = Clock::now();
  CAISSON_RETURN_IF_ERROR(limit->write());
  rates.write = rate_since(began);
  began = Clock::now();
  CAISSON_RETURN_IF_ERROR(limit->read());
  rates.read = rate_since(began);
  return rates;
}

Status buffered_write(const std::string& path, Bytes data, const std::stop_token& stop) {
  const int fd = ::open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) return errno_status(errno, path);
  const Status written = write_and_sync(fd, data, path, stop);
  ::close(fd);
  CAISSON_RETURN_IF_ERROR(written);
  const std::string parent = std::filesystem::path(path).parent_path().string();
  const int directory = ::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return errno_status(errno, parent);
  const int synced = ::fsync(directory);
  const int error = errno;
  ::close(directory);
  return synced == 0 ? Status() : errno_status(error, parent);
}

Status mapped_copy(const std::string& path, MutableBytes into) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno_status(errno, path);
  void* const mapped = ::mmap(nullptr, into.size(), PROT_READ, MAP_PRIVATE, fd, 0);
  const int error = errno;
  ::close(fd);
  if (mapped == MAP_FAILED) return errno_status(error, path);
  std::memcpy(into.data(), mapped, into.size());
  ::munmap(mapped, into.size());
  return {};
}

Status drop_page_cache(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno_status(errno, path);
  ::fdatasync(fd);  // only clean pages are dropped
  const int error = ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  ::close(fd);
  return error == 0 ? Status() : errno_status(error, path);
}

}  // namespace caisson::bench

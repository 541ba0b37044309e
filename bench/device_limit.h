// L, the limit that everything is compared with: what the device takes and gives through the same
// file system seam with nothing else to do. 4 MiB requests, 16 in flight, direct I/O where the file
// system has it, prefaulted hugepage buffers, one fallocate before writing, one sync at the end.
// Thread-compatible.
#pragma once

#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/result.h"
#include "io/base/buffer.h"
#include "io/file_system.h"

namespace caisson::bench {

inline constexpr uint64_t kLimitRequestBytes = 4u << 20;
inline constexpr uint32_t kLimitDepth = 16;

class DeviceLimit {
 public:
  // New files at `paths`, one a device, that requests go to in turn; removed again with this
  // object. `bytes` is a multiple of 4 MiB.
  static Result<std::unique_ptr<DeviceLimit>> create(FileSystem& files,
                                                     std::vector<std::string> paths,
                                                     uint64_t bytes);
  ~DeviceLimit();
  DeviceLimit(const DeviceLimit&) = delete;
  DeviceLimit& operator=(const DeviceLimit&) = delete;

  // The first call writes fresh blocks (fallocate included), later calls overwrite them.
  Status write();
  Status read() { return transfer(false); }

 private:
  DeviceLimit(FileSystem& files, std::vector<std::string> paths, uint64_t bytes)
      : files_(files), paths_(std::move(paths)), bytes_(bytes) {}
  Status transfer(bool write);

  FileSystem& files_;
  const std::vector<std::string> paths_;
  const uint64_t bytes_;
  bool allocated_ = false;
  AlignedBuffer memory_;
  std::vector<std::unique_ptr<File>> opened_;
  std::unique_ptr<IoQueue> queue_;
};

// L alone, in bytes a second: one write of fresh blocks and one read of them, in a scratch file of
// `directory`.
struct LimitRates {
  double write = 0, read = 0;
};
Result<LimitRates> measure_limit(const std::string& directory, uint64_t bytes,
                                 std::string_view io_engine);

// What most checkpoint writers do: buffered write(2) of the same bytes in 4 MiB calls, then fsync,
// then the directory's fsync. The caller removes the file.
Status buffered_write(const std::string& path, Bytes data, const std::stop_token& stop);
// What many readers do: maps the file and copies out of the mapping. Cold when the page cache has
// nothing of it.
Status mapped_copy(const std::string& path, MutableBytes into);
Status drop_page_cache(const std::string& path);  // of one file

}  // namespace caisson::bench

// A file mapped read-only: what import hands to the engine as tensor memory. Immutable after open.
//
// The kernel answers a read of a mapped page that is not there any more, because somebody cut the
// file or its disk failed, with SIGBUS. The first open() of a process installs a handler for that
// signal: within a file of ours the lost pages become zeros and the file is remembered as damaged;
// elsewhere the signal does what it did before. So whoever reads through bytes() asks
// check_unchanged() afterwards, before anything rests on what was read.
#pragma once

#include <csignal>
#include <cstdint>
#include <ctime>
#include <string>

#include "caisson/result.h"
#include "io/base/bytes.h"

namespace caisson {

class MappedFile {
 public:
  // Regular files only (symbolic links are followed). An empty file maps to an empty span.
  static Result<MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  Bytes bytes() const { return {data_, static_cast<size_t>(size_)}; }
  // kInvalidArgument when the file has another size or time of change than at open(), or when some
  // of it could not be read.
  Status check_unchanged() const;

 private:
  struct Guard;  // tells the handler where this file lies
  static Guard* guard(const std::byte* data, uint64_t size);
  static void on_lost_page(int signal, siginfo_t* info, void* context);
  static void install_handler();

  MappedFile() = default;
  void swap(MappedFile& other) noexcept;

  std::string path_;
  int fd_ = -1;
  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
  timespec changed_{};
  Guard* guard_ = nullptr;
};

}  // namespace caisson

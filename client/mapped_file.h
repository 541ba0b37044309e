// A file mapped read-only: what import hands to the engine as tensor memory. Immutable after open.
// The file must not be cut while it is mapped: the kernel would end the process with SIGBUS.
// Nothing that was committed suffers from that.
#pragma once

#include <cstdint>
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

 private:
  MappedFile(const std::byte* data, uint64_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace caisson

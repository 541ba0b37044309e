// A file that appears whole or not at all: written under a temporary name in its directory, synced,
// renamed into place, and the directory synced. Used by export and restore to files. Not
// thread-safe.
#pragma once

#include <cstdint>
#include <string>

#include "caisson/result.h"
#include "io/base/bytes.h"

namespace caisson {

class NewFile {
 public:
  // Reserves `bytes` on the device at once, so that a full disk is found before the work.
  // kAlreadyExists when `path` is there and `overwrite` is not set.
  static Result<NewFile> create(const std::string& path, uint64_t bytes, bool overwrite);
  ~NewFile();  // without publish(): removes the temporary file
  NewFile(NewFile&& other) noexcept;
  NewFile& operator=(NewFile&&) = delete;
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  Status write(uint64_t offset, Bytes from);
  // Ok means durable under its own name.
  Status publish();

 private:
  NewFile(int fd, std::string path, std::string temporary, bool overwrite)
      : fd_(fd), path_(std::move(path)), temporary_(std::move(temporary)), overwrite_(overwrite) {}

  int fd_ = -1;
  std::string path_;
  std::string temporary_;
  bool overwrite_ = false;
};

// The directory and its missing parents, durable.
Status make_directories(const std::string& path);

}  // namespace caisson

// A fresh directory on a real file system, removed with all that is in it. Thread-compatible.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

namespace caisson::testing {

class TempDir {
 public:
  // `base`: where to put it; empty: $TMPDIR or /tmp.
  explicit TempDir(std::string base = {}) {
    if (base.empty()) base = std::filesystem::temp_directory_path().string();
    path_ = base + "/caisson-test-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) {
      ADD_FAILURE() << "cannot create a directory in " << base;
      path_.clear();
    }
  }
  ~TempDir() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace caisson::testing

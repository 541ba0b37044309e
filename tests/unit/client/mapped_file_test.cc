// Tests of client/mapped_file.h: what becomes of a mapped file that others change.
#include "client/mapped_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace caisson {
namespace {

namespace fs = std::filesystem;
constexpr uint64_t kBytes = 1 << 20;
constexpr uint64_t kKept = 10'000;  // within a page

class MappedFileTest : public ::testing::Test {
 protected:
  MappedFileTest() {
    std::string pattern = (fs::temp_directory_path() / "mapped-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
    path_ = directory_ / "weights";
    std::ofstream(path_, std::ios::binary) << std::string(kBytes, 'x');
  }
  ~MappedFileTest() override { fs::remove_all(directory_); }

  static int64_t count(const MappedFile& file, char c) {
    return std::ranges::count(file.bytes(), static_cast<std::byte>(c));
  }

  fs::path directory_;
  fs::path path_;
};

TEST_F(MappedFileTest, LeftAlone) {
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(count(*file, 'x'), static_cast<int64_t>(kBytes));
  EXPECT_TRUE(file->check_unchanged().ok());
}

TEST_F(MappedFileTest, CutShort) {
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok());
  fs::resize_file(path_, kKept);
  EXPECT_EQ(count(*file, 'x'), static_cast<int64_t>(kKept));
  EXPECT_EQ(count(*file, 0), static_cast<int64_t>(kBytes - kKept));
  const Status status = file->check_unchanged();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find(path_.string()), std::string::npos) << status.to_string();
}

TEST_F(MappedFileTest, CutShortAndMadeLongAgain) {
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok());
  const auto time = fs::last_write_time(path_);
  fs::resize_file(path_, kKept);
  EXPECT_LT(count(*file, 'x'), static_cast<int64_t>(kBytes));
  fs::resize_file(path_, kBytes);
  fs::last_write_time(path_, time);
  EXPECT_EQ(file->check_unchanged().code(), StatusCode::kIoError);
}

TEST_F(MappedFileTest, WrittenInPlace) {
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok());
  fs::last_write_time(path_, fs::last_write_time(path_) + std::chrono::nanoseconds(1));
  EXPECT_EQ(file->check_unchanged().code(), StatusCode::kInvalidArgument);
}

TEST_F(MappedFileTest, GuardsAreUsedAgain) {
  for (int round = 0; round < 3; ++round) {
    std::ofstream(path_, std::ios::binary) << std::string(kBytes, 'x');
    auto one = MappedFile::open(path_);
    auto other = MappedFile::open(path_);
    ASSERT_TRUE(one.ok() && other.ok());
    *one = std::move(*other);
    EXPECT_TRUE(one->check_unchanged().ok());
    fs::resize_file(path_, kKept);
    EXPECT_EQ(count(*one, 'x'), static_cast<int64_t>(kKept));
    EXPECT_EQ(one->check_unchanged().code(), StatusCode::kInvalidArgument);
  }
}

// Only our own files are ours to excuse.
TEST_F(MappedFileTest, OtherMappingsStillEndTheProcess) {
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok());
  const fs::path other = directory_ / "other";
  std::ofstream(other, std::ios::binary) << std::string(kBytes, 'y');
  const int fd = ::open(other.c_str(), O_RDONLY | O_CLOEXEC);
  auto* const data =
      static_cast<volatile char*>(::mmap(nullptr, kBytes, PROT_READ, MAP_PRIVATE, fd, 0));
  fs::resize_file(other, 0);
  EXPECT_DEATH({ static_cast<void>(data[kBytes - 1]); }, "");
  ::munmap(const_cast<char*>(data), kBytes);
  ::close(fd);
}

}  // namespace
}  // namespace caisson

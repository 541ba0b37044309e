// What every FileSystem must do, real or simulated. A binary includes this once and instantiates
// FileSystemSuite with one FileSystemCase a file system. Nothing here knows POSIX.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "io/base/buffer.h"
#include "io/file_system.h"

namespace caisson::testing {

// One file system under test with an empty directory on it.
class FileSystemHost {
 public:
  virtual ~FileSystemHost() = default;
  virtual FileSystem& files() = 0;
  virtual std::string root() = 0;
};
struct FileSystemCase {
  std::string name;
  std::function<std::unique_ptr<FileSystemHost>()> make;
};
inline std::string case_name(const ::testing::TestParamInfo<FileSystemCase>& info) {
  return info.param.name;
}
inline void PrintTo(const FileSystemCase& c, std::ostream* out) { *out << c.name; }

// Statuses by code, with the whole status in the failure.
MATCHER_P(HasCode, code, "has the code " + std::string(status_code_name(code))) {
  *result_listener << arg.to_string();
  return arg.code() == code;
}
#define ASSERT_STATUS_OK(expr)                              \
  do {                                                      \
    const ::caisson::Status status_ok_ = (expr);            \
    ASSERT_TRUE(status_ok_.ok()) << status_ok_.to_string(); \
  } while (false)

inline ByteVector random_bytes(size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  ByteVector bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

class FileSystemSuite : public ::testing::TestWithParam<FileSystemCase> {
 protected:
  void SetUp() override { host_ = GetParam().make(); }
  FileSystem& files() { return host_->files(); }
  std::string path(const std::string& name) { return host_->root() + "/" + name; }
  std::unique_ptr<File> create(const std::string& name, Access access = Access::kDirect) {
    auto file = files().open(path(name), OpenMode::kCreateNew, access);
    EXPECT_TRUE(file.ok()) << file.status().to_string();
    return file.ok() ? std::move(file).value() : nullptr;
  }
  std::unique_ptr<File> reopen(const std::string& name, Access access = Access::kDirect) {
    auto file = files().open(path(name), OpenMode::kRead, access);
    EXPECT_TRUE(file.ok()) << file.status().to_string();
    return file.ok() ? std::move(file).value() : nullptr;
  }
  void write_file(const std::string& name, Bytes bytes) {
    auto file = create(name, Access::kBuffered);
    ASSERT_NE(file, nullptr);
    ASSERT_STATUS_OK(file->write_at(0, bytes));
    ASSERT_STATUS_OK(file->sync());
  }
  std::string read_file(const std::string& name) {
    auto file = reopen(name, Access::kBuffered);
    if (file == nullptr) return {};
    std::string text(file->size().value(), '\0');
    EXPECT_TRUE(file->read_at(0, std::as_writable_bytes(std::span(text))).ok());
    return text;
  }

  std::unique_ptr<FileSystemHost> host_;
};

TEST_P(FileSystemSuite, WritesAndReadsAtAnyAlignment) {
  constexpr uint64_t kSeed = 7;
  constexpr uint64_t kPlaces[] = {0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 12'289, 70'000};
  for (const Access access : {Access::kDirect, Access::kBuffered}) {
    const std::string name = access == Access::kDirect ? "direct" : "buffered";
    auto file = create(name, access);
    ASSERT_NE(file, nullptr);
    ByteVector model;
    auto memory = AlignedBuffer::allocate(1 << 20).value();
    uint64_t step = 0;
    for (const uint64_t begin : kPlaces) {
      for (const uint64_t length : kPlaces) {
        const uint64_t shift = ++step % 3;  // the address, too, is aligned or not
        const ByteVector data = random_bytes(length, kSeed + step);
        std::copy(data.begin(), data.end(), memory.data() + shift);
        ASSERT_STATUS_OK(file->write_at(begin, Bytes(memory.data() + shift, length)));
        if (length > 0) model.resize(std::max<size_t>(model.size(), begin + length));
        std::copy(data.begin(), data.end(), model.begin() + static_cast<ptrdiff_t>(begin));
        ASSERT_EQ(file->size().value(), model.size()) << name << " " << begin << "+" << length;
      }
    }
    ASSERT_STATUS_OK(file->sync());
    auto reader = reopen(name, access);
    ASSERT_NE(reader, nullptr);
    for (File* const from : {file.get(), reader.get()}) {
      for (const uint64_t begin : kPlaces) {
        for (const uint64_t length : kPlaces) {
          const uint64_t shift = ++step % 3;
          ASSERT_STATUS_OK(from->read_at(begin, MutableBytes(memory.data() + shift, length)));
          ASSERT_TRUE(std::equal(memory.data() + shift, memory.data() + shift + length,
                                 model.begin() + static_cast<ptrdiff_t>(begin)))
              << name << " " << begin << "+" << length;
        }
      }
    }
  }
}

TEST_P(FileSystemSuite, MovesMoreThanOneBounceBuffer) {
  const ByteVector data = random_bytes((5 << 20) + 77, 3);
  auto file = create("large");
  ASSERT_NE(file, nullptr);
  ASSERT_STATUS_OK(file->write_at(13, data));
  ByteVector back(data.size());
  ASSERT_STATUS_OK(file->read_at(13, back));
  EXPECT_TRUE(back == data);
}

TEST_P(FileSystemSuite, ReadsPastTheEndAreCorruptionAndSayWhere) {
  for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{4096}, uint64_t{5000}}) {
    for (const Access access : {Access::kDirect, Access::kBuffered}) {
      const std::string name =
          "short-" + std::to_string(size) + (access == Access::kDirect ? "-direct" : "");
      ASSERT_NO_FATAL_FAILURE(write_file(name, random_bytes(size, 1)));
      auto file = reopen(name, access);
      ASSERT_NE(file, nullptr);
      auto memory = AlignedBuffer::allocate(16'384).value();
      const Status whole = file->read_at(0, memory.bytes());
      EXPECT_THAT(whole, HasCode(StatusCode::kCorruption));
      EXPECT_NE(std::string(whole.message()).find(name), std::string::npos) << whole.to_string();
      EXPECT_THAT(file->read_at(0, memory.bytes().first(size + 1)),
                  HasCode(StatusCode::kCorruption));
      EXPECT_THAT(file->read_at(size, memory.bytes().first(1)), HasCode(StatusCode::kCorruption));
      EXPECT_THAT(file->read_at(1u << 30, memory.bytes().first(1)),
                  HasCode(StatusCode::kCorruption));
      EXPECT_TRUE(file->read_at(0, memory.bytes().first(size)).ok());
      EXPECT_TRUE(file->read_at(size, MutableBytes()).ok());
    }
  }
}

TEST_P(FileSystemSuite, AllocatesZerosAndTruncates) {
  auto file = create("sized");
  ASSERT_NE(file, nullptr);
  ASSERT_STATUS_OK(file->allocate(0));
  EXPECT_EQ(file->size().value(), 0u);
  ASSERT_STATUS_OK(file->allocate(100'000));
  EXPECT_EQ(file->size().value(), 100'000u);
  const ByteVector ones(10, std::byte{1});
  ASSERT_STATUS_OK(file->write_at(50'000, ones));
  ASSERT_STATUS_OK(file->truncate(50'005));
  EXPECT_EQ(file->size().value(), 50'005u);
  ByteVector back(50'005);
  ASSERT_STATUS_OK(file->read_at(0, back));
  EXPECT_EQ(std::count(back.begin(), back.end(), std::byte{0}), 50'000);
  ASSERT_STATUS_OK(file->truncate(60'000));
  back.resize(60'000);
  ASSERT_STATUS_OK(file->read_at(0, back));
  EXPECT_EQ(std::count(back.begin(), back.end(), std::byte{1}), 5);
}

TEST_P(FileSystemSuite, OpensOnlyWhatIsThereAndCreatesOnlyWhatIsNot) {
  ASSERT_NO_FATAL_FAILURE(write_file("a", as_bytes("first")));
  for (const Access access : {Access::kDirect, Access::kBuffered}) {
    EXPECT_THAT(files().open(path("a"), OpenMode::kCreateNew, access).status(),
                HasCode(StatusCode::kAlreadyExists));
    EXPECT_THAT(files().open(path("b"), OpenMode::kRead, access).status(),
                HasCode(StatusCode::kNotFound));
    EXPECT_THAT(files().open(path("none/b"), OpenMode::kCreateNew, access).status(),
                HasCode(StatusCode::kNotFound));
  }
  EXPECT_EQ(read_file("a"), "first");
  ASSERT_STATUS_OK(files().create_directory(path("d")));
  EXPECT_FALSE(files().open(path("d"), OpenMode::kRead, Access::kBuffered).ok());
}

TEST_P(FileSystemSuite, LinksNeverReplace) {
  ASSERT_NO_FATAL_FAILURE(write_file("a", as_bytes("first")));
  ASSERT_NO_FATAL_FAILURE(write_file("b", as_bytes("second")));
  ASSERT_STATUS_OK(files().link(path("a"), path("c")));
  EXPECT_THAT(files().link(path("b"), path("c")), HasCode(StatusCode::kAlreadyExists));
  EXPECT_THAT(files().link(path("none"), path("d")), HasCode(StatusCode::kNotFound));
  EXPECT_THAT(files().link(path("a"), path("none/d")), HasCode(StatusCode::kNotFound));
  ASSERT_STATUS_OK(files().remove_file(path("a")));
  EXPECT_EQ(read_file("c"), "first");
  EXPECT_EQ(read_file("b"), "second");
}

TEST_P(FileSystemSuite, RenamesReplace) {
  ASSERT_NO_FATAL_FAILURE(write_file("a", as_bytes("first")));
  ASSERT_NO_FATAL_FAILURE(write_file("b", as_bytes("second")));
  ASSERT_STATUS_OK(files().rename(path("a"), path("b")));
  EXPECT_EQ(read_file("b"), "first");
  EXPECT_THAT(files().stat(path("a")).status(), HasCode(StatusCode::kNotFound));
  EXPECT_THAT(files().rename(path("a"), path("c")), HasCode(StatusCode::kNotFound));
}

TEST_P(FileSystemSuite, ARemovedFileStaysReadableWhileOpen) {
  ASSERT_NO_FATAL_FAILURE(write_file("a", as_bytes("first")));
  auto file = reopen("a");
  ASSERT_NE(file, nullptr);
  ASSERT_STATUS_OK(files().remove_file(path("a")));
  EXPECT_THAT(files().remove_file(path("a")), HasCode(StatusCode::kNotFound));
  ByteVector back(5);
  ASSERT_STATUS_OK(file->read_at(0, back));
  EXPECT_EQ(as_text(back), "first");
}

TEST_P(FileSystemSuite, KeepsDirectories) {
  ASSERT_STATUS_OK(files().create_directory(path("d")));
  ASSERT_STATUS_OK(files().create_directory(path("d")));
  ASSERT_STATUS_OK(files().create_directory(path("d/e")));
  EXPECT_THAT(files().create_directory(path("none/e")), HasCode(StatusCode::kNotFound));
  ASSERT_NO_FATAL_FAILURE(write_file("d/f", as_bytes("12345")));
  EXPECT_FALSE(files().create_directory(path("d/f")).ok());
  ASSERT_STATUS_OK(files().sync_directory(path("d")));
  EXPECT_THAT(files().sync_directory(path("none")), HasCode(StatusCode::kNotFound));

  EXPECT_TRUE(files().stat(path("d")).value().is_directory);
  const DirEntry file = files().stat(path("d/f")).value();
  EXPECT_FALSE(file.is_directory);
  EXPECT_EQ(file.bytes, 5u);
  EXPECT_EQ(file.name, "f");

  auto entries = files().list(path("d")).value();
  std::sort(entries.begin(), entries.end(),
            [](const DirEntry& a, const DirEntry& b) { return a.name < b.name; });
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(entries[0].name, "e");
  EXPECT_TRUE(entries[0].is_directory);
  EXPECT_EQ(entries[1].name, "f");
  EXPECT_FALSE(entries[1].is_directory);
  EXPECT_EQ(entries[1].bytes, 5u);
  EXPECT_THAT(files().list(path("none")).status(), HasCode(StatusCode::kNotFound));

  EXPECT_FALSE(files().remove_directory(path("d")).ok());
  ASSERT_STATUS_OK(files().remove_file(path("d/f")));
  ASSERT_STATUS_OK(files().remove_directory(path("d/e")));
  ASSERT_STATUS_OK(files().remove_directory(path("d")));
  EXPECT_THAT(files().remove_directory(path("d")), HasCode(StatusCode::kNotFound));
}

TEST_P(FileSystemSuite, QueuesFinishEveryRequestOnce) {
  constexpr uint64_t kSeed = 11;
  constexpr uint64_t kBlock = 4096;
  constexpr uint64_t kBlocks = 256;
  constexpr uint32_t kDepth = 8;
  auto memory = AlignedBuffer::allocate(kBlocks * kBlock).value();
  for (const bool registered : {false, true}) {
    auto file = create(registered ? "registered" : "plain");
    ASSERT_NE(file, nullptr);
    ASSERT_STATUS_OK(file->allocate(kBlocks * kBlock));
    IoQueueOptions options{.depth = kDepth, .registered_memory = {}};
    if (registered) options.registered_memory = memory.bytes();
    auto queue = files().make_queue(options).value();
    EXPECT_EQ(queue->depth(), kDepth);
    std::mt19937_64 random(kSeed);
    const ByteVector data = random_bytes(kBlocks * kBlock, kSeed);
    const auto transfer_all = [&](bool write) {
      std::set<uint64_t> expected;
      const auto reap = [&] {
        const IoCompletion done = queue->wait().value();
        EXPECT_TRUE(done.status.ok()) << done.status.to_string();
        EXPECT_EQ(expected.erase(done.tag), 1u) << "a tag that was not in flight";
      };
      for (uint64_t at = 0; at < kBlocks;) {
        if (queue->in_flight() == kDepth) reap();
        const uint64_t count = std::min(kBlocks - at, 1 + random() % 16);
        const MutableBytes range = memory.bytes().subspan(at * kBlock, count * kBlock);
        const uint64_t tag = random();
        const Status status = write ? queue->submit_write(*file, at * kBlock, range, tag)
                                    : queue->submit_read(*file, at * kBlock, range, tag);
        ASSERT_STATUS_OK(status);
        expected.insert(tag);
        at += count;
        EXPECT_EQ(queue->in_flight(), expected.size());
      }
      while (queue->in_flight() > 0) reap();
      EXPECT_TRUE(expected.empty());
    };
    std::copy(data.begin(), data.end(), memory.data());
    ASSERT_NO_FATAL_FAILURE(transfer_all(true));
    ASSERT_STATUS_OK(file->sync());
    std::fill_n(memory.data(), memory.size(), std::byte{0});
    ASSERT_NO_FATAL_FAILURE(transfer_all(false));
    EXPECT_TRUE(std::equal(data.begin(), data.end(), memory.data()));
    ByteVector again(data.size());
    ASSERT_STATUS_OK(file->read_at(0, again));
    EXPECT_TRUE(again == data);
  }
}

TEST_P(FileSystemSuite, QueuesSyncFilesBesideTheirTransfers) {
  constexpr uint64_t kBlock = 4096;
  auto memory = AlignedBuffer::allocate(2 * kBlock).value();
  auto synced = create("synced");
  auto written = create("written");
  ASSERT_NE(synced, nullptr);
  ASSERT_NE(written, nullptr);
  auto queue = files().make_queue({.depth = 3, .registered_memory = memory.bytes()}).value();
  ASSERT_STATUS_OK(queue->submit_write(*synced, 0, memory.bytes().first(kBlock), 1));
  EXPECT_EQ(queue->wait().value().tag, 1u);
  ASSERT_STATUS_OK(queue->submit_sync(*synced, 2));
  ASSERT_STATUS_OK(queue->submit_write(*written, 0, memory.bytes().first(kBlock), 3));
  ASSERT_STATUS_OK(queue->submit_write(*written, kBlock, memory.bytes().subspan(kBlock), 4));
  EXPECT_EQ(queue->in_flight(), 3u);
  std::set<uint64_t> tags;
  while (queue->in_flight() > 0) {
    const IoCompletion done = queue->wait().value();
    EXPECT_TRUE(done.status.ok()) << done.status.to_string();
    tags.insert(done.tag);
  }
  EXPECT_EQ(tags, (std::set<uint64_t>{2, 3, 4}));
}

TEST_P(FileSystemSuite, QueuedReadsPastTheEndAreCorruption) {
  auto memory = AlignedBuffer::allocate(8192).value();
  for (const uint64_t size : {uint64_t{0}, uint64_t{100}, uint64_t{4096}, uint64_t{5000}}) {
    const std::string name = "short-" + std::to_string(size);
    ASSERT_NO_FATAL_FAILURE(write_file(name, random_bytes(size, 1)));
    auto file = reopen(name);
    ASSERT_NE(file, nullptr);
    auto queue = files().make_queue({}).value();
    ASSERT_STATUS_OK(queue->submit_read(*file, 0, memory.bytes(), 5));
    const IoCompletion done = queue->wait().value();
    EXPECT_EQ(done.tag, 5u);
    EXPECT_THAT(done.status, HasCode(StatusCode::kCorruption));
    EXPECT_NE(std::string(done.status.message()).find(name), std::string::npos);
    EXPECT_EQ(queue->in_flight(), 0u);
  }
}

TEST_P(FileSystemSuite, QueuesWaitForWhatIsInFlightWhenDestroyed) {
  constexpr uint64_t kBytes = 8 << 20;
  auto file = create("a");
  ASSERT_NE(file, nullptr);
  const ByteVector data = random_bytes(kBytes, 5);
  {
    auto memory = AlignedBuffer::allocate(kBytes).value();
    std::copy(data.begin(), data.end(), memory.data());
    auto queue = files().make_queue({.depth = 16, .registered_memory = {}}).value();
    for (uint64_t at = 0; at < kBytes; at += kBytes / 16) {
      ASSERT_STATUS_OK(queue->submit_write(*file, at, memory.bytes().subspan(at, kBytes / 16), at));
    }
    queue.reset();
    std::fill_n(memory.data(), memory.size(), std::byte{0});
  }
  ByteVector back(kBytes);
  ASSERT_STATUS_OK(file->read_at(0, back));
  EXPECT_TRUE(back == data);
}

TEST_P(FileSystemSuite, AQueueMayBeMadeByOneThreadAndUsedByAnother) {
  auto file = create("a");
  ASSERT_NE(file, nullptr);
  auto memory = AlignedBuffer::allocate(4096).value();
  auto queue = files().make_queue({}).value();
  std::jthread([&] {
    ASSERT_STATUS_OK(queue->submit_write(*file, 0, memory.bytes(), 1));
    EXPECT_TRUE(queue->wait().value().status.ok());
  }).join();
  EXPECT_EQ(file->size().value(), 4096u);
}

TEST_P(FileSystemSuite, ThreadsShareAFileAtDifferentOffsets) {
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kBytes = 100'003;  // ranges meet inside blocks
  auto file = create("a", Access::kBuffered);
  ASSERT_NE(file, nullptr);
  ASSERT_STATUS_OK(file->truncate(kThreads * kBytes));
  const ByteVector data = random_bytes(kThreads * kBytes, 9);
  {
    std::vector<std::jthread> threads;
    for (uint64_t i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        EXPECT_TRUE(file->write_at(i * kBytes, Bytes(data).subspan(i * kBytes, kBytes)).ok());
      });
    }
  }
  ByteVector back(data.size());
  ASSERT_STATUS_OK(file->read_at(0, back));
  EXPECT_TRUE(back == data);
}

TEST_P(FileSystemSuite, OneOfManyRacingLinksWins) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 20;
  for (int i = 0; i < kThreads; ++i) {
    ASSERT_NO_FATAL_FAILURE(write_file("from-" + std::to_string(i), as_bytes(std::to_string(i))));
  }
  std::vector<std::vector<Status>> outcomes(kRounds, std::vector<Status>(kThreads));
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] {
        for (int round = 0; round < kRounds; ++round) {
          outcomes[round][i] =
              files().link(path("from-" + std::to_string(i)), path("to-" + std::to_string(round)));
        }
      });
    }
  }
  for (int round = 0; round < kRounds; ++round) {
    int winner = -1;
    for (int i = 0; i < kThreads; ++i) {
      if (outcomes[round][i].ok()) {
        EXPECT_EQ(winner, -1) << "two winners";
        winner = i;
      } else {
        EXPECT_THAT(outcomes[round][i], HasCode(StatusCode::kAlreadyExists));
      }
    }
    EXPECT_EQ(read_file("to-" + std::to_string(round)), std::to_string(winner));
  }
}

TEST_P(FileSystemSuite, SaysWhichEngineItUses) { EXPECT_FALSE(files().io_engine().empty()); }

}  // namespace caisson::testing

// What is particular to POSIX: direct I/O and its refusal, limits, forks, descriptors, and hosts
// that forbid io_uring.
#include "io/posix_file_system.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <thread>

#include "io/base/buffer.h"
#include "io/object_dir.h"
#include "tests/support/sanitized.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/temp_dir.h"

namespace caisson {
namespace {

using testing::TempDir;

// Runs in a child process, where limits and filters may be set; true when `body` says so.
bool in_child(const std::function<bool()>& body) {
  std::cout.flush();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body() ? 0 : 1);
  int state = 0;
  return child > 0 && ::waitpid(child, &state, 0) == child && WIFEXITED(state) &&
         WEXITSTATUS(state) == 0;
}
// For children, where a failed expectation would be lost.
bool expect(bool condition, const std::string& what) {
  if (!condition) std::cerr << "in the child: " << what << std::endl;
  return condition;
}

size_t open_descriptors() {
  size_t count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

std::vector<std::string> engines() {
  std::vector<std::string> names{"threads", "buffered"};
  if (make_posix_file_system("io_uring").ok()) names.push_back("io_uring");
  return names;
}

// seccomp: io_uring_setup answers EPERM, as under Docker's default profile.
bool forbid_io_uring() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{.len = std::size(program), .filter = program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(PosixFileSystem, KnowsItsEngines) {
  EXPECT_EQ(make_posix_file_system("threads").value()->io_engine(), "threads");
  EXPECT_EQ(make_posix_file_system("buffered").value()->io_engine(), "threads, buffered");
  EXPECT_EQ(make_posix_file_system("fast").status().code(), StatusCode::kInvalidArgument);
  const std::string words = make_posix_file_system()->get()->io_engine();
  EXPECT_TRUE(words == "io_uring" || words.rfind("threads (io_uring: ", 0) == 0) << words;
}

TEST(PosixFileSystem, WorksWhereIoUringIsForbidden) {
  const TempDir directory;
  EXPECT_TRUE(in_child([&] {
    if (!expect(forbid_io_uring(), "no seccomp filter")) return false;
    const Status refused = make_posix_file_system("io_uring").status();
    if (!expect(refused.code() == StatusCode::kUnsupported, refused.to_string())) return false;
    auto files = make_posix_file_system("auto").value();
    if (!expect(files->io_engine() == "threads (io_uring: Operation not permitted (errno 1))",
                files->io_engine())) {
      return false;
    }
    auto file = files->open(directory / "a", OpenMode::kCreateNew, Access::kDirect).value();
    auto memory = AlignedBuffer::allocate(1 << 20).value();
    std::fill_n(memory.data(), memory.size(), std::byte{7});
    auto queue = files->make_queue({.depth = 4, .registered_memory = memory.bytes()}).value();
    for (uint64_t i = 0; i < 4; ++i) {
      const Bytes part = Bytes(memory.bytes()).subspan(i << 18, 1 << 18);
      if (!queue->submit_write(*file, i << 18, part, i).ok()) return false;
    }
    while (queue->in_flight() > 0) {
      if (!queue->wait().value().status.ok()) return false;
    }
    ByteVector back(1 << 20);
    return expect(file->read_at(0, back).ok() && back[1000] == std::byte{7}, "other bytes");
  }));
}

TEST(PosixFileSystem, FallsBackWhereDirectIoIsPointless) {
  const TempDir directory("/dev/shm");
  auto files = make_posix_file_system().value();
  auto file = files->open(directory / "a", OpenMode::kCreateNew, Access::kDirect).value();
  EXPECT_FALSE(file->alignment().direct);
  EXPECT_EQ(file->alignment().memory, 1u);
  EXPECT_EQ(file->alignment().offset, 1u);
  // Then a queue takes any alignment.
  ByteVector odd(1001, std::byte{3});
  auto queue = files->make_queue({}).value();
  ASSERT_TRUE(queue->submit_write(*file, 7, Bytes(odd).subspan(1), 1).ok());
  EXPECT_TRUE(queue->wait().value().status.ok());
  EXPECT_EQ(file->size().value(), 1007u);
}

TEST(PosixFileSystem, BufferedNeverGoesDirect) {
  const TempDir directory;
  auto files = make_posix_file_system("buffered").value();
  auto file = files->open(directory / "a", OpenMode::kCreateNew, Access::kDirect).value();
  EXPECT_FALSE(file->alignment().direct);
}

TEST(PosixFileSystem, QueuesRefuseWhatIsNotAligned) {
  const TempDir directory;
  for (const std::string& engine : engines()) {
    auto files = make_posix_file_system(engine).value();
    auto file = files->open(directory / engine, OpenMode::kCreateNew, Access::kDirect).value();
    auto queue = files->make_queue({}).value();
    auto memory = AlignedBuffer::allocate(8192).value();
    EXPECT_EQ(queue->submit_read(*file, 0, MutableBytes(), 1).code(), StatusCode::kInvalidArgument);
    sim::SimFileSystem other;
    auto foreign = other.open("/a", OpenMode::kCreateNew, Access::kBuffered).value();
    EXPECT_EQ(queue->submit_read(*foreign, 0, memory.bytes(), 1).code(),
              StatusCode::kInvalidArgument);
    if (!file->alignment().direct) continue;
    EXPECT_EQ(queue->submit_write(*file, 1, memory.bytes(), 1).code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(queue->submit_write(*file, 0, memory.bytes().first(100), 1).code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(queue->submit_write(*file, 0, memory.bytes().subspan(1, 4096), 1).code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(queue->in_flight(), 0u);
    EXPECT_EQ(files->make_queue({.depth = 0, .registered_memory = {}}).status().code(),
              StatusCode::kInvalidArgument);
  }
}

// The limit makes a write short, and the next one fail: nothing may be reported as written.
TEST(PosixFileSystem, ReportsAWriteThatWasCutShort) {
  const TempDir directory;
  for (const std::string& engine : engines()) {
    EXPECT_TRUE(in_child([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const rlimit limit{.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
      if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return false;
      auto files = make_posix_file_system(engine).value();
      auto file = files->open(directory / engine, OpenMode::kCreateNew, Access::kDirect).value();
      auto memory = AlignedBuffer::allocate(2 << 20).value();
      const Status written = file->write_at(4096, memory.bytes());
      if (!expect(written.code() == StatusCode::kIoError, written.to_string())) return false;
      if (!expect(written.message().find("offset 1048576") != std::string_view::npos,
                  written.to_string())) {
        return false;
      }
      if (!expect(file->allocate(2 << 20).code() == StatusCode::kIoError, "allocate")) return false;
      auto queue = files->make_queue({}).value();
      if (!expect(queue->submit_write(*file, 4096, memory.bytes(), 1).ok(), "submit")) return false;
      const Status queued = queue->wait().value().status;
      return expect(queued.code() == StatusCode::kIoError, queued.to_string()) &&
             expect(queue->in_flight() == 0, "still in flight");
    })) << engine;
  }
}

TEST(PosixFileSystem, AQueueIsUselessAfterFork) {
  if (testing::kThreadSanitized) GTEST_SKIP() << "ThreadSanitizer allows no threads after a fork";
  const TempDir directory;
  for (const std::string& engine : engines()) {
    auto files = make_posix_file_system(engine).value();
    auto file = files->open(directory / engine, OpenMode::kCreateNew, Access::kDirect).value();
    auto memory = AlignedBuffer::allocate(4096).value();
    auto queue = files->make_queue({}).value();
    ASSERT_TRUE(queue->submit_write(*file, 0, memory.bytes(), 1).ok());
    EXPECT_TRUE(in_child([&] {
      const Status submitted = queue->submit_write(*file, 0, memory.bytes(), 2);
      const Status waited = queue->wait().status();
      queue.reset();  // must neither hang nor disturb the parent's
      auto own = files->make_queue({}).value();
      auto fresh = AlignedBuffer::allocate(4096).value();
      const bool works =
          own->submit_write(*file, 4096, fresh.bytes(), 3).ok() && own->wait().value().status.ok();
      return expect(submitted.code() == StatusCode::kInvalidArgument, submitted.to_string()) &&
             expect(waited.code() == StatusCode::kInvalidArgument, waited.to_string()) &&
             expect(works, "a queue of the child's own");
    })) << engine;
    EXPECT_TRUE(queue->wait().value().status.ok());
    ASSERT_TRUE(queue->submit_write(*file, 0, memory.bytes(), 4).ok());
    EXPECT_TRUE(queue->wait().value().status.ok());
  }
}

TEST(PosixFileSystem, ARingRefusesASecondThread) {
  auto made = make_posix_file_system("io_uring");
  if (!made.ok()) GTEST_SKIP() << made.status().to_string();
  const TempDir directory;
  auto files = std::move(made).value();
  auto file = files->open(directory / "a", OpenMode::kCreateNew, Access::kDirect).value();
  auto memory = AlignedBuffer::allocate(4096).value();
  auto queue = files->make_queue({}).value();
  ASSERT_TRUE(queue->submit_write(*file, 0, memory.bytes(), 1).ok());
  std::jthread([&] {
    EXPECT_EQ(queue->submit_write(*file, 0, memory.bytes(), 2).code(),
              StatusCode::kInvalidArgument);
  }).join();
  EXPECT_TRUE(queue->wait().value().status.ok());
}

TEST(PosixFileSystem, LeaksNoDescriptor) {
  const TempDir directory;
  for (const std::string& engine : engines()) {
    const size_t before = open_descriptors();
    {
      auto files = make_posix_file_system(engine).value();
      const std::string path = directory / engine;
      auto file = files->open(path, OpenMode::kCreateNew, Access::kDirect).value();
      auto again = files->open(path, OpenMode::kRead, Access::kDirect).value();
      EXPECT_FALSE(files->open(path, OpenMode::kCreateNew, Access::kDirect).ok());
      EXPECT_FALSE(files->open(directory.path(), OpenMode::kRead, Access::kDirect).ok());
      EXPECT_TRUE(files->list(directory.path()).ok());
      EXPECT_FALSE(files->list(path).ok());
      EXPECT_TRUE(files->sync_directory(directory.path()).ok());
      EXPECT_FALSE(files->sync_directory(path).ok());
      auto memory = AlignedBuffer::allocate(4096).value();
      auto queue = files->make_queue({.depth = 2, .registered_memory = memory.bytes()}).value();
      ASSERT_TRUE(queue->submit_write(*file, 0, memory.bytes(), 1).ok());
      EXPECT_GT(open_descriptors(), before);
      for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
        const int fd = std::stoi(entry.path().filename().string());
        const int flags = ::fcntl(fd, F_GETFD);
        if (flags < 0 || fd <= 2) continue;  // the iterator's own is gone
        std::error_code ignored;
        const auto target = std::filesystem::read_symlink(entry.path(), ignored).string();
        if (target.find("caisson-test") == target.npos) continue;
        EXPECT_NE(flags & FD_CLOEXEC, 0) << target;
      }
    }
    EXPECT_EQ(open_descriptors(), before) << engine;
  }
}

TEST(PosixFileSystem, FollowsNoLinkAndSkipsWhatIsNoFile) {
  const TempDir directory;
  const TempDir outside;
  auto files = make_posix_file_system().value();
  ASSERT_TRUE(files->open(outside / "secret", OpenMode::kCreateNew, Access::kBuffered).ok());
  std::filesystem::create_symlink(outside / "secret", directory / "link");
  ASSERT_EQ(::mkfifo((directory / "fifo").c_str(), 0600), 0);
  EXPECT_FALSE(files->open(directory / "link", OpenMode::kRead, Access::kBuffered).ok());
  EXPECT_EQ(
      files->open(directory / "link", OpenMode::kCreateNew, Access::kBuffered).status().code(),
      StatusCode::kAlreadyExists);
  EXPECT_TRUE(files->list(directory.path()).value().empty());
}

TEST(PosixFileSystem, TakesALinkThatHadHappenedForDone) {
  const TempDir directory;
  auto files = make_posix_file_system().value();
  ASSERT_TRUE(files->open(directory / "a", OpenMode::kCreateNew, Access::kBuffered).ok());
  EXPECT_TRUE(files->link(directory / "a", directory / "b").ok());
  EXPECT_TRUE(files->link(directory / "a", directory / "b").ok());  // a repeated network request
}

TEST(PosixFileSystem, RefusesOffsetsThatNoFileHas) {
  const TempDir directory;
  auto files = make_posix_file_system().value();
  auto file = files->open(directory / "a", OpenMode::kCreateNew, Access::kDirect).value();
  ByteVector bytes(10);
  EXPECT_EQ(file->read_at(UINT64_MAX - 5, bytes).code(), StatusCode::kCorruption);
  EXPECT_EQ(file->read_at(INT64_MAX, bytes).code(), StatusCode::kCorruption);
  EXPECT_EQ(file->write_at(INT64_MAX, bytes).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(file->truncate(UINT64_MAX).code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(file->allocate(UINT64_MAX).code(), StatusCode::kNoSpace);
}

}  // namespace
}  // namespace caisson

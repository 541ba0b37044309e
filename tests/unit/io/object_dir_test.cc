// What is particular to a directory: temporary files, poison, empty directories, strangers' files,
// several processes. Faults come from the simulated file system.
#include "io/object_dir.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "io/base/buffer.h"
#include "io/posix_file_system.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/temp_dir.h"

namespace caisson {
namespace {

using sim::Call;
using sim::CallKind;
using sim::Outcome;

class Uuids final : public UuidSource {
 public:
  Uuid next() override {
    Uuid uuid;
    store_le(uuid.bytes.data(), ++count_);
    return uuid;
  }

 private:
  uint64_t count_ = 0;
};

std::set<std::string> keys(ObjectStore& store, std::string_view prefix) {
  std::set<std::string> found;
  EXPECT_TRUE(store
                  .list(prefix,
                        [&](const ObjectInfo& object) {
                          found.insert(object.key);
                          return ok_status();
                        })
                  .ok());
  return found;
}

class ObjectDirOnSim : public ::testing::Test {
 protected:
  // The next call of `kind` fails.
  void fail_next(CallKind kind, Status status, bool applied = false) {
    sim_->set_fault_hook([=, done = false](const Call& call) mutable -> Outcome {
      if (done || call.kind != kind) return {};
      done = true;
      return {status, applied};
    });
  }
  std::shared_ptr<sim::SimFileSystem> sim_ = std::make_shared<sim::SimFileSystem>();
  Uuids uuids_;
  std::unique_ptr<ObjectStore> store_ = make_object_dir(sim_, "/store", uuids_);
};

TEST_F(ObjectDirOnSim, TouchesNothingBeforeItIsUsed) {
  EXPECT_TRUE(sim_->list("/").value().empty());
  EXPECT_EQ(store_->get("a", 1).status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(sim_->list("/").value().empty());
  ASSERT_TRUE(store_->put_new("a", {}).ok());
  EXPECT_EQ(sim_->list("/store/tmp").value().size(), 0u);
}

TEST_F(ObjectDirOnSim, SyncsTheBytesBeforeTheNameAndTheNameBeforeTheAnswer) {
  ASSERT_TRUE(store_->put_new("log/0", {}).ok());  // makes the directories
  std::vector<std::string> calls;
  sim_->set_fault_hook([&](const Call& call) -> Outcome {
    calls.emplace_back(sim::call_name(call.kind));
    return {};
  });
  ASSERT_TRUE(store_->put_new("log/1", as_bytes("x")).ok());
  const auto place = [&](CallKind kind) {
    return std::find(calls.begin(), calls.end(), sim::call_name(kind)) - calls.begin();
  };
  EXPECT_LT(place(CallKind::kWrite), place(CallKind::kSync));
  EXPECT_LT(place(CallKind::kSync), place(CallKind::kLink));
  EXPECT_LT(place(CallKind::kLink), place(CallKind::kSyncDirectory));
  EXPECT_LT(place(CallKind::kSyncDirectory), static_cast<ptrdiff_t>(calls.size()));
}

TEST_F(ObjectDirOnSim, MakesEveryNewDirectoryDurableOnce) {
  std::vector<std::string> synced;
  sim_->set_fault_hook([&](const Call& call) -> Outcome {
    if (call.kind == CallKind::kSyncDirectory) synced.emplace_back(call.path);
    return {};
  });
  ASSERT_TRUE(store_->create("data/s/a", 1).value()->publish(0).ok());
  EXPECT_EQ(synced, (std::vector<std::string>{"/", "/store", "/store/data", "/store/data/s"}));
  synced.clear();
  ASSERT_TRUE(store_->create("data/s/b", 1).value()->publish(0).ok());
  EXPECT_EQ(synced, std::vector<std::string>{"/store/data/s"});
}

TEST_F(ObjectDirOnSim, AFailedPutLeavesNoObjectAndNoTemporaryFile) {
  for (const CallKind kind :
       {CallKind::kCreate, CallKind::kWrite, CallKind::kSync, CallKind::kLink}) {
    fail_next(kind, no_space("full"));
    EXPECT_EQ(store_->put_new("log/1", as_bytes("x")).code(), StatusCode::kNoSpace)
        << sim::call_name(kind);
    EXPECT_TRUE(keys(*store_, "").empty());
    EXPECT_TRUE(keys(*store_, "tmp/").empty());
  }
  sim_->set_fault_hook({});
  EXPECT_TRUE(store_->put_new("log/1", as_bytes("x")).ok());
}

TEST_F(ObjectDirOnSim, AFailedWriteOrSyncGivesTheObjectUpForGood) {
  for (const CallKind kind : {CallKind::kWrite, CallKind::kTruncate, CallKind::kSync}) {
    auto writer = store_->create("a", 4096).value();
    fail_next(kind, io_error("broken"));
    const Status first =
        kind == CallKind::kWrite ? writer->write(0, as_bytes("x")) : writer->publish(0);
    EXPECT_EQ(first.code(), StatusCode::kIoError);
    int syncs = 0;
    sim_->set_fault_hook([&](const Call& call) -> Outcome {
      if (call.kind == CallKind::kSync) ++syncs;
      return {};
    });
    EXPECT_EQ(writer->write(0, as_bytes("x")).code(), StatusCode::kIoError);
    EXPECT_EQ(writer->publish(0).code(), StatusCode::kIoError);
    EXPECT_EQ(syncs, 0) << "a sync was tried again";
    writer.reset();
    EXPECT_EQ(store_->stat("a").status().code(), StatusCode::kNotFound);
  }
}

TEST_F(ObjectDirOnSim, AFailedQueuedWriteGivesTheObjectUpForGood) {
  auto memory = AlignedBuffer::allocate(8192).value();
  auto writer = store_->create("a", 8192).value();
  auto queue = store_->make_queue({}).value();
  fail_next(CallKind::kWrite, io_error("broken"));
  ASSERT_TRUE(queue->submit_write(*writer, 0, memory.bytes(), 77).ok());
  const IoCompletion done = queue->wait().value();
  EXPECT_EQ(done.tag, 77u);
  EXPECT_EQ(done.status.code(), StatusCode::kIoError);
  EXPECT_EQ(writer->publish(8192).code(), StatusCode::kIoError);
  EXPECT_EQ(queue->submit_write(*writer, 0, memory.bytes(), 78).code(), StatusCode::kIoError);
}

// Two directories, whatever is in them: the log has many names, and every append may ask for this.
TEST_F(ObjectDirOnSim, SyncingNamesCostsTheSameHoweverManyThereAre) {
  int next = 0;
  const auto calls_for = [&](int names) {
    for (int i = 0; i < names; ++i) {
      EXPECT_TRUE(store_->put_new("log/" + std::to_string(next++), {}).ok());
    }
    std::vector<CallKind> calls;
    sim_->set_interloper([&](const Call& call) { calls.push_back(call.kind); });
    EXPECT_TRUE(store_->sync_names("log/").ok());
    sim_->set_interloper({});
    return calls;
  };
  const std::vector<CallKind> few = calls_for(1);
  EXPECT_EQ(few, (std::vector<CallKind>{CallKind::kSyncDirectory, CallKind::kSyncDirectory}));
  EXPECT_EQ(calls_for(50), few);
}

TEST_F(ObjectDirOnSim, AFailedDirectorySyncEndsAllWriting) {
  ASSERT_TRUE(store_->put_new("log/1", {}).ok());
  auto writer = store_->create("data/a", 1).value();
  fail_next(CallKind::kSyncDirectory, io_error("broken"));
  EXPECT_EQ(store_->put_new("log/2", {}).code(), StatusCode::kIoError);
  EXPECT_EQ(store_->put_new("log/3", {}).code(), StatusCode::kIoError);
  EXPECT_EQ(writer->publish(0).code(), StatusCode::kIoError);
  EXPECT_EQ(store_->sync_names("log/").code(), StatusCode::kIoError);
  EXPECT_TRUE(store_->get("log/1", 1).ok());
  EXPECT_TRUE(make_object_dir(sim_, "/store", uuids_)->put_new("log/4", {}).ok());
}

TEST_F(ObjectDirOnSim, AFailedAllocationLeavesNothing) {
  fail_next(CallKind::kAllocate, no_space("full"));
  EXPECT_EQ(store_->create("a", 4096).status().code(), StatusCode::kNoSpace);
  EXPECT_TRUE(keys(*store_, "").empty());
  EXPECT_EQ(sim_->open_files(), 0);
}

TEST_F(ObjectDirOnSim, SweepingNeverHurtsAPut) {
  ASSERT_TRUE(store_->put_new("log/1", {}).ok());
  int sweeps = 0;
  auto other = make_object_dir(sim_, "/store", uuids_);
  bool sweeping = false;
  sim_->set_fault_hook([&](const Call& call) -> Outcome {
    if (call.kind == CallKind::kLink && !sweeping && ++sweeps <= 3) {
      // As if a sweep had come between the sync and the link.
      sweeping = true;
      return {not_found("swept"), false};
    }
    sweeping = false;
    return {};
  });
  EXPECT_TRUE(store_->put_new("log/2", as_bytes("x")).ok());
  EXPECT_GE(sweeps, 2);
  EXPECT_EQ(as_text(other->get("log/2", 1).value()), "x");
}

TEST_F(ObjectDirOnSim, SweepsWhatDeadWritersLeft) {
  ASSERT_TRUE(store_->put_new("log/1", {}).ok());
  for (const std::string name : {"00", "01"}) {
    ASSERT_TRUE(sim_->open("/store/tmp/" + name, OpenMode::kCreateNew, Access::kBuffered).ok());
  }
  EXPECT_EQ(keys(*store_, ""), std::set<std::string>{"log/1"});
  EXPECT_EQ(sweep_temporary(*store_).value(), 2u);
  EXPECT_EQ(sweep_temporary(*store_).value(), 0u);
  EXPECT_EQ(keys(*store_, ""), std::set<std::string>{"log/1"});
}

TEST_F(ObjectDirOnSim, GoesAroundTemporaryNamesThatAreTaken) {
  ASSERT_TRUE(store_->put_new("log/1", {}).ok());
  Uuids ahead;
  for (int i = 0; i < 5; ++i) {
    const std::string path = "/store/tmp/" + to_hex(ahead.next());
    ASSERT_TRUE(sim_->open(path, OpenMode::kCreateNew, Access::kBuffered).ok());
  }
  EXPECT_TRUE(store_->put_new("log/2", {}).ok());
}

TEST_F(ObjectDirOnSim, ReservesItsOwnNames) {
  for (const std::string key : {"tmp/x", "tmp", "index/000001.sst", "index"}) {
    EXPECT_EQ(store_->put_new(key, {}).code(), StatusCode::kInvalidArgument) << key;
    EXPECT_EQ(store_->create(key, 1).status().code(), StatusCode::kInvalidArgument) << key;
    EXPECT_EQ(store_->get(key, 1).status().code(), StatusCode::kInvalidArgument) << key;
  }
  EXPECT_TRUE(store_->put_new("tmpx", {}).ok());
}

TEST_F(ObjectDirOnSim, RemovesTheDirectoriesThatItEmptied) {
  ASSERT_TRUE(store_->put_new("data/s/x/a", {}).ok());
  ASSERT_TRUE(store_->put_new("data/s/b", {}).ok());
  ASSERT_TRUE(store_->remove("data/s/x/a").ok());
  EXPECT_EQ(sim_->list("/store/data/s").value().size(), 1u);
  ASSERT_TRUE(store_->remove("data/s/b").ok());
  EXPECT_TRUE(sim_->list("/store/data").value().empty());
  ASSERT_TRUE(store_->put_new("data/s/b", {}).ok());  // and makes them again
}

TEST_F(ObjectDirOnSim, AFreshProcessSyncsDirectoriesThatAnotherMade) {
  ASSERT_TRUE(store_->put_new("log/1", {}).ok());
  auto second = make_object_dir(sim_, "/store", uuids_);
  std::set<std::string> synced;
  sim_->set_fault_hook([&](const Call& call) -> Outcome {
    if (call.kind == CallKind::kSyncDirectory) synced.emplace(call.path);
    return {};
  });
  ASSERT_TRUE(second->put_new("log/2", {}).ok());
  EXPECT_EQ(synced, (std::set<std::string>{"/", "/store", "/store/log"}));
}

TEST(ObjectDir, PassesOverStrangersFiles) {
  const testing::TempDir directory;
  const testing::TempDir outside;
  auto store = make_object_dir(make_posix_file_system().value(), directory.path(), system_uuids());
  ASSERT_TRUE(store->put_new("log/1", as_bytes("x")).ok());
  std::ofstream(directory / "README.TXT") << "hello";
  std::filesystem::create_directory(directory / "index");
  std::ofstream(directory / "index/000001.sst") << "rocks";
  std::filesystem::create_directory_symlink(outside.path(), directory / "data");
  std::ofstream(outside / "a") << "secret";
  std::filesystem::create_symlink(outside / "a", directory / "log/2");
  EXPECT_EQ(keys(*store, ""), std::set<std::string>{"log/1"});
  EXPECT_FALSE(store->get("log/2", 100).ok());
  EXPECT_FALSE(store->open("log/2").ok());
}

TEST(ObjectDir, SaysWhatItStandsOn) {
  const testing::TempDir disk;
  const testing::TempDir memory("/dev/shm");
  for (const auto* directory : {&disk, &memory}) {
    const std::shared_ptr<FileSystem> files = make_posix_file_system("threads").value();
    auto store = make_object_dir(files, directory->path() + "//", system_uuids());
    ASSERT_TRUE(store->put_new("a", {}).ok());
    const ObjectCaps caps = store->caps();
    EXPECT_EQ(caps.engine.rfind("directory " + directory->path() + ", threads, ", 0), 0u)
        << caps.engine;
    EXPECT_TRUE(directory == &disk || !caps.alignment.direct);
    EXPECT_TRUE(keys(*store, "tmp/").empty());
  }
}

TEST(ObjectDir, ProcessesThatRaceHaveOneWinner) {
  const testing::TempDir directory;
  constexpr int kProcesses = 3;
  constexpr int kRounds = 20;
  std::vector<pid_t> children;
  for (int i = 0; i < kProcesses; ++i) {
    children.push_back(::fork());
    ASSERT_GE(children.back(), 0);
    if (children.back() != 0) continue;
    int wins = 0;
    auto store = make_object_dir(make_posix_file_system().value(), directory / "s", system_uuids());
    for (int round = 0; round < kRounds; ++round) {
      const Status status =
          store->put_new("log/" + std::to_string(round), as_bytes(std::to_string(i)));
      if (status.ok()) ++wins;
      if (!status.ok() && status.code() != StatusCode::kAlreadyExists) ::_exit(255);
    }
    ::_exit(wins);
  }
  int wins = 0;
  for (const pid_t child : children) {
    int state = 0;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    ASSERT_TRUE(WIFEXITED(state));
    ASSERT_NE(WEXITSTATUS(state), 255);
    wins += WEXITSTATUS(state);
  }
  EXPECT_EQ(wins, kRounds);
}

TEST(ObjectDir, AForkedCopyOfAWriterRemovesNothing) {
  const testing::TempDir directory;
  auto store = make_object_dir(make_posix_file_system().value(), directory.path(), system_uuids());
  auto writer = store->create("a", 4096).value();
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    writer.reset();
    ::_exit(0);
  }
  int state = 0;
  ASSERT_EQ(::waitpid(child, &state, 0), child);
  EXPECT_TRUE(writer->publish(0).ok());
  EXPECT_TRUE(store->stat("a").ok());
}

}  // namespace
}  // namespace caisson

// Saves by several real processes, one rank each: what the committer accepts and what it refuses,
// naming rank, tensor and box. Children open stores of their own and hand their tokens over through
// files, as a launcher would.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <random>

#include "caisson/store.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kBf16;
using testing::kF32;
using testing::shape_of;
using testing::TempDir;
using testing::TestTensor;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Runs `child` in a process of its own; it gives the exit code.
pid_t start(const std::function<int()>& child) {
  const pid_t pid = ::fork();
  if (pid == 0) ::_exit(child());
  return pid;
}
int join(pid_t pid) {
  int status = 0;
  return ::waitpid(pid, &status, 0) == pid ? status : -1;
}

class ManyRanksTest : public ::testing::Test {
 protected:
  // Every test's parent forks before it opens the store: no thread or ring is inherited.
  Result<std::unique_ptr<Store>> open() { return Store::open(dir_ / "store"); }

  // What rank `rank` of `ranks` holds: rows of the matrix, its own expert, a replica of the norm.
  std::vector<TensorShard> shards_of(uint32_t rank, uint32_t ranks) const {
    const uint64_t rows = matrix_.spec.shape.dims[0];
    std::vector<TensorShard> shards{
        matrix_.rows(rows * rank / ranks, rows * (rank + 1) / ranks),
        experts_[rank].whole(),
        norm_.whole(),
    };
    shards.back().replica = {.index = rank, .count = ranks};
    return shards;
  }

  std::string token_path(uint32_t rank) const { return dir_ / ("token." + std::to_string(rank)); }

  int run_rank(const std::string& ticket, uint32_t rank, const std::vector<TensorShard>& shards,
               const SaveOptions& options = {}) {
    auto store = open();
    if (!store.ok()) return 10;
    auto part = (*store)->join_save(ticket, rank, options);
    if (!part.ok()) return 11;
    for (const TensorShard& shard : shards) {
      const std::vector<TensorShard> one{shard};
      if (!(*part)->put({.tensors = one, .blobs = {}, .aliases = {}}).ok()) return 12;
    }
    const auto sealed = (*part)->seal();
    if (!sealed.ok()) return 13;
    std::ofstream(token_path(rank), std::ios::binary) << sealed->token;
    return 0;
  }

  std::string begin(const std::string& name) {
    // In a child, so that this process may go on forking.
    const std::string path = dir_ / "ticket";
    const int status = join(start([&] {
      auto store = open();
      if (!store.ok()) return 1;
      const auto ticket = (*store)->begin_save(name);
      if (!ticket.ok()) return 2;
      std::ofstream(path, std::ios::binary) << *ticket;
      return 0;
    }));
    EXPECT_EQ(status, 0);
    return read_file(path);
  }

  std::vector<SealedPart> tokens(uint32_t ranks) const {
    std::vector<SealedPart> parts;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      if (std::string token = read_file(token_path(rank)); !token.empty()) {
        parts.push_back({.token = std::move(token)});
      }
    }
    return parts;
  }

  void expect_holds(Store& store, const std::string& name, uint32_t ranks) {
    std::vector<const TestTensor*> all{&matrix_, &norm_};
    for (uint32_t rank = 0; rank < ranks; ++rank) all.push_back(&experts_[rank]);
    for (const TestTensor* tensor : all) {
      std::vector<std::byte> found(tensor->bytes.size());
      const std::vector<TensorTarget> targets{{.name = tensor->spec.name,
                                               .box = Box::whole(tensor->spec.shape),
                                               .data = found.data(),
                                               .strides_bytes = {}}};
      const Status restored = store.restore(name, targets);
      ASSERT_TRUE(restored.ok()) << restored.to_string();
      EXPECT_EQ(found, tensor->bytes) << tensor->spec.name;
    }
  }

  // Seals what each rank holds, in processes of their own, and commits it here.
  Result<SaveReport> save_parts(const std::string& name,
                                const std::vector<std::vector<TensorShard>>& shards) {
    const std::string ticket = begin(name);
    const auto ranks = static_cast<uint32_t>(shards.size());
    std::vector<pid_t> children;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      ::unlink(token_path(rank).c_str());
      children.push_back(start([&, rank] { return run_rank(ticket, rank, shards[rank]); }));
    }
    for (const pid_t child : children) EXPECT_EQ(join(child), 0);
    CAISSON_ASSIGN_OR_RETURN(const auto store, open());
    return store->commit_save(ticket, ranks, tokens(ranks));
  }

  TempDir dir_;
  TestTensor matrix_{"matrix", kBf16, shape_of({4096, 700}), 1};
  TestTensor norm_{"norm", kF32, shape_of({700'000}), 2};
  std::vector<TestTensor> experts_ = [] {
    std::vector<TestTensor> experts;
    for (uint64_t i = 0; i < 8; ++i) {
      experts.emplace_back("expert." + std::to_string(i), kF32, shape_of({300, 300}), 10 + i);
    }
    return experts;
  }();
};

TEST_F(ManyRanksTest, EightProcessesWriteOneCheckpoint) {
  std::vector<std::vector<TensorShard>> shards;
  for (uint32_t rank = 0; rank < 8; ++rank) shards.push_back(shards_of(rank, 8));
  const auto report = save_parts("run/1", shards);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->tensors, 10u);
  auto store = open().value();
  expect_holds(*store, "run/1", 8);
  EXPECT_EQ(store->info("run/1")->ranks, 8u);
  // Each replica stored its share: nothing twice.
  EXPECT_EQ(report->raw_bytes,
            matrix_.bytes.size() + norm_.bytes.size() + 8 * experts_[0].bytes.size());
  store.reset();

  // Four ranks, the same tensors: resharded, but nothing new to store.
  shards.clear();
  for (uint32_t rank = 0; rank < 4; ++rank) {
    shards.push_back(shards_of(rank, 4));
    shards.back().push_back(experts_[4 + rank].whole());
  }
  const auto again = save_parts("run/2", shards);
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(again->deduplicated_bytes, again->raw_bytes);
  EXPECT_EQ(again->stored_bytes, 0u);
  expect_holds(*open().value(), "run/2", 8);
}

TEST_F(ManyRanksTest, AKilledRankIsNamedAndNothingIsCommitted) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 3; ++round) {
    const uint32_t ranks = 4 + static_cast<uint32_t>(random() % 5);
    const auto victim = static_cast<uint32_t>(random() % ranks);
    const uint64_t die_at = random() % 5;  // which progress call, or just before the token
    const std::string name = "run/" + std::to_string(round);
    const std::string ticket = begin(name);
    std::vector<pid_t> children;
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      ::unlink(token_path(rank).c_str());
      children.push_back(start([&, rank] {
        SaveOptions options;
        uint64_t calls = 0;
        if (rank == victim) {
          options.progress = [&](const Progress&) {
            if (calls++ == die_at) ::kill(::getpid(), SIGKILL);
          };
        }
        const int code = run_rank(ticket, rank, shards_of(rank, ranks), options);
        if (rank == victim) {
          ::unlink(token_path(rank).c_str());
          ::kill(::getpid(), SIGKILL);
        }
        return code;
      }));
    }
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      const int status = join(children[rank]);
      EXPECT_EQ(WIFSIGNALED(status), rank == victim) << "rank " << rank << ": " << status;
    }
    auto store = open().value();
    const auto report = store->commit_save(ticket, ranks, tokens(ranks));
    EXPECT_EQ(report.status().code(), StatusCode::kInvalidArgument);
    const std::string message = report.status().to_string();
    EXPECT_NE(message.find("missing: " + std::to_string(victim) + ";"), std::string::npos)
        << message;
    EXPECT_TRUE(store->checkpoints()->empty());
  }
}

TEST_F(ManyRanksTest, AMissingBoxIsNamed) {
  const auto report = save_parts("run/1", {{matrix_.rows(0, 1000)}, {matrix_.rows(1024, 4096)}});
  EXPECT_EQ(report.status().code(), StatusCode::kInvalidArgument);
  const std::string message = report.status().to_string();
  EXPECT_NE(message.find("matrix"), std::string::npos) << message;
  EXPECT_NE(message.find("1000"), std::string::npos) << message;
}

TEST_F(ManyRanksTest, AnOverlapIsNamedWithItsRanks) {
  const auto report =
      save_parts("run/1", {{matrix_.rows(0, 2048)}, {norm_.whole()}, {matrix_.rows(2000, 4096)}});
  EXPECT_EQ(report.status().code(), StatusCode::kInvalidArgument);
  const std::string message = report.status().to_string();
  EXPECT_NE(message.find("matrix"), std::string::npos) << message;
  EXPECT_NE(message.find("0"), std::string::npos) << message;
  EXPECT_NE(message.find("2"), std::string::npos) << message;
}

TEST_F(ManyRanksTest, ReplicasThatAreNotDeclaredOverlap) {
  const auto report = save_parts("run/1", {{norm_.whole()}, {norm_.whole()}});
  EXPECT_EQ(report.status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ManyRanksTest, RanksMustAgreeOnATensor) {
  TestTensor other = norm_;
  other.spec.dtype = DType{DTypeCode::kInt, 32};
  const auto report = save_parts("run/1", {{norm_.whole()}, {other.whole()}});
  EXPECT_EQ(report.status().code(), StatusCode::kInvalidArgument);
  const std::string message = report.status().to_string();
  EXPECT_NE(message.find("disagree"), std::string::npos) << message;
}

TEST_F(ManyRanksTest, PartsOfAnotherSaveOrHandedOverTwiceAreRefused) {
  const std::string old = begin("run/1");
  const std::string ticket = begin("run/2");
  ASSERT_EQ(join(start([&] { return run_rank(ticket, 0, {norm_.whole()}); })), 0);
  const SealedPart part{.token = read_file(token_path(0))};
  const std::vector<SealedPart> one{part}, two{part, part};
  auto store = open().value();
  const std::string cut = part.token.substr(0, part.token.size() - 2);
  const std::vector<SealedPart> damaged{{.token = cut}};
  EXPECT_EQ(store->commit_save(ticket, 1, damaged).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store->commit_save("beef", 1, one).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store->commit_save(old, 1, one).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(store->commit_save(ticket, 2, two).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(store->checkpoints()->empty());
}

TEST_F(ManyRanksTest, OfTwoProcessesOnOneRunOneIsFenced) {
  const std::string first = begin("run/1");
  const std::string second = begin("run/2");  // another process: claims the run
  auto store = open().value();
  EXPECT_EQ(store->join_save(first, 0).status().code(), StatusCode::kFenced);
  auto part = store->join_save(second, 0);
  ASSERT_TRUE(part.ok()) << part.status().to_string();
  const std::vector<TensorShard> shards{norm_.whole()};
  ASSERT_TRUE((*part)->put({.tensors = shards, .blobs = {}, .aliases = {}}).ok());
  const auto sealed = (*part)->seal();
  ASSERT_TRUE(sealed.ok());
  const std::vector<SealedPart> parts{*sealed};
  EXPECT_TRUE(store->commit_save(second, 1, parts).ok());
  // A launcher that did not hear of it asks again, and is told that it has happened.
  EXPECT_EQ(store->commit_save(second, 1, parts).status().code(), StatusCode::kAlreadyExists);
}

// What a put found out of a tensor is nothing to the next put, whose plan may lie where it lay.
TEST_F(ManyRanksTest, EveryPutReadsItsOwnTensors) {
  std::vector<TestTensor> model;
  for (uint64_t i = 0; i < 4; ++i) {
    model.emplace_back("w" + std::to_string(i), kF32, shape_of({1024, 2048}), i);
  }
  auto store = open().value();
  const SaveOptions raw{.codec = "raw"};  // whose tiles are taken side by side
  const std::string ticket = store->begin_save("run/1", raw).value();
  auto rank = store->join_save(ticket, 0, raw);
  ASSERT_TRUE(rank.ok()) << rank.status().to_string();
  for (const TestTensor& tensor : model) {
    const std::vector<TensorShard> one{tensor.whole()};
    ASSERT_TRUE((*rank)->put({.tensors = one, .blobs = {}, .aliases = {}}).ok());
  }
  const auto part = (*rank)->seal();
  ASSERT_TRUE(part.ok()) << part.status().to_string();
  ASSERT_TRUE(store->commit_save(ticket, 1, {&*part, 1}).ok());
  for (const TestTensor& tensor : model) {
    std::vector<std::byte> found(tensor.bytes.size());
    const std::vector<TensorTarget> target{{.name = tensor.spec.name,
                                            .box = Box::whole(tensor.spec.shape),
                                            .data = found.data(),
                                            .strides_bytes = {}}};
    ASSERT_TRUE(store->restore("run/1", target).ok());
    EXPECT_TRUE(found == tensor.bytes) << tensor.spec.name;
  }
}

// Both save steps of one run as fast as they can: whatever the log says was committed is whole.
TEST_F(ManyRanksTest, TwoProcessesAtOnceNeverMixTheirCheckpoints) {
  std::vector<pid_t> children;
  for (uint64_t writer = 0; writer < 2; ++writer) {
    children.push_back(start([&, writer] {
      auto store = open();
      if (!store.ok()) return 1;
      uint64_t fenced = 0;
      for (uint64_t step = 0; step < 12; ++step) {
        const TestTensor mine("t", kF32, shape_of({1000 + writer}), step);
        const std::vector<TensorShard> shards{mine.whole()};
        auto pending = (*store)->save("run/" + std::to_string(step),
                                      {.tensors = shards, .blobs = {}, .aliases = {}});
        const Status status = pending.ok() ? pending->wait() : pending.status();
        const StatusCode code = status.code();
        if (code == StatusCode::kFenced) {
          // The second writer gives up after a while, or both might fence each other for ever.
          if (writer == 1 && ++fenced == 3) return 0;
          if (!(*store)->claim("run").ok()) return 2;
        } else if (!status.ok() && code != StatusCode::kAlreadyExists) {
          return 3;
        }
      }
      return 0;
    }));
  }
  for (const pid_t child : children) EXPECT_EQ(join(child), 0);
  auto store = open().value();
  const auto found = store->checkpoints();
  ASSERT_TRUE(found.ok());
  EXPECT_FALSE(found->empty());
  for (const CheckpointInfo& checkpoint : *found) {
    EXPECT_EQ(checkpoint.problem, "");
    const uint64_t elements = store->tensors(checkpoint.name)->front().spec.shape.dims[0];
    const TestTensor expected("t", kF32, shape_of({elements}), checkpoint.step);
    std::vector<std::byte> bytes(expected.bytes.size());
    const std::vector<TensorTarget> targets{{.name = "t",
                                             .box = Box::whole(expected.spec.shape),
                                             .data = bytes.data(),
                                             .strides_bytes = {}}};
    ASSERT_TRUE(store->restore(checkpoint.name, targets).ok());
    EXPECT_EQ(bytes, expected.bytes) << checkpoint.name;
  }
}

}  // namespace
}  // namespace caisson

// Saves and restores of one Store that share one memory budget: a restore overtakes a save, saves
// take turns, a save larger than memory slows down and succeeds. Asserts order, bounds and
// counters, no times.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "caisson/metrics.h"
#include "client/restorer.h"
#include "client/saver.h"
#include "client/store_context.h"
#include "engine/pack_writer.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/sanitized.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kF32;
using testing::shape_of;
using testing::TempDir;
using testing::TestTensor;
using testing::whole_shards;

constexpr uint64_t kBudget = 24u << 20;  // a save of some size wants all of it

std::vector<TestTensor> model(uint64_t tensors, uint64_t seed) {
  std::vector<TestTensor> made;
  for (uint64_t i = 0; i < tensors; ++i) {
    made.emplace_back("layer." + std::to_string(i), kF32, shape_of({256, 1024}), seed + i);
  }
  return made;
}

// Memory that a device cannot write into as it is: the rows of each tensor have gaps.
struct GappedTargets {
  static constexpr int64_t kRowBytes = 1024 * 4 + 64;
  explicit GappedTargets(const std::vector<TestTensor>& tensors) {
    for (const TestTensor& tensor : tensors) {
      memory.emplace_back(256 * kRowBytes);
      targets.push_back({.name = tensor.spec.name,
                         .box = Box::whole(tensor.spec.shape),
                         .data = memory.back().data(),
                         .strides_bytes = {kRowBytes, 4}});
    }
  }
  bool holds(const std::vector<TestTensor>& tensors) const {
    for (size_t i = 0; i < tensors.size(); ++i) {
      for (size_t row = 0; row < 256; ++row) {
        const std::byte* const found = memory[i].data() + row * kRowBytes;
        if (!std::equal(found, found + 4096, tensors[i].bytes.begin() + 4096 * row)) return false;
      }
    }
    return true;
  }
  std::vector<std::vector<std::byte>> memory;
  std::vector<TensorTarget> targets;
};

class Fairness : public ::testing::Test {
 protected:
  Fairness() {
    context_ =
        StoreContext::open(std::make_unique<MemoryObjectStore>(), system_uuids(), system_clock(),
                           {.memory_bytes_max = kBudget, .metrics = metrics_}, nullptr)
            .value();
  }
  Status save(const std::string& name, const std::vector<TestTensor>& tensors,
              const SaveOptions& options = {}) {
    const std::vector<TensorShard> shards = whole_shards(tensors);
    return save_whole(*context_, name, own_input({.tensors = shards}).items, options).status();
  }
  Status restore(const std::string& name, GappedTargets& to, const RestoreOptions& options) {
    CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, context_->find(name));
    CAISSON_ASSIGN_OR_RETURN(const auto manifest, context_->manifest(checkpoint.root));
    return restore_targets(context_->objects(), *manifest, context_->budget(), to.targets, options,
                           nullptr, metrics_.get());
  }
  void expect_bounded() const {
    EXPECT_LE(context_->budget().bytes_peak(), kBudget + kSegmentBufferBytes);
    EXPECT_EQ(context_->budget().bytes_held(), 0u);
  }

  const std::shared_ptr<Metrics> metrics_ = std::make_shared<Metrics>();
  std::unique_ptr<StoreContext> context_;
};

TEST_F(Fairness, ARestoreOvertakesASaveThatHoldsAllMemory) {
  const std::vector<TestTensor> wanted = model(8, 1);
  const std::vector<TestTensor> large = model(128, 1000);
  ASSERT_TRUE(save("run/1", wanted).ok());
  GappedTargets targets(wanted);
  std::atomic<bool> restored = false;
  Status outcome;
  std::jthread other;
  SaveOptions options;
  options.dedup = false;
  // The first progress of the save starts the restore, and holds the save up until it waits.
  options.progress = [&](const Progress& now) {
    if (other.joinable() || now.bytes_done == now.bytes_total) return;
    other = std::jthread([&] {
      RestoreOptions how;
      how.progress = [&](const Progress& done) { restored = done.bytes_done == done.bytes_total; };
      outcome = restore("run/1", targets, how);
    });
    while (!context_->budget().is_wanted()) std::this_thread::yield();
  };
  ASSERT_TRUE(save("run/2", large, options).ok());
  EXPECT_TRUE(restored) << "the save was over first";
  other.join();
  EXPECT_TRUE(outcome.ok()) << outcome.to_string();
  EXPECT_TRUE(targets.holds(wanted));
  EXPECT_GE(metrics_->value("caisson_save_memory_yields_total").value(), 1);
  expect_bounded();
  GappedTargets whole(large);  // and what gave way is whole
  ASSERT_TRUE(restore("run/2", whole, {}).ok());
  EXPECT_TRUE(whole.holds(large));
}

TEST_F(Fairness, ManyWorkersGiveWayAndFinish) {
  const std::vector<TestTensor> wanted = model(8, 1);
  const std::vector<TestTensor> large = model(160, 1000);
  ASSERT_TRUE(save("run/1", wanted).ok());
  std::atomic<bool> saving = true;
  std::jthread reader([&] {
    while (saving) {
      GappedTargets targets(wanted);
      EXPECT_TRUE(restore("run/1", targets, {.workers = 2}).ok());
      EXPECT_TRUE(targets.holds(wanted));
    }
  });
  SaveOptions options;
  options.workers = 3;
  EXPECT_TRUE(save("run/2", large, options).ok());
  saving = false;
  reader.join();
  EXPECT_EQ(context_->budget().bytes_held(), 0u);
}

TEST_F(Fairness, SavesAtOnceShareTheBudget) {
  constexpr uint32_t kRanks = 4;
  const Ticket ticket = begin_save(*context_, "run/1", {}).value();
  std::vector<SealedPart> parts(kRanks);
  {
    std::vector<std::jthread> ranks;
    for (uint32_t rank = 0; rank < kRanks; ++rank) {
      ranks.emplace_back([&, rank] {
        std::vector<TestTensor> own = model(16, rank * 100);
        for (TestTensor& tensor : own) tensor.spec.name += "." + std::to_string(rank);
        const std::vector<TensorShard> shards = whole_shards(own);
        const auto part = join_save(*context_, ticket, rank, {}).value();
        EXPECT_TRUE(part->put({.tensors = shards}).ok());
        parts[rank] = part->seal().value();
      });
    }
  }
  const auto report = commit_save(*context_, ticket, kRanks, parts, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->raw_bytes, uint64_t{kRanks} * 16 << 20);
  expect_bounded();
}

uint64_t address_space_bytes() {
  std::ifstream in("/proc/self/statm");
  uint64_t pages = 0;
  in >> pages;
  return pages * 4096;
}

// While it lives the process may have `more` bytes of address space beyond what it has now.
class Confined {
 public:
  explicit Confined(uint64_t more) {
    ::getrlimit(RLIMIT_AS, &before_);
    rlimit now = before_;
    now.rlim_cur = address_space_bytes() + more;
    ::setrlimit(RLIMIT_AS, &now);
  }
  ~Confined() { ::setrlimit(RLIMIT_AS, &before_); }
  Confined(const Confined&) = delete;
  Confined& operator=(const Confined&) = delete;

 private:
  rlimit before_{};
};

TEST(FairnessOnDisk, ASaveLargerThanMemorySlowsAndSucceeds) {
  if (testing::kSanitized) GTEST_SKIP() << "sanitizers need address space of their own";
  constexpr uint64_t kMore = 160u << 20;  // threads and rings included
  const TempDir dir;
  const auto metrics = std::make_shared<Metrics>();
  const std::vector<TestTensor> state = model(256, 1);
  const std::vector<TensorShard> shards = whole_shards(state);
  const auto store =
      Store::open(dir / "store", {.memory_bytes_max = 32u << 20, .metrics = metrics}).value();
  {
    const Confined confined(kMore);
    auto lent = store->save("run/1", {.tensors = shards}, {.codec = "raw"});
    ASSERT_TRUE(lent.ok()) << lent.status().to_string();
    const Status saved = lent->wait();
    ASSERT_TRUE(saved.ok()) << saved.to_string();
    // No room for a copy: the call itself takes as long as the save.
    auto staged = store->save("run/2", {.tensors = shards}, {.codec = "raw", .stage = true});
    ASSERT_TRUE(staged.ok()) << staged.status().to_string();
    EXPECT_TRUE(staged->done());
    EXPECT_TRUE(staged->wait().ok());
  }
  EXPECT_LE(metrics->value("caisson_memory_peak_bytes").value(),
            metrics->value("caisson_memory_max_bytes").value() + kSegmentBufferBytes);
  for (const char* name : {"run/1", "run/2"}) {
    GappedTargets found(state);
    ASSERT_TRUE(store->restore(name, found.targets).ok()) << name;
    EXPECT_TRUE(found.holds(state)) << name;
  }
}

}  // namespace
}  // namespace caisson

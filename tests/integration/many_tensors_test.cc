// A save of so many tensors that they are planned while those before are being saved.
#include <gtest/gtest.h>

#include "caisson/store.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kF32;
using testing::shape_of;
using testing::TempDir;
using testing::TestTensor;
using testing::whole_shards;

constexpr uint64_t kTensors = 5000;
constexpr uint64_t kInlineBytesMax = 4096;

class ManyTensorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (uint64_t i = 0; i < kTensors; ++i) {
      // Some lie in the part, some in packs.
      model_.emplace_back("t" + std::to_string(i), kF32, shape_of({i % 3 == 0 ? 10u : 40u, 40}), i);
    }
    auto store = Store::open(dir_ / "store");
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    store_ = std::move(store).value();
  }

  Result<SaveReport> save(const std::string& name, std::span<const TensorShard> shards,
                          uint32_t workers) {
    CAISSON_ASSIGN_OR_RETURN(
        PendingSave pending,
        store_->save(name, {.tensors = shards, .blobs = {}, .aliases = {}}, {.workers = workers}));
    CAISSON_RETURN_IF_ERROR(pending.wait());
    return pending.report();
  }
  Result<SaveReport> save(const std::string& name, uint32_t workers = 1) {
    return save(name, whole_shards(model_), workers);
  }

  void expect_holds(const std::string& name) {
    std::vector<std::vector<std::byte>> found;
    std::vector<TensorTarget> targets;
    for (const TestTensor& tensor : model_) {
      found.emplace_back(tensor.bytes.size());
      targets.push_back({.name = tensor.spec.name,
                         .box = Box::whole(tensor.spec.shape),
                         .data = found.back().data(),
                         .strides_bytes = {}});
    }
    const Status restored = store_->restore(name, targets);
    ASSERT_TRUE(restored.ok()) << restored.to_string();
    for (size_t i = 0; i < model_.size(); ++i) {
      ASSERT_EQ(found[i], model_[i].bytes) << model_[i].spec.name;
    }
  }

  TempDir dir_;
  std::vector<TestTensor> model_;
  std::unique_ptr<Store> store_;
};

TEST_F(ManyTensorsTest, AreSavedWhole) {
  model_[4321].bytes = model_[77].bytes;  // found in the same save
  const auto report = save("run/1", 2);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->tensors, kTensors);
  EXPECT_EQ(report->tiles, kTensors);
  EXPECT_EQ(report->deduplicated_bytes, model_[77].bytes.size());
  expect_holds("run/1");
}

TEST_F(ManyTensorsTest, AreComparedWithTheParent) {
  ASSERT_TRUE(save("run/1").ok());
  model_[4000].bytes[5] ^= std::byte{1};
  const auto again = save("run/2", 2);
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  uint64_t unchanged = 0;  // of those in packs
  for (uint64_t i = 0; i < kTensors; ++i) {
    const uint64_t bytes = model_[i].bytes.size();
    if (bytes > kInlineBytesMax && i != 4000) unchanged += bytes;
  }
  EXPECT_EQ(again->deduplicated_bytes, unchanged);
  expect_holds("run/2");
}

TEST_F(ManyTensorsTest, ABadOneAmongTheLastIsNamed) {
  std::vector<TensorShard> shards = whole_shards(model_);
  shards[4500].data = nullptr;
  const Status refused = save("run/1", shards, 2).status();
  EXPECT_EQ(refused.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(refused.to_string().find("\"t4500\""), std::string::npos) << refused.to_string();
  EXPECT_TRUE(save("run/1").ok());
  expect_holds("run/1");
}

TEST_F(ManyTensorsTest, ARankThatCannotBeIsRefusedBeforeStaging) {
  std::vector<TensorShard> shards = whole_shards(model_);
  shards[4500].tensor.shape.rank = shards[4500].box.rank = 1 << 28;
  const SaveInput input{.tensors = shards, .blobs = {}, .aliases = {}};
  auto pending = store_->save("run/1", input, {.stage = true});
  const Status status = pending.ok() ? pending->wait() : pending.status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
}

TEST_F(ManyTensorsTest, ABoxThatCannotBeAmongTheLastIsRefused) {
  std::vector<TensorShard> shards = whole_shards(model_);
  shards[4500].box.rank = 1 << 28;
  EXPECT_EQ(save("run/1", shards, 2).status().code(), StatusCode::kInvalidArgument);
  shards = whole_shards(model_);
  shards[4500].box.extent = {uint64_t{1} << 40, uint64_t{1} << 40};
  EXPECT_EQ(save("run/1", shards, 2).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(save("run/1").ok());
}

}  // namespace
}  // namespace caisson

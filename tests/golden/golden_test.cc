// The golden store of version 1, as it was written once: this engine, and every later one, restores
// it byte for byte. tests/format/reader.py reads the same store without the engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "caisson/store.h"
#include "tests/golden/golden_coded.h"
#include "tests/golden/golden_sparse.h"
#include "tests/golden/golden_tensors.h"
#include "tests/support/temp_dir.h"

namespace caisson::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::UnorderedElementsAreArray;

// The same content in one directory and in two.
class Golden : public ::testing::TestWithParam<const char*> {
 protected:
  // A copy, so that nothing can ever change the committed one.
  void SetUp() override {
    fs::copy(fs::path(CAISSON_SOURCE_DIR) / "tests/golden" / GetParam(), dir_.path(),
             fs::copy_options::recursive);
    std::string url = dir_ / "store";
    if (fs::exists(dir_ / "second")) url += "?dirs=" + (dir_ / "second");
    auto store = Store::open(url, {.create = false});
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    store_ = std::move(store).value();
  }
  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_P(Golden, ListsItsCheckpoints) {
  std::vector<std::string> names, expected;
  const auto found = store_->checkpoints();
  ASSERT_TRUE(found.ok()) << found.status().to_string();
  for (const CheckpointInfo& info : *found) {
    EXPECT_EQ(info.problem, "");
    names.push_back(info.name);
  }
  for (const GoldenCheckpoint& checkpoint : golden_checkpoints())
    expected.push_back(checkpoint.name);
  EXPECT_THAT(names, UnorderedElementsAreArray(expected));
}

TEST_P(Golden, RestoresEveryByte) {
  for (const GoldenCheckpoint& checkpoint : golden_checkpoints()) {
    const auto infos = store_->tensors(checkpoint.name);
    ASSERT_TRUE(infos.ok()) << infos.status().to_string();
    EXPECT_EQ(infos->size(), checkpoint.tensors.size());
    std::vector<ByteVector> restored;
    std::vector<TensorTarget> targets;
    for (const GoldenTensor& tensor : checkpoint.tensors) {
      if (!tensor.alias_of.empty()) continue;
      restored.emplace_back(tensor.bytes.size());
      targets.push_back({.name = tensor.spec.name,
                         .box = Box::whole(tensor.spec.shape),
                         .data = restored.back().data(),
                         .strides_bytes = {}});
    }
    const Status status = store_->restore(checkpoint.name, targets);
    ASSERT_TRUE(status.ok()) << status.to_string();
    size_t next = 0;
    for (const GoldenTensor& tensor : checkpoint.tensors) {
      if (!tensor.alias_of.empty()) continue;
      EXPECT_EQ(restored[next++], tensor.bytes) << checkpoint.name << " " << tensor.spec.name;
    }
  }
}

TEST_P(Golden, AliasesReadTheirTarget) {
  const GoldenTensor weight = golden_checkpoints()[1].tensors.front();
  ByteVector restored(weight.bytes.size());
  const std::vector<TensorTarget> targets = {{.name = "head.bf16",
                                              .box = Box::whole(weight.spec.shape),
                                              .data = restored.data(),
                                              .strides_bytes = {}}};
  const Status status = store_->restore("golden/2", targets);
  ASSERT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(restored, weight.bytes);
}

TEST_P(Golden, NewSavesFollow) {
  const GoldenTensor weight = golden_checkpoints()[1].tensors.front();
  const std::vector<TensorShard> shards = {{.tensor = weight.spec,
                                            .box = Box::whole(weight.spec.shape),
                                            .data = weight.bytes.data(),
                                            .strides_bytes = {},
                                            .replica = {}}};
  auto save = store_->save("golden/3", {.tensors = shards, .blobs = {}, .aliases = {}});
  ASSERT_TRUE(save.ok()) << save.status().to_string();
  ASSERT_TRUE(save->wait().ok()) << save->wait().to_string();
  EXPECT_EQ(save->report().stored_bytes, 0u);  // it is what golden/2 has
}

INSTANTIATE_TEST_SUITE_P(Version1, Golden, ::testing::Values("v1", "v1-directories"));

// Every codec, those with a base too.
struct CodedStore {
  const char* directory;
  std::vector<GoldenCheckpoint> (*checkpoints)();
};
class GoldenCoded : public ::testing::TestWithParam<CodedStore> {};

TEST_P(GoldenCoded, RestoresEveryByte) {
  const TempDir dir;
  fs::copy(fs::path(CAISSON_SOURCE_DIR) / "tests/golden" / GetParam().directory / "store",
           dir / "store", fs::copy_options::recursive);
  auto store = Store::open(dir / "store", {.create = false});
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  for (const GoldenCheckpoint& checkpoint : GetParam().checkpoints()) {
    for (const GoldenTensor& tensor : checkpoint.tensors) {  // one by one: bases are read for them
      ByteVector restored(tensor.bytes.size());
      const TensorTarget target{.name = tensor.spec.name,
                                .box = Box::whole(tensor.spec.shape),
                                .data = restored.data(),
                                .strides_bytes = {}};
      const Status status = (*store)->restore(checkpoint.name, {&target, 1});
      ASSERT_TRUE(status.ok()) << status.to_string();
      EXPECT_EQ(restored, tensor.bytes) << checkpoint.name << " " << tensor.spec.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Version1, GoldenCoded,
                         ::testing::Values(CodedStore{"coded", coded_checkpoints},
                                           CodedStore{"sparse", sparse_checkpoints}));

}  // namespace
}  // namespace caisson::testing

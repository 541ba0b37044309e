// Manifests of handmade checkpoints: names are found with few reads, by many threads, and parts can
// be read before anything is committed.
#include "engine/manifest.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/support/memory_object_store.h"
#include "tests/support/tiny_checkpoint.h"

namespace caisson {
namespace {

using sim::random_tensor;

constexpr DType kU8{.code = DTypeCode::kUInt, .bits = 8};

std::string name_of(int i) { return "layer." + std::to_string(i) + ".weight"; }

class ManifestTest : public testing::Test {
 protected:
  static constexpr int kTensors = 3000;  // several directory pages
  ManifestTest() {
    std::vector<sim::TinyTensor> model;
    for (int i = 0; i < kTensors; ++i) {
      model.push_back(random_tensor(name_of(i), kU8, {4}, {4}, static_cast<uint64_t>(i)));
    }
    model.push_back(random_tensor("wide", kU8, {1000, 40}, {1, 40}, 1));
    root_ = sim::write_tiny_checkpoint(objects_, std::move(model), {.chunks_per_segment = 50});
    manifest_ = Manifest::open(objects_, root_).value();
  }
  MemoryObjectStore objects_;
  format::SealedRef root_;
  std::shared_ptr<Manifest> manifest_;
};

TEST_F(ManifestTest, FindsEveryName) {
  for (int i = 0; i < kTensors; ++i) {
    const auto record = manifest_->find(name_of(i));
    ASSERT_TRUE(record.ok()) << record.status().to_string();
    ASSERT_NE(*record, nullptr) << name_of(i);
    ASSERT_EQ((*record)->spec.name, name_of(i));
  }
  for (const char* name : {"", "a", "layer.1.weigh", "layer.1.weight2", "zzz"}) {
    const auto record = manifest_->find(name);
    ASSERT_TRUE(record.ok());
    EXPECT_EQ(*record, nullptr) << name;
  }
}

TEST_F(ManifestTest, OneTensorTakesFewReads) {
  uint64_t reads = 0, bytes = 0;
  objects_.set_read_hook([&](const std::string&, uint64_t, MutableBytes into) {
    ++reads;
    bytes += into.size();
    return ok_status();
  });
  const auto record = manifest_->find("wide");
  ASSERT_TRUE(record.ok() && *record != nullptr);
  EXPECT_EQ(reads, 1u);
  const ShardRecord& shard = (*record)->shards[0];
  const auto entries = manifest_->entries(shard.part, shard.first_entry, shard.pieces);
  ASSERT_TRUE(entries.ok()) << entries.status().to_string();
  EXPECT_EQ(entries->size(), 1000u);
  EXPECT_EQ(reads, 2u) << "a thousand entries lie in ten neighbouring blocks";
  EXPECT_LE(bytes, format::kPageBytesTarget * 2 + 11 * format::kBlockBytes);
  ASSERT_TRUE(manifest_->find("wide").ok());
  EXPECT_EQ(reads, 2u) << "the page is cached";
}

TEST_F(ManifestTest, VisitsAllInOrder) {
  std::string last;
  uint64_t seen = 0;
  ASSERT_TRUE(manifest_
                  ->for_each([&](const TensorRecord& record) {
                    EXPECT_LT(last, record.spec.name);
                    last = record.spec.name;
                    ++seen;
                    return ok_status();
                  })
                  .ok());
  EXPECT_EQ(seen, manifest_->root().tensors);
}

TEST_F(ManifestTest, EntriesAreTheSameHoweverTheyAreAskedFor) {
  const uint64_t total = manifest_->root().parts[0].entries;
  const auto all = manifest_->entries(0, 0, total);
  ASSERT_TRUE(all.ok());
  ASSERT_EQ(all->size(), total);
  for (const auto& [first, count] : std::vector<std::pair<uint64_t, uint64_t>>{
           {0, 1}, {101, 1}, {102, 1}, {101, 2}, {50, 500}, {total - 1, 1}, {7, 0}}) {
    const auto some = manifest_->entries(0, first, count);
    ASSERT_TRUE(some.ok());
    ASSERT_EQ(some->size(), count);
    for (uint64_t i = 0; i < count; ++i) {
      EXPECT_EQ((*some)[static_cast<size_t>(i)], (*all)[static_cast<size_t>(first + i)]);
    }
  }
  EXPECT_EQ(manifest_->entries(0, total, 1).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(manifest_->entries(9, 0, 1).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ManifestTest, InlineBytesAreVerified) {
  const auto record = manifest_->find(name_of(7));
  ASSERT_TRUE(record.ok() && *record != nullptr);
  const ShardRecord& shard = (*record)->shards[0];
  const format::ChunkEntry entry =
      manifest_->entries(shard.part, shard.first_entry, 1).value().front();
  ASSERT_EQ(entry.pack, format::kPackInline);
  const auto raw = manifest_->inline_bytes(shard.part, entry, 8);
  ASSERT_TRUE(raw.ok()) << raw.status().to_string();
  EXPECT_EQ(*raw, random_tensor("", kU8, {4}, {4}, 7).content);
  EXPECT_EQ(manifest_->inline_bytes(shard.part, entry, 16).status().code(),
            StatusCode::kCorruption);
}

TEST_F(ManifestTest, ServesManyThreads) {
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 300; ++i) {
          const std::string name = name_of((i * 37 + t * 911) % kTensors);
          const auto record = manifest_->find(name);
          if (!record.ok() || *record == nullptr || (*record)->spec.name != name) ++wrong;
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(ManifestTest, APartIsReadableByItself) {
  const format::SealedRef part = manifest_->root().parts[0].part;
  const auto reader = PartReader::open(objects_, part);
  ASSERT_TRUE(reader.ok()) << reader.status().to_string();
  EXPECT_EQ((*reader)->trailer().tensors, uint64_t{kTensors} + 1);
  EXPECT_EQ((*reader)->packs().value(), manifest_->packs().all().value().packs);
  int seen = 0;
  ASSERT_TRUE((*reader)
                  ->for_each([&](const TensorRecord& record, Bytes encoded) {
                    EXPECT_EQ(format::name_of_record(encoded), record.spec.name);
                    EXPECT_EQ(record.spec.name, seen < kTensors ? name_of(seen) : "wide");
                    ++seen;
                    return ok_status();
                  })
                  .ok());
  EXPECT_EQ(seen, kTensors + 1);
  format::SealedRef other = part;
  other.digest = digest_of({});
  EXPECT_EQ(PartReader::open(objects_, other).status().code(), StatusCode::kCorruption);
}

TEST_F(ManifestTest, AnyOtherRootIsCorruption) {
  format::SealedRef other = root_;
  other.digest = digest_of({});
  EXPECT_EQ(Manifest::open(objects_, other).status().code(), StatusCode::kCorruption);
  objects_.objects().erase(root_.object.key());
  const Status missing = Manifest::open(objects_, root_).status();
  EXPECT_EQ(missing.code(), StatusCode::kCorruption);
  EXPECT_NE(missing.message().find(root_.object.key()), std::string_view::npos);
  EXPECT_NE(missing.message().find("caisson verify STORE"), std::string_view::npos);
}

}  // namespace
}  // namespace caisson

// A checkpoint that gets a new root: the same bytes before and after, in packs of its own; and what
// happens when something comes between. Crashes and races at every file operation are in
// tests/crash.
#include "engine/rewrite.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "caisson/store.h"
#include "client/store_context.h"
#include "engine/gc.h"
#include "engine/manifest.h"
#include "io/object_dir.h"
#include "io/posix_file_system.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::kBf16;
using testing::kF32;
using testing::kI64;
using testing::shape_of;
using testing::TempDir;
using testing::TestTensor;

constexpr DType kF4{DTypeCode::kFloat4E2M1FN, 4};
constexpr uint64_t kSmallBatch = 1u << 20;

class RewriteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto files = make_posix_file_system();
    ASSERT_TRUE(files.ok()) << files.status().to_string();
    auto store = Store::open(path());
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    store_ = std::move(store).value();
    objects_ = make_object_dir(std::move(files).value(), path(), system_uuids());
    model_.emplace_back("embed", kBf16, shape_of({3000, 700}), 1);
    model_.emplace_back("experts", kF32, shape_of({6, 512, 300}), 2);
    model_.emplace_back("quantized", kF4, shape_of({2048, 2048}), 3);
    model_.emplace_back("norm", kF32, shape_of({512}), 4);
    model_.emplace_back("step", kI64, shape_of({}), 5);
    model_.emplace_back("empty", kF32, shape_of({0, 7}), 6);
    blob_ = testing::random_bytes(5'000'000, 7);
  }

  std::string path() const { return dir_ / "store"; }
  std::unique_ptr<Log> log() {
    auto log = Log::open(*objects_, system_uuids(), this_process());
    EXPECT_TRUE(log.ok()) << log.status().to_string();
    return std::move(log).value();
  }
  Checkpoint find(const std::string& name) {
    return find_checkpoint(*log()->state(), name).value();
  }

  Status save(const std::string& name, const SaveOptions& options = {}, SaveReport* report = {}) {
    const std::vector<TensorShard> shards = testing::whole_shards(model_);
    const std::vector<BlobView> blobs{{.name = "tokenizer", .bytes = blob_}};
    const std::vector<Alias> aliases{{.name = "lm_head", .target = "embed"}};
    CAISSON_ASSIGN_OR_RETURN(
        PendingSave pending,
        store_->save(name, {.tensors = shards, .blobs = blobs, .aliases = aliases}, options));
    CAISSON_RETURN_IF_ERROR(pending.wait());
    if (report != nullptr) *report = pending.report();
    return ok_status();
  }

  Result<RewriteReport> rewrite(const std::string& name, RewriteOptions options = {}) {
    MemoryBudget budget(32u << 20);
    const auto log = this->log();
    CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, find_checkpoint(*log->state(), name));
    return rewrite_checkpoint(*objects_, *log, budget, system_uuids(), system_clock(), checkpoint,
                              options);
  }
  // `event` happens once, when all is copied and the record is not yet in.
  Result<RewriteReport> rewrite_with(const std::string& name, const std::function<void()>& event) {
    RewriteOptions options;
    options.progress = [&, done = false](const Progress& progress) mutable {
      if (done || progress.bytes_done < progress.bytes_total) return;
      done = true;
      event();
    };
    return rewrite(name, options);
  }
  Status collect() {
    const auto log = this->log();
    return run_gc(*objects_, *log).status();
  }

  // Through another Store, which has no manifest open yet.
  void expect_whole(const std::string& name) {
    auto store = Store::open(path());
    ASSERT_TRUE(store.ok());
    for (const TestTensor& tensor : model_) {
      std::vector<std::byte> found(tensor.bytes.size());
      const TensorTarget target{.name = tensor.spec.name,
                                .box = Box::whole(tensor.spec.shape),
                                .data = found.data(),
                                .strides_bytes = {}};
      const Status restored = (*store)->restore(name, {&target, 1});
      ASSERT_TRUE(restored.ok()) << restored.to_string();
      EXPECT_TRUE(found == tensor.bytes) << tensor.spec.name;
    }
    const auto blob = (*store)->read_blob(name, "tokenizer");
    ASSERT_TRUE(blob.ok()) << blob.status().to_string();
    EXPECT_TRUE(*blob == blob_);
    EXPECT_EQ((*store)->tensors(name, "lm_head")->front().alias_of, "embed");
  }
  // The saves whose packs the checkpoint needs.
  std::set<Uuid> saves_of(const std::string& name) {
    const Checkpoint checkpoint = find(name);
    std::set<Uuid> saves;
    const auto root = read_root(*objects_, checkpoint.root);
    EXPECT_TRUE(root.ok()) << root.status().to_string();
    for (const format::SealedRef& pack : root->tables.packs) saves.insert(pack.object.save);
    return saves;
  }
  // A rewrite that was refused has left nothing but garbage.
  void expect_unchanged(const std::string& name, const format::SealedRef& root) {
    EXPECT_EQ(find(name).root, root);
    EXPECT_TRUE(log()->state()->open_saves().empty());
    expect_whole(name);
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<ObjectStore> objects_;
  std::vector<TestTensor> model_;
  std::vector<std::byte> blob_;
};

TEST_F(RewriteTest, TheSameContentInPacksOfItsOwn) {
  ASSERT_TRUE(save("run/1").ok());
  model_[1].bytes[0] ^= std::byte{1};
  ASSERT_TRUE(save("run/2", {.metadata_json = R"({"loss": 2.5})"}).ok());
  EXPECT_EQ(saves_of("run/2").size(), 2u);
  const CheckpointInfo before = store_->info("run/2").value();
  const auto log_before = log()->state()->seq();

  const auto report = rewrite("run/2", {.batch_bytes_max = kSmallBatch});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->tensors, before.tensors);
  EXPECT_EQ(report->raw_bytes, before.raw_bytes);
  EXPECT_EQ(report->foreign_packs_before, 1u);
  EXPECT_EQ(report->packs, 1u);                      // not one a batch
  EXPECT_EQ(log()->state()->seq(), log_before + 2);  // open, replace

  EXPECT_EQ(saves_of("run/2").size(), 1u);
  const CheckpointInfo after = store_->info("run/2").value();
  EXPECT_EQ(after.commit_seq, before.commit_seq);
  EXPECT_EQ(after.created_unix_ns, before.created_unix_ns);
  EXPECT_EQ(after.metadata_json, before.metadata_json);
  EXPECT_EQ(after.epoch, before.epoch);
  EXPECT_EQ(after.raw_bytes, before.raw_bytes);
  EXPECT_TRUE(after.latest);

  ASSERT_TRUE(store_->remove("run/1").ok());
  ASSERT_TRUE(collect().ok());
  EXPECT_EQ(log()->state()->ended_saves().size(), 0u) << "old packs were kept";
  expect_whole("run/2");
}

// The next save finds every piece where it looks for it, and the run's owner was not disturbed.
TEST_F(RewriteTest, LaterSavesShareAsBefore) {
  ASSERT_TRUE(save("run/1").ok());
  SaveReport before, after;
  ASSERT_TRUE(save("run/2", {}, &before).ok());
  ASSERT_TRUE(rewrite("run/2", {.batch_bytes_max = kSmallBatch}).ok());
  ASSERT_TRUE(save("run/3", {}, &after).ok());
  EXPECT_EQ(after.deduplicated_bytes, before.deduplicated_bytes);
  EXPECT_EQ(after.stored_bytes, before.stored_bytes);
  expect_whole("run/3");
}

// Boxes of ranks, a grid of their own for narrow columns, and replicas that divide their pieces.
TEST_F(RewriteTest, ShardsOfManyRanksKeepTheirBoxes) {
  const TestTensor columns("columns", kF32, shape_of({4096, 64}), 8);
  const TestTensor shared("shared", kF32, shape_of({2048, 512}), 9);
  const auto ticket = store_->begin_save("run/1");
  ASSERT_TRUE(ticket.ok());
  std::vector<SealedPart> parts;
  for (uint32_t rank = 0; rank < 4; ++rank) {
    auto joined = store_->join_save(*ticket, rank);
    ASSERT_TRUE(joined.ok()) << joined.status().to_string();
    TensorShard mine = columns.whole();
    mine.box.offset[1] = 16 * rank;
    mine.box.extent[1] = 16;
    mine.data += 64 * rank;
    mine.strides_bytes = {256, 4};
    TensorShard replica = shared.whole();
    replica.replica = {.index = rank, .count = 4};
    const std::vector<TensorShard> shards{mine, replica};
    ASSERT_TRUE((*joined)->put({.tensors = shards, .blobs = {}, .aliases = {}}).ok());
    parts.push_back((*joined)->seal().value());
  }
  ASSERT_TRUE(store_->commit_save(*ticket, 4, parts).ok());
  const auto before = store_->tensors("run/1", "columns").value();

  const auto report = rewrite("run/1");
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto after = store_->tensors("run/1", "columns").value();
  EXPECT_EQ(after.front().shards, before.front().shards);
  EXPECT_EQ(store_->tensors("run/1", "shared")->front().shards.size(), 1u);
  EXPECT_EQ(store_->info("run/1")->ranks, 1u);
  for (const TestTensor* tensor : {&columns, &shared}) {
    std::vector<std::byte> found(tensor->bytes.size());
    const TensorTarget target{.name = tensor->spec.name,
                              .box = Box::whole(tensor->spec.shape),
                              .data = found.data(),
                              .strides_bytes = {}};
    ASSERT_TRUE(store_->restore("run/1", {&target, 1}).ok());
    EXPECT_TRUE(found == tensor->bytes) << tensor->spec.name;
  }
}

TEST_F(RewriteTest, AnotherCodecIsUsed) {
  for (size_t i = 0; i < blob_.size(); ++i) blob_[i] = static_cast<std::byte>(i / 1000);
  ASSERT_TRUE(save("run/1", {.codec = "raw"}).ok());
  const uint64_t raw = store_->info("run/1")->stored_bytes;
  const auto report = rewrite("run/1", {.codec = "zstd", .workers = 2});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_LT(report->stored_bytes + 4'000'000, raw);
  expect_whole("run/1");
}

TEST_F(RewriteTest, ADamagedChunkIsNamedAndNothingIsReplaced) {
  ASSERT_TRUE(save("run/1").ok());
  const Checkpoint checkpoint = find("run/1");
  const std::string key = read_root(*objects_, checkpoint.root)->tables.packs.front().object.key();
  std::fstream pack(path() + "/" + key, std::ios::in | std::ios::out | std::ios::binary);
  ASSERT_TRUE(pack.good()) << key;
  const auto flip = [&] {
    pack.seekg(1'000'000);
    const auto byte = static_cast<char>(pack.get() ^ 1);
    pack.seekp(1'000'000);
    pack.put(byte);
    pack.flush();
  };
  flip();
  const auto report = rewrite("run/1");
  EXPECT_EQ(report.status().code(), StatusCode::kCorruption) << report.status().to_string();
  EXPECT_THAT(std::string(report.status().message()), HasSubstr(key));
  flip();
  expect_unchanged("run/1", checkpoint.root);
}

TEST_F(RewriteTest, WhoComesFirstWins) {
  ASSERT_TRUE(save("run/1").ok());
  ASSERT_TRUE(save("run/2").ok());
  const format::SealedRef root = find("run/2").root;

  // Pruned and collected: what is read meanwhile stays, and then it is gone.
  RewriteOptions small{.batch_bytes_max = kSmallBatch};
  small.progress = [&, done = false](const Progress&) mutable {
    if (std::exchange(done, true)) return;
    EXPECT_TRUE(store_->remove("run/1").ok());
    EXPECT_TRUE(collect().ok());
  };
  auto refused = rewrite("run/1", small);
  EXPECT_EQ(refused.status().code(), StatusCode::kFenced) << refused.status().to_string();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("caisson ls"));
  EXPECT_TRUE(log()->state()->open_saves().empty());

  // Claimed: the rewrite's save is over.
  refused =
      rewrite_with("run/2", [&] { EXPECT_TRUE(Store::open(path())->get()->claim("run").ok()); });
  EXPECT_EQ(refused.status().code(), StatusCode::kFenced) << refused.status().to_string();
  expect_unchanged("run/2", root);

  // Cancelled.
  std::stop_source stop;
  stop.request_stop();
  refused = rewrite("run/2", {.stop = stop.get_token()});
  EXPECT_EQ(refused.status().code(), StatusCode::kCancelled) << refused.status().to_string();
  expect_unchanged("run/2", root);

  // Rewritten by another.
  refused = rewrite_with("run/2", [&] { EXPECT_TRUE(rewrite("run/2").ok()); });
  EXPECT_EQ(refused.status().code(), StatusCode::kFenced) << refused.status().to_string();
  const format::SealedRef other = find("run/2").root;
  EXPECT_NE(other, root);
  expect_unchanged("run/2", other);

  // Saved anew under the same name.
  ASSERT_TRUE(store_->claim("run").ok());
  refused = rewrite_with("run/2", [&] { EXPECT_TRUE(save("run/2", {.overwrite = true}).ok()); });
  EXPECT_EQ(refused.status().code(), StatusCode::kFenced) << refused.status().to_string();
  expect_whole("run/2");
  ASSERT_TRUE(collect().ok());
  expect_whole("run/2");
}

}  // namespace
}  // namespace caisson

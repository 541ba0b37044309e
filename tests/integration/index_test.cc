// The index as a cache: whatever happens to it, the store's answers stay the same.
#include "engine/index.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "caisson/store.h"
#include "client/open_store.h"
#include "engine/gc.h"
#include "engine/manifest.h"
#include "engine/rewrite.h"
#include "io/object_dir.h"
#include "io/posix_file_system.h"
#include "tests/support/temp_dir.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;

class IndexTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto files = make_posix_file_system();
    ASSERT_TRUE(files.ok()) << files.status().to_string();
    objects_ = make_object_dir(std::move(files).value(), root_, system_uuids());
    std::mt19937_64 random(7);
    for (uint64_t& word : data_) word = random();
    save("a/1");
  }

  // One tensor of 8 MiB.
  void save(const std::string& name, ChunkHints* hints = nullptr, SaveReport* report = nullptr) {
    auto store = open_store_at(root_, {}, hints);
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    TensorShard shard;
    const uint64_t dims[] = {1024, 1024};
    shard.tensor = {"w", {DTypeCode::kUInt, 64}, Shape::of(dims)};
    shard.box = Box::whole(shard.tensor.shape);
    shard.data = reinterpret_cast<const std::byte*>(data_.data());
    auto pending = (*store)->save(name, {.tensors = {&shard, 1}});
    ASSERT_TRUE(pending.ok()) << pending.status().to_string();
    const Status done = pending->wait();
    ASSERT_TRUE(done.ok()) << done.to_string();
    if (report != nullptr) *report = pending->report();
  }

  std::shared_ptr<const LogState> state() {
    auto log = Log::open(*objects_, system_uuids(), this_process());
    EXPECT_TRUE(log.ok()) << log.status().to_string();
    return (*log)->state();
  }

  std::unique_ptr<Index> open_index(const Uuid& store = Uuid{{std::byte{1}}},
                                    size_t run_rows_max = kIndexRunRowsMax) {
    auto index = Index::open(root_ + "/index", store, *objects_, run_rows_max);
    EXPECT_TRUE(index.ok()) << index.status().to_string();
    return index.ok() ? std::move(index).value() : nullptr;
  }

  IndexSync sync(Index& index) {
    auto report = index.sync(*state(), [](const Status& s) { ADD_FAILURE() << s.to_string(); });
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return report.ok() ? std::move(report).value() : IndexSync{};
  }

  std::vector<format::ChunkEntry> entries_of(std::string_view run) {
    auto manifest = Manifest::open(*objects_, state()->latest(run)->root);
    EXPECT_TRUE(manifest.ok()) << manifest.status().to_string();
    return (*manifest)->entries(0, 0, (*manifest)->root().parts[0].entries).value();
  }

  // Every chunk of run a is found, in a pack that exists.
  void expect_all_found(Index& index) {
    for (const format::ChunkEntry& entry : entries_of("a")) {
      const auto places = index.places(entry.id, entry.raw_bytes, *state());
      ASSERT_TRUE(places.ok()) << places.status().to_string();
      ASSERT_FALSE(places->empty());
      EXPECT_TRUE(objects_->stat(places->front().pack.key()).ok());
    }
  }

  testing::TempDir dir_;
  const std::string root_ = dir_ / "store";
  std::unique_ptr<ObjectStore> objects_;
  std::vector<uint64_t> data_ = std::vector<uint64_t>(1024 * 1024);
};

TEST_F(IndexTest, FindsEveryChunkAndTheCatalog) {
  const auto index = open_index();
  const IndexSync first = sync(*index);
  EXPECT_TRUE(first.rebuilt);
  EXPECT_EQ(first.rebuild_reason, "there was none");
  EXPECT_EQ(first.commits, 1u);
  EXPECT_EQ(first.places, entries_of("a").size());
  expect_all_found(*index);
  const auto entry = index->catalog(state()->latest("a")->seq);
  ASSERT_TRUE(entry.ok() && entry->has_value());
  EXPECT_EQ((*entry)->raw_bytes, data_.size() * 8);
  EXPECT_EQ(sync(*index).commits, 0u) << "nothing new";
}

// Its chunks lie elsewhere now, and its root says other things.
TEST_F(IndexTest, LoadsARewrittenCheckpointAnew) {
  const auto index = open_index();
  sync(*index);
  auto log = Log::open(*objects_, system_uuids(), this_process());
  ASSERT_TRUE(log.ok()) << log.status().to_string();
  const Checkpoint old = *(*log)->state()->latest("a");
  MemoryBudget budget(32u << 20);
  const auto rewritten =
      rewrite_checkpoint(*objects_, **log, budget, system_uuids(), system_clock(), old, {});
  ASSERT_TRUE(rewritten.ok()) << rewritten.status().to_string();
  ASSERT_TRUE(run_gc(*objects_, **log).ok());
  EXPECT_EQ(sync(*index).commits, 1u);
  expect_all_found(*index);
  const Checkpoint now = *state()->latest("a");
  EXPECT_NE(now.root.object, old.root.object);
  EXPECT_EQ(index->catalog(now.seq).value()->root, now.root.object);
  EXPECT_EQ(sync(*index).commits, 0u);
}

// A log that came back from a backup: what only the lost records told is not to be found any more.
TEST_F(IndexTest, OneThatKnowsMoreThanTheLogStartsAnew) {
  const auto early = state();
  data_.assign(data_.size(), 5);
  save("b/1");
  const std::vector<format::ChunkEntry> lost = entries_of("b");
  const auto index = open_index();
  sync(*index);
  ASSERT_FALSE(index->places(lost[0].id, lost[0].raw_bytes, *early)->empty());
  const auto again = index->sync(*early, [](const Status& s) { ADD_FAILURE() << s.to_string(); });
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_TRUE(again->rebuilt);
  EXPECT_NE(again->rebuild_reason.find("log record"), std::string::npos) << again->rebuild_reason;
  EXPECT_TRUE(index->places(lost[0].id, lost[0].raw_bytes, *early)->empty());
  EXPECT_EQ(again->commits, 1u);
}

// Runs that end within a checkpoint, at its last row, and never: all give every place.
TEST_F(IndexTest, LoadsInRunsOfAnyLength) {
  const size_t rows = entries_of("a").size();
  ASSERT_GE(rows, 8u);
  for (const size_t run_rows_max : {size_t{1}, size_t{3}, rows - 1, rows, rows + 1}) {
    SCOPED_TRACE(run_rows_max);
    fs::remove_all(root_ + "/index");
    const auto index = open_index(Uuid{{std::byte{1}}}, run_rows_max);
    EXPECT_EQ(sync(*index).places, rows);
    expect_all_found(*index);
  }
}

TEST_F(IndexTest, FindsEveryPlaceOfAChunk) {
  const auto index = open_index();
  sync(*index);
  save("b/1");  // without hints, so stored again
  EXPECT_EQ(sync(*index).places, entries_of("b").size()) << "another table";
  const auto log = state();
  for (format::ChunkEntry entry : entries_of("a")) {
    const auto places = index->places(entry.id, entry.raw_bytes, *log);
    ASSERT_TRUE(places.ok()) << places.status().to_string();
    ASSERT_EQ(places->size(), 2u);
    EXPECT_NE((*places)[0].pack, (*places)[1].pack);
    EXPECT_TRUE(index->places(entry.id, entry.raw_bytes + 1, *log).value().empty());
    entry.id.bytes[15] ^= std::byte{1};
    EXPECT_TRUE(index->places(entry.id, entry.raw_bytes, *log).value().empty());
  }
}

TEST_F(IndexTest, RemembersAnswersWhileItIsSound) {
  const std::string question = "a question longer than any key of a place";
  const std::string answer("\0nothing\0", 9);
  auto index = open_index();
  sync(*index);
  EXPECT_EQ(index->recall(question).value(), std::nullopt);
  ASSERT_TRUE(index->remember(question, answer).ok());
  EXPECT_EQ(index->recall(question).value(), answer);
  EXPECT_EQ(index->recall(question + "?").value(), std::nullopt);
  ASSERT_TRUE(index->close().ok());
  index.reset();
  index = open_index();
  EXPECT_EQ(index->recall(question).value(), answer);
  index.reset();  // not closed: the next one starts from nothing
  index = open_index();
  EXPECT_EQ(index->recall(question).value(), std::nullopt);
}

TEST_F(IndexTest, SurvivesACleanClose) {
  auto index = open_index();
  sync(*index);
  ASSERT_TRUE(index->close().ok());
  index = open_index();
  const IndexSync again = sync(*index);
  EXPECT_FALSE(again.rebuilt) << again.rebuild_reason;
  EXPECT_EQ(again.commits, 0u);
  expect_all_found(*index);
}

TEST_F(IndexTest, IsRebuiltWhenItWasNotClosed) {
  auto index = open_index();
  sync(*index);
  index.reset();
  index = open_index();
  const IndexSync again = sync(*index);
  EXPECT_TRUE(again.rebuilt);
  EXPECT_NE(again.rebuild_reason.find("closed"), std::string::npos) << again.rebuild_reason;
  EXPECT_FALSE(sync(*index).rebuilt) << "said once";
  expect_all_found(*index);
}

TEST_F(IndexTest, IsRebuiltWhenAnyFileIsDamagedCutOrGone) {
  auto index = open_index();
  sync(*index);
  ASSERT_TRUE(index->close().ok());
  index.reset();
  std::vector<std::string> names;
  for (const auto& file : fs::directory_iterator(root_ + "/index")) {
    const std::string name = file.path().filename().string();
    const bool is_read_back = name.ends_with(".sst") || name == "CURRENT" || name == "SEAL" ||
                              name.starts_with("MANIFEST");
    if (is_read_back && file.file_size() > 0) names.push_back(name);
  }
  ASSERT_GE(names.size(), 4u);
  fs::copy(root_ + "/index", dir_ / "sound", fs::copy_options::recursive);
  for (const std::string& name : names) {
    for (const char* harm : {"flip", "cut", "remove"}) {
      SCOPED_TRACE(name + " " + harm);
      fs::remove_all(root_ + "/index");
      fs::copy(dir_ / "sound", root_ + "/index", fs::copy_options::recursive);
      const std::string path = root_ + "/index/" + name;
      const uint64_t bytes = fs::file_size(path);
      if (harm == std::string("flip")) {
        std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
        file.seekg(static_cast<std::streamoff>(bytes / 2));
        const char byte = static_cast<char>(file.get() ^ 0x10);
        file.seekp(static_cast<std::streamoff>(bytes / 2));
        file.put(byte);
      } else if (harm == std::string("cut")) {
        fs::resize_file(path, bytes / 2);
      } else {
        fs::remove(path);
      }
      const auto damaged = open_index();
      ASSERT_NE(damaged, nullptr);
      EXPECT_TRUE(sync(*damaged).rebuilt);
      expect_all_found(*damaged);
    }
  }
}

TEST_F(IndexTest, OfAnotherStoreIsNotUsed) {
  auto index = open_index();
  sync(*index);
  ASSERT_TRUE(index->close().ok());
  index.reset();
  index = open_index(Uuid{{std::byte{2}}});
  EXPECT_TRUE(sync(*index).rebuilt);
}

TEST_F(IndexTest, OneProcessAtATime) {
  const auto index = open_index();
  const auto second = Index::open(root_ + "/index", Uuid{{std::byte{1}}}, *objects_);
  EXPECT_EQ(second.status().code(), StatusCode::kFenced);
}

TEST_F(IndexTest, SharesAcrossRunsWhenItGivesHints) {
  const auto index = open_index();
  sync(*index);
  const auto log = state();
  IndexHints hints(*index, *log);
  SaveReport with, without;
  save("b/1", &hints, &with);
  EXPECT_EQ(with.stored_bytes, 0u) << "run b has no parent, but the store has every chunk";
  EXPECT_EQ(with.deduplicated_bytes, data_.size() * 8);
  save("c/1", nullptr, &without);
  EXPECT_GE(without.stored_bytes, data_.size() * 8);
}

// Hints that lie about everything: the save stores its own bytes.
TEST_F(IndexTest, WrongHintsAreHarmless) {
  class Liar final : public ChunkHints {
   public:
    explicit Liar(format::ObjectRef pack) : pack_(pack) {}
    std::vector<ChunkHint> hints(const Digest&, uint32_t) override {
      format::ObjectRef absent = pack_;
      absent.number = 77;
      return {{pack_, 64}, {pack_, 12345}, {absent, 64}};
    }

   private:
    const format::ObjectRef pack_;
  };
  auto manifest = Manifest::open(*objects_, state()->latest("a")->root);
  ASSERT_TRUE(manifest.ok());
  Liar liar((*manifest)->packs().all().value().packs.front().object);
  for (uint64_t& word : data_) word ^= 0x5555;
  SaveReport report;
  save("b/1", &liar, &report);
  EXPECT_EQ(report.deduplicated_bytes, 0u);
  std::vector<uint64_t> back(data_.size());
  auto store = Store::open(root_);
  ASSERT_TRUE(store.ok());
  const uint64_t dims[] = {1024, 1024};
  const TensorTarget target{
      "w", Box::whole(Shape::of(dims)), reinterpret_cast<std::byte*>(back.data()), {}};
  const Status restored = (*store)->restore("b/latest", {&target, 1});
  ASSERT_TRUE(restored.ok()) << restored.to_string();
  EXPECT_EQ(back, data_);
}

}  // namespace
}  // namespace caisson

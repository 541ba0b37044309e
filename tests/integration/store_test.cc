// A store through its public API, on a real directory: save, commit, open again, dedup, overwrite,
// cancel, fencing. Processes are many_ranks_test.cc.
#include "caisson/store.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "client/open_store.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kBf16;
using testing::kF32;
using testing::kI64;
using testing::shape_of;
using testing::TempDir;
using testing::TestTensor;
using testing::whole_shards;

std::vector<TestTensor> small_model(uint64_t seed) {
  std::vector<TestTensor> model;
  model.emplace_back("embed.weight", kBf16, shape_of({1000, 256}), seed + 1);
  model.emplace_back("layer.0.weight", kF32, shape_of({512, 700}), seed + 2);
  model.emplace_back("layer.0.norm", kF32, shape_of({512}), seed + 3);
  model.emplace_back("step", kI64, shape_of({}), seed + 4);
  model.emplace_back("empty", kF32, shape_of({0, 7}), seed + 5);
  return model;
}

class StoreTest : public ::testing::Test {
 protected:
  std::unique_ptr<Store> open(const StoreOptions& options = {}) {
    auto store = Store::open(dir_ / "store", options);
    EXPECT_TRUE(store.ok()) << store.status().to_string();
    return store.ok() ? std::move(store).value() : nullptr;
  }

  static Result<SaveReport> save(Store& store, const std::string& name,
                                 const std::vector<TestTensor>& model,
                                 const SaveOptions& options = {}) {
    const std::vector<TensorShard> shards = whole_shards(model);
    CAISSON_ASSIGN_OR_RETURN(
        PendingSave pending,
        store.save(name, {.tensors = shards, .blobs = {}, .aliases = {}}, options));
    CAISSON_RETURN_IF_ERROR(pending.wait());
    return pending.report();
  }

  static void expect_holds(Store& store, const std::string& name,
                           const std::vector<TestTensor>& model) {
    std::vector<std::vector<std::byte>> found;
    std::vector<TensorTarget> targets;
    for (const TestTensor& tensor : model) {
      found.emplace_back(tensor.bytes.size());
      targets.push_back({.name = tensor.spec.name,
                         .box = Box::whole(tensor.spec.shape),
                         .data = found.back().data(),
                         .strides_bytes = {}});
    }
    const Status restored = store.restore(name, targets);
    ASSERT_TRUE(restored.ok()) << restored.to_string();
    for (size_t i = 0; i < model.size(); ++i) {
      EXPECT_EQ(found[i], model[i].bytes) << model[i].spec.name;
    }
  }

  TempDir dir_;
};

TEST_F(StoreTest, SavesAndRestoresAfterReopening) {
  const auto model = small_model(1);
  {
    auto store = open();
    const auto report = save(*store, "run/7", model);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_EQ(report->name, "run/7");
    EXPECT_EQ(report->tensors, model.size());
    EXPECT_EQ(report->deduplicated_bytes, 0u);
    EXPECT_EQ(report->warning, "");
  }
  auto store = open();
  expect_holds(*store, "run/7", model);
  expect_holds(*store, "run/latest", model);

  const auto info = store->info("run/latest");
  ASSERT_TRUE(info.ok()) << info.status().to_string();
  EXPECT_EQ(info->name, "run/7");
  EXPECT_TRUE(info->latest);
  EXPECT_EQ(info->tensors, model.size());
  EXPECT_EQ(info->ranks, 1u);
  uint64_t bytes = 0;
  for (const TestTensor& tensor : model) bytes += tensor.bytes.size();
  EXPECT_EQ(info->raw_bytes, bytes);

  const auto tensors = store->tensors("run/7", "layer.*");
  ASSERT_TRUE(tensors.ok());
  ASSERT_EQ(tensors->size(), 2u);
  EXPECT_EQ(tensors->front().spec.name, "layer.0.norm");
  EXPECT_EQ(tensors->back().spec, model[1].spec);
}

TEST_F(StoreTest, KeepsBlobsAliasesAndMetadata) {
  const TestTensor tied("embed", kF32, shape_of({64, 64}), 3);
  const auto tokenizer = testing::random_bytes(100'000, 4);
  const std::vector<TensorShard> shards{tied.whole()};
  const std::vector<BlobView> blobs{{.name = "tokenizer.json", .bytes = tokenizer},
                                    {.name = "nothing", .bytes = {}}};
  const std::vector<Alias> aliases{{.name = "lm_head", .target = "embed"}};
  auto store = open();
  auto pending = store->save("a/b/1", {.tensors = shards, .blobs = blobs, .aliases = aliases},
                             {.metadata_json = R"({"loss": 2.5})"});
  ASSERT_TRUE(pending.ok()) << pending.status().to_string();
  ASSERT_TRUE(pending->wait().ok()) << pending->wait().to_string();
  EXPECT_EQ(store->read_blob("a/b/1", "tokenizer.json").value(), tokenizer);
  EXPECT_TRUE(store->read_blob("a/b/1", "nothing").value().empty());
  EXPECT_EQ(store->info("a/b/1")->metadata_json, R"({"loss": 2.5})");
  const auto head = store->tensors("a/b/1", "lm_head");
  ASSERT_EQ(head->size(), 1u);
  EXPECT_EQ(head->front().alias_of, "embed");
  EXPECT_EQ(head->front().spec.shape, tied.spec.shape);
  std::vector<std::byte> found(tied.bytes.size());
  const std::vector<TensorTarget> targets{{.name = "lm_head",
                                           .box = Box::whole(tied.spec.shape),
                                           .data = found.data(),
                                           .strides_bytes = {}}};
  ASSERT_TRUE(store->restore("a/b/1", targets).ok());
  EXPECT_EQ(found, tied.bytes);
}

TEST_F(StoreTest, ASecondSaveOfTheSameTensorsWritesNoPayload) {
  const std::vector<TestTensor> model{{"w", kF32, shape_of({2000, 1000}), 1},
                                      {"v", kBf16, shape_of({999, 1001}), 2}};
  auto store = open();
  const auto first = save(*store, "run/1", model);
  ASSERT_TRUE(first.ok()) << first.status().to_string();
  EXPECT_EQ(first->stored_bytes, first->raw_bytes);
  const auto second = save(*store, "run/2", model);
  ASSERT_TRUE(second.ok()) << second.status().to_string();
  EXPECT_EQ(second->stored_bytes, 0u);
  EXPECT_EQ(second->deduplicated_bytes, second->raw_bytes);
  expect_holds(*store, "run/2", model);

  // The third compares with chunks that the second refers to in the first one's packs.
  ASSERT_TRUE(store->remove("run/1").ok());
  auto changed = model;
  changed[1].bytes[5] ^= std::byte{1};
  const auto third = save(*store, "run/3", changed);
  ASSERT_TRUE(third.ok());
  EXPECT_EQ(third->deduplicated_bytes + third->stored_bytes, third->raw_bytes);
  EXPECT_GE(third->deduplicated_bytes, model[0].bytes.size());
  EXPECT_LE(third->stored_bytes, model[1].bytes.size());
  EXPECT_GT(third->stored_bytes, 0u);
  expect_holds(*store, "run/3", changed);
  expect_holds(*store, "run/2", model);

  const auto without = save(*store, "run/4", changed, {.dedup = false});
  ASSERT_TRUE(without.ok());
  EXPECT_EQ(without->stored_bytes, without->raw_bytes);
  const auto fork = save(*store, "fork/1", model, {.base = "run/2"});
  ASSERT_TRUE(fork.ok());
  EXPECT_EQ(fork->stored_bytes, 0u);
}

TEST_F(StoreTest, EqualTensorsOfOneSaveAreStoredOnce) {
  std::vector<TestTensor> model{{"a", kF32, shape_of({512, 512}), 1},
                                {"b", kF32, shape_of({512, 512}), 1}};
  auto store = open();
  const auto report = save(*store, "run/1", model);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->stored_bytes, model[0].bytes.size());
  expect_holds(*store, "run/1", model);
}

// 8 rows of tiles, 4 side by side in each: what one sweep took is compared and stored one by one.
TEST_F(StoreTest, TilesSideBySideAreStoredOnceEach) {
  constexpr size_t kRows = 256, kRowBytes = 16384 * 2, kTileRowBytes = kRowBytes / 4;
  constexpr uint64_t kTileBytes = kRows / 8 * kTileRowBytes;
  TestTensor w("w", kBf16, shape_of({kRows, 16384}), 1);
  for (size_t row = 0; row < kRows / 8; ++row) {  // in the first row of tiles, 0 and 1 are equal
    const auto begin = w.bytes.begin() + static_cast<long>(row * kRowBytes);
    std::copy_n(begin, kTileRowBytes, begin + kTileRowBytes);
  }
  auto store = open();
  const SaveOptions raw{.codec = "raw"};
  const auto first = save(*store, "run/1", {w}, raw);
  ASSERT_TRUE(first.ok()) << first.status().to_string();
  EXPECT_EQ(first->stored_bytes, w.bytes.size() - kTileBytes);
  expect_holds(*store, "run/1", {w});

  const auto tile_at = [&](size_t row, size_t column) -> std::byte& {
    return w.bytes[row * (kRows / 8) * kRowBytes + column * kTileRowBytes];
  };
  tile_at(2, 1) ^= std::byte{1};  // the second of its band
  tile_at(2, 3) ^= std::byte{1};
  tile_at(7, 3) ^= std::byte{1};
  const auto second = save(*store, "run/2", {w}, raw);
  ASSERT_TRUE(second.ok()) << second.status().to_string();
  EXPECT_EQ(second->stored_bytes, 3 * kTileBytes);
  expect_holds(*store, "run/2", {w});

  for (size_t row = 0; row < 8; ++row) tile_at(row, row % 4) ^= std::byte{2};
  const auto third = save(*store, "run/3", {w}, {.codec = "raw", .workers = 3});
  ASSERT_TRUE(third.ok()) << third.status().to_string();
  EXPECT_EQ(third->stored_bytes, 8 * kTileBytes);
  expect_holds(*store, "run/3", {w});
}

TEST_F(StoreTest, ManyWorkersGiveTheSameContent) {
  std::vector<TestTensor> model;
  for (uint64_t i = 0; i < 40; ++i) {
    model.emplace_back("t" + std::to_string(i), kF32, shape_of({100 + 37 * i, 300}), i);
  }
  auto store = open({.memory_bytes_max = 64u << 20});
  const auto report = save(*store, "run/1", model, {.workers = 4});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  expect_holds(*store, "run/1", model);
  const auto again = save(*store, "run/2", model, {.workers = 3});
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  EXPECT_EQ(again->stored_bytes, 0u);
}

TEST_F(StoreTest, EncodesWhatGetsSmaller) {
  TestTensor counts("counts", kI64, shape_of({300'000}), 1);
  for (size_t i = 0; i < counts.bytes.size(); ++i)
    counts.bytes[i] = std::byte(i % 8 == 0 ? i / 64 : 0);
  auto store = open();
  for (const char* codec : {"auto", "zstd"}) {
    const auto report = save(*store, std::string(codec) + "/1", {counts}, {.codec = codec});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_LT(report->stored_bytes, report->raw_bytes / 2);
    expect_holds(*store, std::string(codec) + "/1", {counts});
  }
  const auto raw = save(*store, "raw/1", {counts}, {.codec = "raw"});
  ASSERT_TRUE(raw.ok());
  EXPECT_EQ(raw->stored_bytes, raw->raw_bytes);
  EXPECT_EQ(save(*store, "x/1", {counts}, {.codec = "lzma"}).status().code(),
            StatusCode::kInvalidArgument);
}

TEST_F(StoreTest, StagedTensorsMayChangeAtOnce) {
  std::vector<TestTensor> model{{"w", kF32, shape_of({1000, 1000}), 1}};
  // Columns of a larger matrix: staging packs them.
  const TestTensor wide("wide", kF32, shape_of({300, 64}), 2);
  TensorShard columns = wide.whole();
  columns.tensor.name = "columns";
  columns.tensor.shape = shape_of({300, 16});
  columns.box = Box::whole(columns.tensor.shape);
  columns.strides_bytes = {64 * 4, 4};
  const auto before = model;
  auto store = open();
  const std::vector<TensorShard> shards{model[0].whole(), columns};
  auto pending =
      store->save("run/1", {.tensors = shards, .blobs = {}, .aliases = {}}, {.stage = true});
  ASSERT_TRUE(pending.ok()) << pending.status().to_string();
  std::ranges::fill(model[0].bytes, std::byte{0});
  ASSERT_TRUE(pending->wait().ok()) << pending->wait().to_string();
  expect_holds(*store, "run/1", before);
  std::vector<std::byte> found(300 * 16 * 4);
  const std::vector<TensorTarget> targets{
      {.name = "columns", .box = columns.box, .data = found.data(), .strides_bytes = {}}};
  ASSERT_TRUE(store->restore("run/1", targets).ok());
  for (size_t row = 0; row < 300; ++row) {
    EXPECT_EQ(std::memcmp(&found[row * 64], &wide.bytes[row * 256], 64), 0) << "row " << row;
  }
}

// The memory of a staged save serves the next one, also where that takes less of it, and more.
TEST_F(StoreTest, StagedSavesFollowEachOther) {
  auto store = open();
  uint64_t step = 0;
  for (const uint64_t rows : {700, 300, 1500, 700}) {
    std::vector<TestTensor> model{{"w", kF32, shape_of({rows, 1000}), ++step}};
    const auto before = model;
    const std::vector<TensorShard> shards = whole_shards(model);
    const std::string name = "run/" + std::to_string(step);
    auto pending = store->save(name, {.tensors = shards, .blobs = {}, .aliases = {}},
                               {.codec = "raw", .stage = true});
    ASSERT_TRUE(pending.ok()) << pending.status().to_string();
    std::ranges::fill(model[0].bytes, std::byte{0});
    ASSERT_TRUE(pending->wait().ok()) << pending->wait().to_string();
    expect_holds(*store, name, before);
  }
}

TEST_F(StoreTest, TakenNamesAreRefusedOrReplaced) {
  const auto model = small_model(1), other = small_model(100);
  auto store = open();
  ASSERT_TRUE(save(*store, "run/1", model).ok());
  EXPECT_EQ(save(*store, "run/1", other).status().code(), StatusCode::kAlreadyExists);
  expect_holds(*store, "run/1", model);
  const auto replaced = save(*store, "run/1", other, {.overwrite = true});
  ASSERT_TRUE(replaced.ok()) << replaced.status().to_string();
  expect_holds(*store, "run/1", other);
  EXPECT_EQ(store->checkpoints()->size(), 1u);
}

TEST_F(StoreTest, LatestIsTheNewestThatIsLeft) {
  auto store = open();
  const auto one = small_model(1), two = small_model(2);
  ASSERT_TRUE(save(*store, "run/10", one).ok());
  ASSERT_TRUE(save(*store, "run/20", two).ok());
  EXPECT_EQ(store->info("run/latest")->name, "run/20");
  ASSERT_TRUE(store->remove("run/20").ok());
  EXPECT_EQ(store->info("run/latest")->name, "run/10");
  EXPECT_EQ(store->info("run/20").status().code(), StatusCode::kNotFound);
  EXPECT_EQ(store->remove("run/20").code(), StatusCode::kNotFound);
  EXPECT_EQ(store->info("nobody/latest").status().code(), StatusCode::kNotFound);
}

TEST_F(StoreTest, ACancelledSaveLeavesNothing) {
  auto store = open();
  const auto model = small_model(1);
  std::stop_source stop;
  stop.request_stop();
  const auto report = save(*store, "run/1", model, {.stop = stop.get_token()});
  EXPECT_EQ(report.status().code(), StatusCode::kCancelled) << report.status().to_string();
  EXPECT_TRUE(store->checkpoints()->empty());
  EXPECT_TRUE(save(*store, "run/1", model).ok());
  expect_holds(*store, "run/1", model);
}

TEST_F(StoreTest, CancelWhileItRunsEndsIt) {
  auto store = open();
  const std::vector<TestTensor> model{{"w", kF32, shape_of({4000, 1000}), 1}};
  const auto shards = whole_shards(model);
  PendingSave* running = nullptr;
  std::stop_source stop;
  SaveOptions options;
  options.stop = stop.get_token();
  options.progress = [&](const Progress&) { stop.request_stop(); };  // after the first batch
  auto pending = store->save("run/1", {.tensors = shards, .blobs = {}, .aliases = {}}, options);
  ASSERT_TRUE(pending.ok());
  running = &*pending;
  EXPECT_EQ(running->wait().code(), StatusCode::kCancelled) << running->wait().to_string();
  EXPECT_TRUE(store->checkpoints()->empty());
}

TEST_F(StoreTest, AnErrorThatNobodySawComesBackOnTheNextCall) {
  auto store = open();
  const TestTensor tensor("w", kF32, shape_of({10}), 1);
  TensorShard outside = tensor.whole();
  outside.box.extent[0] = 11;
  {
    const std::vector<TensorShard> shards{outside};
    auto pending = store->save("run/1", {.tensors = shards, .blobs = {}, .aliases = {}});
    ASSERT_TRUE(pending.ok()) << pending.status().to_string();
  }  // waited for, not asked
  const auto next = save(*store, "run/2", {tensor});
  EXPECT_EQ(next.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(next.status().to_string().find("\"w\""), std::string::npos)
      << next.status().to_string();
  EXPECT_TRUE(save(*store, "run/2", {tensor}).ok());
}

TEST_F(StoreTest, TheSaveBeforeAClaimIsFenced) {
  const auto model = small_model(1);
  auto first = open(), second = open();
  ASSERT_TRUE(save(*first, "run/1", model).ok());
  const auto ticket = first->begin_save("run/2");
  ASSERT_TRUE(ticket.ok());
  ASSERT_TRUE(save(*second, "run/2", model).ok());  // claims the run
  const auto late = save(*first, "run/3", model);
  EXPECT_EQ(late.status().code(), StatusCode::kFenced) << late.status().to_string();
  EXPECT_EQ(first->join_save(*ticket, 0).status().code(), StatusCode::kFenced);
  // Until it takes the run back.
  ASSERT_TRUE(first->claim("run").ok());
  EXPECT_TRUE(save(*first, "run/3", model).ok());
  EXPECT_EQ(save(*second, "run/4", model).status().code(), StatusCode::kFenced);
}

TEST_F(StoreTest, AClaimFromAnOlderCheckpointRollsTheLaterBack) {
  auto store = open();
  const auto one = small_model(1), two = small_model(2), three = small_model(3);
  ASSERT_TRUE(save(*store, "run/1", one).ok());
  ASSERT_TRUE(save(*store, "run/2", two).ok());
  ASSERT_TRUE(store->claim("run", "run/1").ok());
  EXPECT_EQ(store->info("run/latest")->name, "run/1");
  EXPECT_TRUE(store->info("run/2")->rolled_back);
  ASSERT_TRUE(save(*store, "run/2", three, {.overwrite = true}).ok());
  EXPECT_EQ(store->info("run/latest")->name, "run/2");
  expect_holds(*store, "run/2", three);
}

// The step that was gone back behind may be saved again without being asked to overwrite.
TEST_F(StoreTest, ARolledBackStepMayBeSavedAgain) {
  auto store = open();
  const auto one = small_model(1), two = small_model(2), three = small_model(3);
  ASSERT_TRUE(save(*store, "run/1", one).ok());
  ASSERT_TRUE(save(*store, "run/2", two).ok());
  ASSERT_TRUE(store->claim("run", "run/1").ok());
  expect_holds(*store, "run/2", two);
  const auto again = save(*store, "run/2", three);
  ASSERT_TRUE(again.ok()) << again.status().to_string();
  expect_holds(*store, "run/2", three);
  EXPECT_EQ(store->info("run/latest")->name, "run/2");
  EXPECT_FALSE(store->info("run/2")->rolled_back);
  EXPECT_EQ(store->checkpoints()->size(), 2u);
  EXPECT_EQ(save(*store, "run/2", two).status().code(), StatusCode::kAlreadyExists);
}

TEST_F(StoreTest, APinnedNameMeansOneCommitOrNone) {
  auto store = open();
  const auto one = small_model(1), two = small_model(2);
  ASSERT_TRUE(save(*store, "run/1", one).ok());
  const std::string pinned = "run/1@" + std::to_string(store->info("run/1")->commit_seq);
  expect_holds(*store, pinned, one);
  ASSERT_TRUE(save(*store, "run/1", two, {.overwrite = true}).ok());
  const auto gone = store->info(pinned);
  EXPECT_EQ(gone.status().code(), StatusCode::kFenced) << gone.status().to_string();
  EXPECT_NE(gone.status().message().find("caisson ls"), std::string::npos);
  EXPECT_EQ(store->remove(pinned).code(), StatusCode::kFenced)
      << "it is not the one that was meant";
  expect_holds(*store, "run/1", two);
  for (const char* bad : {"run/1@", "run/1@x", "run/1@03", "run/latest@3", "run/@3"}) {
    EXPECT_EQ(store->info(bad).status().code(), StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(save(*store, "run/9@3", one).status().code(), StatusCode::kInvalidArgument);
}

// Packs of an earlier checkpoint that the new one would share: looked for before the commit, or the
// loss would be inherited unseen.
TEST_F(StoreTest, ACommitLooksForThePacksThatItShares) {
  const std::vector<TestTensor> model{{"w", kF32, shape_of({500, 500}), 1}};
  const auto shards = whole_shards(model);
  for (const bool cut : {false, true}) {
    const std::string run = cut ? "cut/" : "lost/";
    auto store = open();
    ASSERT_TRUE(save(*store, run + "1", model, {.dedup = false}).ok());
    const auto ticket = store->begin_save(run + "2");
    ASSERT_TRUE(ticket.ok()) << ticket.status().to_string();
    const auto rank = store->join_save(*ticket, 0);
    ASSERT_TRUE(rank.ok()) << rank.status().to_string();
    ASSERT_TRUE((*rank)->put({.tensors = shards, .blobs = {}, .aliases = {}}).ok());
    const auto part = (*rank)->seal();
    ASSERT_TRUE(part.ok()) << part.status().to_string();
    ASSERT_EQ((*rank)->report().stored_bytes, 0u);
    std::string pack;
    for (const auto& file : std::filesystem::recursive_directory_iterator(dir_ / "store/data")) {
      if (file.path().extension() != ".pack" || file.file_size() == 1) continue;
      pack = file.path().filename().string();
      if (cut) {
        std::filesystem::resize_file(file.path(), 1);
      } else {
        std::filesystem::remove(file.path());
        break;
      }
    }
    ASSERT_NE(pack, "");
    const auto committed = store->commit_save(*ticket, 1, {&*part, 1});
    EXPECT_EQ(committed.status().code(), StatusCode::kCorruption) << committed.status().to_string();
    EXPECT_NE(committed.status().message().find(".pack"), std::string::npos)
        << committed.status().to_string();
    EXPECT_EQ(store->info(run + "2").status().code(), StatusCode::kNotFound);
    // As the message says.
    EXPECT_TRUE(save(*store, run + "2", model, {.dedup = false}).ok());
    expect_holds(*store, run + "2", model);
  }
}

// Packed elements of less than a byte have no strides; a copy would hide that they were not packed.
TEST_F(StoreTest, StridedElementsOfLessThanAByteAreRefused) {
  constexpr DType kF4{DTypeCode::kFloat4E2M1FN, 4};
  const TestTensor tensor("w", kF4, shape_of({8, 16}), 1);
  TensorShard strided = tensor.whole();
  strided.box.extent[0] = 4;
  strided.strides_bytes = {16, 1};
  auto store = open();
  for (const bool stage : {true, false}) {
    auto pending = store->save("run/1", {.tensors = {&strided, 1}, .blobs = {}, .aliases = {}},
                               {.stage = stage});
    const Status status = pending.ok() ? pending->wait() : pending.status();
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.to_string();
    EXPECT_NE(status.message().find("contiguous"), std::string::npos) << status.to_string();
    EXPECT_NE(status.message().find("\"w\""), std::string::npos) << status.to_string();
    EXPECT_EQ(pending.ok(), !stage) << "staging refuses before anything is begun";
  }
  EXPECT_TRUE(save(*store, "run/1", {tensor}, {.stage = true}).ok());
  expect_holds(*store, "run/1", {tensor});
}

TEST_F(StoreTest, MetadataMustBeAnObject) {
  auto store = open();
  const auto model = small_model(1);
  for (const char* bad : {"", "[1]", "{\"a\":", "3", "{} x"}) {
    EXPECT_EQ(save(*store, "run/1", model, {.metadata_json = bad}).status().code(),
              StatusCode::kInvalidArgument)
        << bad;
  }
}

TEST_F(StoreTest, BadNamesAreRefused) {
  auto store = open();
  const auto model = small_model(1);
  for (const char* bad : {"run", "/1", "run/", "run/latest", "run/-1", "run/01", "run//1", "a\n/1",
                          "run/99999999999999999999"}) {
    EXPECT_EQ(save(*store, bad, model).status().code(), StatusCode::kInvalidArgument) << bad;
  }
}

TEST_F(StoreTest, DirectoriesOfOthersAreRefused) {
  std::ofstream(dir_ / "notes.txt") << "mine";
  EXPECT_EQ(Store::open(dir_.path()).status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(Store::open("s3://bucket/x").status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(Store::open(dir_ / "absent", {.create = false}).status().code(), StatusCode::kNotFound);
  const auto by_url = Store::open("file://" + dir_.path() + "/new");
  EXPECT_TRUE(by_url.ok()) << by_url.status().to_string();
}

TEST_F(StoreTest, AStoreMayLieBesideFilesOfOthersButNotOverALostStore) {
  const StoreOptions beside{.create_beside_files = true};
  std::ofstream(dir_ / "meta.pt") << "theirs";
  {
    auto store = Store::open(dir_.path(), beside);
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    ASSERT_TRUE(save(**store, "run/1", small_model(1)).ok());
  }
  EXPECT_TRUE(Store::open(dir_.path()).ok());  // a store like any other
  ASSERT_TRUE(std::filesystem::remove(dir_ / "caisson.store"));
  EXPECT_EQ(Store::open(dir_.path(), beside).status().code(), StatusCode::kInvalidArgument);
}

// A target where a second creation of an object goes through, as where conditional requests are
// ignored: nobody may write there, not even the first.
TEST_F(StoreTest, ATargetThatCreatesTwiceTakesNoSaves) {
  auto objects = std::make_unique<MemoryObjectStore>();
  objects->set_hook([memory = objects.get()](std::string_view operation, std::string_view key) {
    if (operation == "put" && memory->has(key)) {
      EXPECT_TRUE(memory->remove(key).ok());
    }
    return MemoryObjectStore::Fault::kNone;
  });
  const MemoryObjectStore& seen = *objects;
  const auto store =
      open_store(std::move(objects), system_uuids(), system_clock(), {.create = true}).value();
  EXPECT_EQ(save(*store, "run/1", small_model(1)).status().code(), StatusCode::kUnsupported);
  EXPECT_EQ(store->claim("run").code(), StatusCode::kUnsupported);
  EXPECT_EQ(seen.keys("log/"), std::vector<std::string>{});
}

TEST_F(StoreTest, AForkedChildIsTold) {
  auto store = open();
  const auto model = small_model(1);
  ASSERT_TRUE(save(*store, "run/1", model).ok());
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const bool told = store->info("run/1").status().code() == StatusCode::kInvalidArgument &&
                      save(*store, "run/2", model).status().code() == StatusCode::kInvalidArgument;
    store.reset();  // must not wait for a thread that is not here
    ::_exit(told ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  expect_holds(*store, "run/1", model);
}

TEST_F(StoreTest, ADamagedParentCostsSpaceNotTheSave) {
  const std::vector<TestTensor> model{{"w", kF32, shape_of({500, 500}), 1}};
  auto store = open();
  ASSERT_TRUE(save(*store, "run/1", model).ok());
  // The root of run/1, overwritten: the Store that wrote it has its manifest open, a new one reads.
  for (const auto& file : std::filesystem::recursive_directory_iterator(dir_ / "store/data")) {
    if (file.path().extension() != ".root") continue;
    std::filesystem::permissions(file.path(), std::filesystem::perms::owner_all);
    std::ofstream(file.path(), std::ios::binary | std::ios::trunc) << "gone";
  }
  auto other = open();
  const auto report = save(*other, "run/2", model);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->stored_bytes, report->raw_bytes);
  EXPECT_NE(report->warning, "");
  expect_holds(*other, "run/2", model);
  const auto listed = other->checkpoints();
  ASSERT_TRUE(listed.ok());
  ASSERT_EQ(listed->size(), 2u);
  EXPECT_NE(listed->at(0).problem, "");
  EXPECT_EQ(listed->at(1).problem, "");
}

}  // namespace
}  // namespace caisson

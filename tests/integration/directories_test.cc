// A store that spans several directories, through its public API: where packs go, and what happens
// when a directory is moved, exchanged, missing, strange, full, or was not made in the end.
#include "engine/format/directories.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "client/open_objects.h"
#include "client/open_store.h"
#include "engine/format/root.h"
#include "engine/gc.h"
#include "engine/scrub.h"
#include "io/object_dir.h"
#include "io/posix_file_system.h"
#include "tests/support/seeded.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;
using testing::kF32;
using testing::shape_of;
using testing::TempDir;
using testing::TestTensor;
using testing::whole_shards;

std::vector<TestTensor> model(uint64_t seed) {
  std::vector<TestTensor> tensors;
  for (uint64_t i = 0; i < 40; ++i) {
    tensors.emplace_back("layer." + std::to_string(i), kF32, shape_of({256, 1024}), seed + i);
  }
  return tensors;
}

Status save(Store& store, const std::string& name, const std::vector<TestTensor>& tensors) {
  const std::vector<TensorShard> shards = whole_shards(tensors);
  CAISSON_ASSIGN_OR_RETURN(PendingSave pending, store.save(name, {.tensors = shards}));
  return pending.wait();
}

Status check_holds(Store& store, const std::string& name, const std::vector<TestTensor>& tensors) {
  std::vector<std::vector<std::byte>> found;
  std::vector<TensorTarget> targets;
  for (const TestTensor& tensor : tensors) {
    found.emplace_back(tensor.bytes.size());
    targets.push_back({.name = tensor.spec.name,
                       .box = Box::whole(tensor.spec.shape),
                       .data = found.back().data(),
                       .strides_bytes = {}});
  }
  CAISSON_RETURN_IF_ERROR(store.restore(name, targets));
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (found[i] != tensors[i].bytes) return corruption(tensors[i].spec.name + " differs");
  }
  return ok_status();
}

std::set<std::string> extensions_below(const std::string& path) {
  std::set<std::string> found;
  if (!fs::exists(path + "/data")) return found;
  for (const auto& entry : fs::recursive_directory_iterator(path + "/data")) {
    if (entry.is_regular_file()) found.insert(entry.path().extension());
  }
  return found;
}

class Directories : public ::testing::Test {
 protected:
  Directories() {
    auto store = Store::open(url());
    EXPECT_TRUE(store.ok()) << store.status().to_string();
    EXPECT_TRUE(save(**store, "run/1", model(1)).ok());
    // Which directories a small save reaches depends on chance: its uuid, and which worker is
    // first.
    for (uint64_t step = 2; step < 100 && !all_have_packs(); ++step) {
      EXPECT_TRUE(save(**store, "run/" + std::to_string(step), model(100 * step)).ok());
    }
  }
  bool all_have_packs() const {
    return std::ranges::all_of(std::array{a_, b_, c_}, [](const std::string& directory) {
      return extensions_below(directory).contains(".pack");
    });
  }
  std::string url() const { return a_ + "?dirs=" + b_ + "," + c_; }
  static StatusCode code_of(const std::string& url) { return Store::open(url).status().code(); }

  TempDir dir_;
  const std::string a_ = dir_ / "a", b_ = dir_ / "b", c_ = dir_ / "c";
};

TEST_F(Directories, PacksGoRoundAndTheRestStaysInTheFirst) {
  EXPECT_TRUE(all_have_packs());
  EXPECT_TRUE(extensions_below(a_).contains(".root"));
  EXPECT_TRUE(extensions_below(a_).contains(".part"));
  EXPECT_TRUE(fs::exists(a_ + "/log"));
  for (const std::string& further : {b_, c_}) {
    EXPECT_EQ(extensions_below(further), std::set<std::string>{".pack"}) << further;
    EXPECT_FALSE(fs::exists(further + "/log"));
  }
  const auto store = Store::open(a_).value();  // which knows the others
  EXPECT_TRUE(check_holds(*store, "run/1", model(1)).ok());
  ASSERT_TRUE(save(*store, "run/1000", model(1)).ok());
  EXPECT_TRUE(check_holds(*store, "run/latest", model(1)).ok());
}

TEST_F(Directories, AreKnownByTheirMarkersWhereverTheyAre) {
  EXPECT_TRUE(Store::open(a_ + "?dirs=" + c_ + "," + b_).ok());  // in another order
  fs::rename(b_, dir_ / "x");
  fs::rename(c_, b_);
  fs::rename(dir_ / "x", c_);  // exchanged
  auto store = Store::open(a_);
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  EXPECT_TRUE(check_holds(**store, "run/1", model(1)).ok());
  fs::rename(b_, dir_ / "moved");
  const Status missing = Store::open(a_).status();
  EXPECT_EQ(missing.code(), StatusCode::kNotFound);
  EXPECT_NE(missing.message().find(b_), std::string::npos) << missing.to_string();
  EXPECT_FALSE(fs::exists(b_)) << "an opening made it";
  store = Store::open(a_ + "?dirs=" + c_ + "," + (dir_ / "moved"));
  ASSERT_TRUE(store.ok()) << store.status().to_string();
  EXPECT_TRUE(check_holds(**store, "run/1", model(1)).ok());
}

TEST_F(Directories, ThatAreNotTheStoresAreRefused) {
  fs::rename(b_, dir_ / "away");
  fs::create_directory(b_);  // as an unmounted disk leaves it
  EXPECT_EQ(code_of(a_), StatusCode::kNotFound);
  EXPECT_EQ(code_of(url()), StatusCode::kNotFound);
  EXPECT_TRUE(fs::is_empty(b_));
  fs::remove(b_);
  fs::rename(dir_ / "away", b_);

  ASSERT_TRUE(Store::open((dir_ / "other") + "?dirs=" + (dir_ / "p") + "," + (dir_ / "q")).ok());
  EXPECT_EQ(code_of(a_ + "?dirs=" + b_ + "," + (dir_ / "q")), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(a_ + "?dirs=" + b_), StatusCode::kInvalidArgument);
  fs::copy(b_, dir_ / "copy", fs::copy_options::recursive);
  EXPECT_EQ(code_of(a_ + "?dirs=" + b_ + "," + (dir_ / "copy")), StatusCode::kInvalidArgument);
  // A new store with a directory of this one; then nothing of this one is harmed.
  EXPECT_EQ(code_of((dir_ / "new") + "?dirs=" + b_), StatusCode::kInvalidArgument);
  ASSERT_TRUE(Store::open(dir_ / "plain").ok());
  EXPECT_EQ(code_of((dir_ / "plain") + "?dirs=" + b_), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(a_ + "?dirs=" + a_), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(a_ + "?dirs=" + b_ + "," + b_), StatusCode::kInvalidArgument);
  EXPECT_EQ(code_of(a_ + "?dirs="), StatusCode::kInvalidArgument);
  EXPECT_TRUE(check_holds(*Store::open(a_).value(), "run/1", model(1)).ok());
}

TEST_F(Directories, ABuildThatDoesNotKnowTheFeatureRefuses) {
  const std::shared_ptr<FileSystem> files = make_posix_file_system("auto").value();
  const auto first = make_object_dir(files, a_, system_uuids());
  ByteVector bytes = first->get(format::kStoreKey, 4096).value();
  constexpr size_t kIncompatibleAt = 20;  // docs/format.md, "Envelope"
  EXPECT_EQ(load_le<uint32_t>(bytes.data() + kIncompatibleAt), 1u);
}

TEST_F(Directories, GarbageIsCollectedAndContentVerifiedInAll) {
  const std::shared_ptr<FileSystem> files = make_posix_file_system("auto").value();
  const auto objects =
      open_objects(files, parse_store_url(a_).value(), system_uuids(), system_clock(), false)
          .value();
  const auto log = Log::open(*objects, system_uuids(), this_process()).value();
  MemoryBudget budget(64 << 20);
  Scrubber scrubber(*objects, budget, {.depth = ScrubDepth::kFull});
  const auto store = Store::open(a_).value();
  for (const auto& [seq, checkpoint] : log->state()->checkpoints()) {
    EXPECT_TRUE(scrubber.check_checkpoint(checkpoint.name(), checkpoint.root).ok());
    ASSERT_TRUE(store->remove(checkpoint.name()).ok());
  }
  EXPECT_TRUE(scrubber.find_orphans({}).ok());
  EXPECT_TRUE(scrubber.report().findings.empty());
  ASSERT_TRUE(log->refresh().ok());
  ASSERT_TRUE(run_gc(*objects, *log).ok());
  for (const std::string& directory : {a_, b_, c_}) {
    EXPECT_FALSE(fs::exists(directory + "/data") && !fs::is_empty(directory + "/data"))
        << directory;
  }
}

TEST(DirectoriesOnSim, AMakingThatFailsAnywhereCanBeRepeated) {
  const StoreUrl url{.root = "/1/store", .directories = {"/2/store", "/3/store"}};
  for (uint64_t fails = 0;; ++fails) {
    const auto files = std::make_shared<sim::SimFileSystem>();
    for (const char* disk : {"/1", "/2", "/3"}) ASSERT_TRUE(files->create_directory(disk).ok());
    const uint64_t before = files->calls();
    files->set_fault_hook([&](const sim::Call& call) -> sim::Outcome {
      return {call.index == before + fails ? io_error("fault") : ok_status(), false};
    });
    SeededUuids uuids(fails + 1);
    const auto open = [&] {
      // A process of its own each time: after a failed sync of a directory one takes no more.
      return open_objects(files, url, uuids, system_clock(), true).status();
    };
    const Status first = open();
    const bool reached = files->calls() > before + fails;
    files->set_fault_hook({});
    const Status second = open();
    EXPECT_TRUE(second.ok()) << "after a fault at call " << fails << ", " << first.to_string()
                             << ": " << second.to_string();
    EXPECT_TRUE(
        open_objects(files, {.root = url.root, .directories = {}}, uuids, system_clock(), false)
            .ok());
    if (!reached) {
      EXPECT_GT(fails, 20u) << "that is no making";
      break;
    }
  }
}

TEST(DirectoriesOnSim, AFullOneFailsTheSaveByNameAndNothingElse) {
  const auto files = std::make_shared<sim::SimFileSystem>();
  for (const char* disk : {"/1", "/2"}) ASSERT_TRUE(files->create_directory(disk).ok());
  SeededUuids uuids(1);
  const auto open = [&] {
    return open_store(open_objects(files, {.root = "/1/store", .directories = {"/2/store"}}, uuids,
                                   system_clock(), true)
                          .value(),
                      uuids, system_clock(), {})
        .value();
  };
  auto store = open();
  ASSERT_TRUE(save(*store, "run/1", model(1)).ok());
  files->set_fault_hook([](const sim::Call& call) -> sim::Outcome {
    const bool full = call.kind == sim::CallKind::kAllocate && call.path.starts_with("/2/");
    return {full ? no_space(std::string(call.path)) : ok_status(), false};
  });
  Status failed;
  uint64_t step = 2;  // the save that reaches the second directory
  for (; step < 100 && failed.ok(); ++step) {
    failed = save(*store, "run/" + std::to_string(step), model(step));
  }
  EXPECT_EQ(failed.code(), StatusCode::kNoSpace);
  EXPECT_NE(failed.message().find("/2/store"), std::string::npos) << failed.to_string();
  EXPECT_TRUE(check_holds(*store, "run/latest", model(step - 2)).ok());
  files->set_fault_hook({});
  EXPECT_TRUE(save(*store, "run/1000", model(1000)).ok());
  EXPECT_TRUE(check_holds(*store, "run/latest", model(1000)).ok());
}

TEST(DirectoriesOnSim, WorkersOfASaveReachEveryDirectory) {
  std::set<uint32_t> reached;
  format::ObjectRef pack{.kind = format::ObjectKind::kPack, .save = {}, .writer = {}, .number = 0};
  for (pack.number = 0; pack.number < 5; ++pack.number) {
    reached.insert(format::directory_of(pack.key(), 5));
  }
  EXPECT_EQ(reached.size(), 5u);
  pack.kind = format::ObjectKind::kPart;
  EXPECT_EQ(format::directory_of(pack.key(), 5), 0u);
  EXPECT_EQ(format::directory_of("log/0000000000000001", 5), 0u);
}

}  // namespace
}  // namespace caisson

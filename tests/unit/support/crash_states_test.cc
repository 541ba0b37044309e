// What the simulated platform promises and what it takes back in a crash: if these fail, the crash
// tests prove nothing.
#include "tests/support/crash_states.h"

#include <gtest/gtest.h>

#include <set>

namespace caisson::sim {
namespace {

constexpr CrashLimits kThorough{.subset_max = 8, .torn = 200, .recent = 8, .samples = 64};

std::string text_of(const Image& image, const std::string& path) {
  const auto node = image.find(path);
  if (!node) return "(absent)";
  ByteVector bytes(image.size(*node));
  image.read(*node, 0, bytes);
  return std::string(as_text(bytes));
}

// Every disk that a crash at the end of the record may leave, as what `path` holds.
std::set<std::string> outcomes(const SimFileSystem& fs, const std::string& path) {
  CrashStates states(fs.base(), fs.history(), kThorough, 1);
  states.advance_to(states.prefixes() - 1);
  std::set<std::string> found;
  for (uint32_t v = 0; v < states.variants(); ++v) found.insert(text_of(states.build(v), path));
  return found;
}

std::unique_ptr<File> create(SimFileSystem& fs, const std::string& path) {
  auto file = fs.open(path, OpenMode::kCreateNew, Access::kBuffered);
  EXPECT_TRUE(file.ok()) << file.status().to_string();
  return std::move(file).value();
}

TEST(CrashStates, UnsyncedBytesSizeAndNameAreIndependent) {
  SimFileSystem fs;
  auto file = create(fs, "/a");
  ASSERT_TRUE(file->write_at(0, as_bytes("xy")).ok());
  using Set = std::set<std::string>;
  EXPECT_EQ(outcomes(fs, "/a"), (Set{"(absent)", "", "xy", std::string(2, '\0')}));
  ASSERT_TRUE(fs.sync_directory("/").ok());
  EXPECT_EQ(outcomes(fs, "/a"), (Set{"", "xy", std::string(2, '\0')}));
  ASSERT_TRUE(file->sync().ok());
  EXPECT_EQ(outcomes(fs, "/a"), (Set{"xy"}));
}

TEST(CrashStates, SyncOfTheFileDoesNotKeepItsName) {
  SimFileSystem fs;
  auto file = create(fs, "/a");
  ASSERT_TRUE(file->write_at(0, as_bytes("xy")).ok());
  ASSERT_TRUE(file->sync().ok());
  EXPECT_EQ(outcomes(fs, "/a"), (std::set<std::string>{"(absent)", "xy"}));
}

TEST(CrashStates, DirectoryItselfMayBeLostUntilItsParentIsSynced) {
  SimFileSystem fs;
  ASSERT_TRUE(fs.create_directory("/d").ok());
  auto file = create(fs, "/d/a");
  ASSERT_TRUE(fs.sync_directory("/d").ok());
  EXPECT_EQ(outcomes(fs, "/d/a"), (std::set<std::string>{"(absent)", ""}));
  ASSERT_TRUE(fs.sync_directory("/").ok());
  EXPECT_EQ(outcomes(fs, "/d/a"), (std::set<std::string>{""}));
}

TEST(CrashStates, WritesTearBySectorAndSometimesShowOldBytes) {
  SimFileSystem fs;
  auto old = create(fs, "/old");
  ASSERT_TRUE(old->write_at(0, as_bytes(std::string(2048, 'o'))).ok());
  ASSERT_TRUE(old->sync().ok());
  auto file = create(fs, "/a");
  ASSERT_TRUE(file->allocate(1024).ok());
  ASSERT_TRUE(file->sync().ok());
  ASSERT_TRUE(fs.sync_directory("/").ok());
  ASSERT_TRUE(file->write_at(0, as_bytes(std::string(1024, 'n'))).ok());
  std::set<std::string> sectors;
  for (const std::string& text : outcomes(fs, "/a")) {
    ASSERT_EQ(text.size(), 1024u);
    for (size_t at : {size_t{0}, size_t{512}}) {
      EXPECT_EQ(text.substr(at, 512), std::string(512, text[at]));
    }
    sectors.insert({text[0], text[512]});
  }
  const std::string zero_new{'\0', 'n'}, new_zero{'n', '\0'};
  for (const std::string& want : {zero_new, new_zero, std::string("on"), std::string("no")}) {
    EXPECT_TRUE(sectors.contains(want)) << "never seen: " << want;
  }
}

TEST(CrashStates, LinkThenUnlinkMayLoseBothNamesUntilSynced) {
  SimFileSystem fs;
  ASSERT_TRUE(fs.create_directory("/t").ok());
  ASSERT_TRUE(fs.sync_directory("/").ok());
  auto file = create(fs, "/t/a");
  ASSERT_TRUE(fs.sync_directory("/t").ok());
  ASSERT_TRUE(fs.link("/t/a", "/b").ok());
  ASSERT_TRUE(fs.remove_file("/t/a").ok());
  EXPECT_EQ(outcomes(fs, "/b"), (std::set<std::string>{"(absent)", ""}));
  EXPECT_EQ(outcomes(fs, "/t/a"), (std::set<std::string>{"(absent)", ""}));
  ASSERT_TRUE(fs.sync_directory("/").ok());
  EXPECT_EQ(outcomes(fs, "/b"), (std::set<std::string>{""}));
}

TEST(CrashStates, RenameIsNeverHalf) {
  SimFileSystem fs;
  auto first = create(fs, "/a");
  auto second = create(fs, "/b");
  ASSERT_TRUE(first->write_at(0, as_bytes("new")).ok());
  ASSERT_TRUE(second->write_at(0, as_bytes("old")).ok());
  ASSERT_TRUE(first->sync().ok() && second->sync().ok() && fs.sync_directory("/").ok());
  ASSERT_TRUE(fs.rename("/a", "/b").ok());
  EXPECT_EQ(outcomes(fs, "/b"), (std::set<std::string>{"old", "new"}));
}

TEST(CrashStates, FailedSyncLeavesTheBytesUndecidedForEver) {
  SimFileSystem fs;
  auto file = create(fs, "/a");
  ASSERT_TRUE(file->write_at(0, as_bytes("xy")).ok());
  ASSERT_TRUE(fs.sync_directory("/").ok());
  fs.set_fault_hook([](const Call& call) {
    return Outcome{call.kind == CallKind::kSync ? io_error("injected") : ok_status()};
  });
  EXPECT_EQ(file->sync().code(), StatusCode::kIoError);
  fs.set_fault_hook({});
  EXPECT_TRUE(file->sync().ok());
  EXPECT_TRUE(outcomes(fs, "/a").contains("xy"));
  EXPECT_TRUE(outcomes(fs, "/a").contains(""));
}

TEST(CrashStates, MarksAreThoseBeforeThePoint) {
  SimFileSystem fs;
  fs.mark(7);
  auto file = create(fs, "/a");
  fs.mark(8);
  CrashStates states(fs.base(), fs.history(), {}, 1);
  EXPECT_TRUE(states.marks().empty());
  states.advance_to(2);
  EXPECT_EQ(states.marks(), (std::vector<uint64_t>{7}));
  states.advance_to(3);
  EXPECT_EQ(states.marks(), (std::vector<uint64_t>{7, 8}));
}

TEST(CrashStates, SameArgumentsGiveTheSameDisk) {
  SimFileSystem fs;
  for (int i = 0; i < 12; ++i) {
    auto file = create(fs, "/" + std::to_string(i));
    ASSERT_TRUE(file->write_at(0, as_bytes(std::string(3000, static_cast<char>('a' + i)))).ok());
  }
  const auto digests = [&](uint64_t seed) {
    CrashStates states(fs.base(), fs.history(), {}, seed);
    states.advance_to(states.prefixes() - 1);
    std::vector<Digest> all;
    for (uint32_t v = 0; v < states.variants(); ++v) all.push_back(states.build(v).digest());
    return all;
  };
  EXPECT_EQ(digests(3), digests(3));
  EXPECT_NE(digests(3), digests(4));
}

TEST(SimFileSystem, FaultsHappenWhereTheHookSays) {
  SimFileSystem fs;
  fs.set_fault_hook([](const Call& call) {
    if (call.kind == CallKind::kLink) return Outcome{io_error("reply lost"), true};
    if (call.kind == CallKind::kWrite) return Outcome{no_space("full"), false};
    return Outcome{};
  });
  auto file = create(fs, "/a");
  EXPECT_EQ(file->write_at(0, as_bytes("abcd")).code(), StatusCode::kNoSpace);
  EXPECT_EQ(fs.link("/a", "/b").code(), StatusCode::kIoError);
  EXPECT_EQ(text_of(fs.image(), "/b"), "ab");
  EXPECT_EQ(fs.open_files(), 1);
  file.reset();
  EXPECT_EQ(fs.open_files(), 0);
}

TEST(SimFileSystem, QueueTouchesBytesOnlyWhenARequestFinishes) {
  SimFileSystem fs({.seed = 5, .alignment = 512});
  auto file = fs.open("/a", OpenMode::kCreateNew, Access::kDirect);
  ASSERT_TRUE(file.ok());
  alignas(512) std::array<std::byte, 1024> memory{};
  auto queue = fs.make_queue({.depth = 2});
  ASSERT_TRUE(queue.ok());
  EXPECT_FALSE((*queue)->submit_write(**file, 100, Bytes(memory).first(512), 0).ok());
  ASSERT_TRUE((*queue)->submit_write(**file, 0, Bytes(memory).first(512), 1).ok());
  ASSERT_TRUE((*queue)->submit_write(**file, 512, Bytes(memory).last(512), 2).ok());
  EXPECT_FALSE((*queue)->submit_write(**file, 0, Bytes(memory).first(512), 3).ok());
  memory.fill(std::byte{'z'});
  uint64_t tags = 0;
  while ((*queue)->in_flight() > 0) {
    auto done = (*queue)->wait();
    ASSERT_TRUE(done.ok() && done->status.ok());
    tags += done->tag;
  }
  EXPECT_EQ(tags, 3u);
  EXPECT_EQ(text_of(fs.image(), "/a"), std::string(1024, 'z'));
}

}  // namespace
}  // namespace caisson::sim

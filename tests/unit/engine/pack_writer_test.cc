// Packs that get full while others are being written, on a simulated disk: sealed behind their last
// write and beside the next pack's, and never once anything has failed.
#include "engine/pack_writer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "io/object_dir.h"
#include "tests/support/sim_file_system.h"

namespace caisson {
namespace {

constexpr uint64_t kChunkBytes = 4u << 20;  // a segment
constexpr uint64_t kPacks = 3;
constexpr uint64_t kSegments = 2;  // of a pack
constexpr uint64_t kPackBytes = format::kBlockBytes +
                                kSegments * (format::kSegmentBytesMax + format::kBlockBytes) +
                                format::kBlockBytes;

class PackWriterTest : public testing::Test {
 protected:
  void start() {
    files_ = std::make_shared<sim::SimFileSystem>();
    ASSERT_TRUE(files_->create_directory("/store").ok());
    objects_ = make_object_dir(files_, "/store", system_uuids());
  }

  Result<std::vector<format::SealedRef>> write() {
    MemoryBudget budget(256u << 20);
    CAISSON_ASSIGN_OR_RETURN(BufferPool pool, BufferPool::create(budget, kSegmentBufferBytes, 4));
    PackWriter packs(*objects_, {.save = system_uuids().next(),
                                 .writer = system_uuids().next(),
                                 .pack_bytes_max = kPackBytes});
    CAISSON_RETURN_IF_ERROR(packs.begin(pool));
    Status status;
    for (uint64_t i = 0; status.ok() && i < kPacks * kSegments; ++i) {
      status = write_chunk(packs, static_cast<std::byte>(i));
    }
    // Whatever happened: nothing is in flight afterwards, and the memory may go.
    const Status ended = packs.end();
    CAISSON_RETURN_IF_ERROR(status);
    CAISSON_RETURN_IF_ERROR(ended);
    return packs.finish();
  }

  static Status write_chunk(PackWriter& packs, std::byte fill) {
    CAISSON_ASSIGN_OR_RETURN(const MutableBytes to, packs.reserve(kChunkBytes, true));
    std::ranges::fill(to, fill);
    format::ChunkEntry entry;
    entry.raw_bytes = entry.stored_bytes = kChunkBytes;
    packs.commit(entry, digest_of(to));
    return ok_status();
  }

  std::shared_ptr<sim::SimFileSystem> files_;
  std::unique_ptr<ObjectStore> objects_;
};

bool is_write(const sim::Op& op) {
  return op.kind == sim::OpKind::kEffects && !op.effects.empty() &&
         op.effects.front().kind == sim::EffectKind::kData;
}

TEST_F(PackWriterTest, FullPacksAreSealedWhileTheNextIsBeingWritten) {
  ASSERT_NO_FATAL_FAILURE(start());
  const auto sealed = write();
  ASSERT_TRUE(sealed.ok()) << sealed.status().to_string();
  ASSERT_EQ(sealed->size(), kPacks);
  struct Seen {
    size_t first_write = 0, last_write = 0, synced = 0;
  };
  std::map<std::string, Seen> packs;
  const sim::History history = files_->history();
  for (size_t at = 0; at < history.size(); ++at) {
    const sim::Op& op = history[at];
    if (!op.path.ends_with(".pack")) continue;
    Seen& seen = packs[op.path];
    if (is_write(op)) {
      EXPECT_EQ(seen.synced, 0u) << "written behind its sync: " << op.path;
      if (seen.first_write == 0) seen.first_write = at;
      seen.last_write = at;
    }
    if (op.kind == sim::OpKind::kSyncFile) seen.synced = at;
  }
  ASSERT_EQ(packs.size(), kPacks);
  size_t end_of_writes = 0;
  for (const auto& [path, seen] : packs) {
    EXPECT_GT(seen.synced, seen.last_write) << path;
    end_of_writes = std::max(end_of_writes, seen.last_write);
  }
  EXPECT_LT(packs.begin()->second.synced, end_of_writes) << "the first pack was sealed at the end";
}

TEST_F(PackWriterTest, NothingIsSealedOnceACallFailed) {
  ASSERT_NO_FATAL_FAILURE(start());
  ASSERT_TRUE(write().ok());
  const uint64_t calls = files_->calls();
  ASSERT_GT(calls, 20u);
  uint64_t failed = 0;
  for (uint64_t at = 0; at < calls; ++at) {
    ASSERT_NO_FATAL_FAILURE(start());
    std::string what;
    uint64_t names_synced = 0;  // afterwards: a pack is sealed by that
    files_->set_fault_hook([&](const sim::Call& call) -> sim::Outcome {
      if (call.index > at && call.kind == sim::CallKind::kSyncDirectory) ++names_synced;
      if (call.index != at) return {};
      what = std::string(call_name(call.kind)) + " " + std::string(call.path);
      return {io_error("injected: " + what), false};
    });
    const auto sealed = write();
    files_->set_fault_hook({});
    EXPECT_EQ(files_->open_files(), 0) << what;
    if (sealed.ok()) continue;  // the directory that start() made, or one that was there
    ++failed;
    EXPECT_EQ(names_synced, 0u) << what;
    EXPECT_NE(sealed.status().to_string().find("injected"), std::string::npos)
        << sealed.status().to_string();
  }
  EXPECT_GE(failed + 4, calls) << "calls whose failure nobody heard of";
}

}  // namespace
}  // namespace caisson

// The pieces of the save path by themselves, over a simulated file system: packs, part tables,
// dedup by position, batches in order, and the committer's refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <thread>

#include "engine/commit.h"
#include "engine/manifest.h"
#include "engine/pack_writer.h"
#include "engine/save_batches.h"
#include "engine/save_pipeline.h"
#include "io/object_dir.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kF32;
using testing::random_bytes;
using testing::shape_of;
using testing::TestTensor;

class CountingUuids final : public UuidSource {
 public:
  Uuid next() override {
    Uuid uuid;
    store_le(uuid.bytes.data(), ++count_);
    return uuid;
  }

 private:
  std::atomic<uint64_t> count_ = 0;
};

class FixedClock final : public Clock {
 public:
  int64_t unix_ns() override { return 1'700'000'000'000'000'000; }
};

class SavePartsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    files_ = std::make_shared<sim::SimFileSystem>();
    ASSERT_TRUE(files_->create_directory("/s").ok());
    objects_ = make_object_dir(files_, "/s", uuids_);
  }

  // Fails every `kind` of call from now on.
  void fail(sim::CallKind kind) {
    files_->set_fault_hook([kind](const sim::Call& call) {
      return sim::Outcome{.status = call.kind == kind ? io_error("injected") : ok_status()};
    });
  }

  BufferPool pool(uint32_t buffers) {
    return BufferPool::create(budget_, kSegmentBufferBytes, buffers).value();
  }

  static format::ChunkEntry entry_of(Bytes raw) {
    format::ChunkEntry entry;
    entry.id = content_id(raw, 32);
    entry.raw_bytes = entry.stored_bytes = static_cast<uint32_t>(raw.size());
    return entry;
  }

  // Saves tensors of some 2 MiB, and changes one byte in every `apart` of the first one when the
  // first pack is made: it has been read by then, and not everything has.
  Status save_while_changing(const Shape& shape, MemoryCheck check, const std::string& codec,
                             size_t apart) {
    const auto pipeline =
        SavePipeline::create(*objects_, budget_, uuids_,
                             {.save = uuids_.next(), .codec = codec, .memory_check = check})
            .value();
    std::vector<ByteVector> memory;
    std::vector<SaveItem> items;
    for (uint32_t i = 0; i < 12; ++i) {
      memory.push_back(random_bytes(shape.dims[0] * shape.dims[1] * 4, i));
      items.push_back({.kind = TensorKind::kTensor, .shard = {}, .alias_of = {}});
      TensorShard& shard = items.back().shard;
      shard.tensor = {"layer." + std::to_string(i), kF32, shape};
      shard.box = Box::whole(shard.tensor.shape);
      shard.data = memory.back().data();
    }
    bool changed = false;
    files_->set_fault_hook([&](const sim::Call& call) {
      if (call.kind == sim::CallKind::kAllocate && !std::exchange(changed, true)) {
        for (size_t at = apart / 2; at < memory[0].size(); at += apart) {
          memory[0][at] ^= std::byte{1};
        }
      }
      return sim::Outcome{};
    });
    Status status = pipeline->put(items);
    files_->set_fault_hook({});
    EXPECT_TRUE(changed) << "nothing was written while there was more to read";
    return status;
  }

  // Appends a chunk and gives its entry.
  static Result<format::ChunkEntry> append(PackWriter& packs, Bytes raw, bool block_aligned) {
    CAISSON_ASSIGN_OR_RETURN(const MutableBytes to, packs.reserve(raw.size(), block_aligned));
    std::ranges::copy(raw, to.begin());
    format::ChunkEntry entry = entry_of(raw);
    packs.commit(entry, digest_of(raw));
    return entry;
  }

  CountingUuids uuids_;
  FixedClock clock_;
  MemoryBudget budget_{256u << 20};
  std::shared_ptr<sim::SimFileSystem> files_;
  std::unique_ptr<ObjectStore> objects_;
  const Uuid save_ = uuids_.next();
};

TEST_F(SavePartsTest, PacksHoldWhatWasCommittedAndNothingElse) {
  PackWriter packs(*objects_, {.save = save_, .writer = uuids_.next()});
  packs.expect(6u << 20);
  BufferPool buffers = pool(3);
  ASSERT_TRUE(packs.begin(buffers).ok());
  std::vector<std::pair<format::ChunkEntry, std::vector<std::byte>>> chunks;
  std::mt19937_64 random(5);
  for (int i = 0; i < 300; ++i) {
    const auto raw = random_bytes(1 + random() % (i % 50 == 0 ? 1'500'000 : 9'000), random());
    if (i % 7 == 0) {  // a dedup hit after the copy
      const auto dropped = packs.reserve(raw.size(), false);
      ASSERT_TRUE(dropped.ok());
      std::ranges::fill(*dropped, std::byte{0xdd});
      packs.drop();
      continue;
    }
    const auto entry = append(packs, raw, raw.size() >= format::kRawAlignedBytesMin);
    ASSERT_TRUE(entry.ok()) << entry.status().to_string();
    if (raw.size() >= format::kRawAlignedBytesMin) {
      EXPECT_EQ(entry->offset_bytes() % 4096, 0u);
    }
    chunks.emplace_back(*entry, raw);
  }
  ASSERT_TRUE(packs.end().ok());
  const auto sealed = packs.finish();
  ASSERT_TRUE(sealed.ok()) << sealed.status().to_string();
  ASSERT_EQ(sealed->size(), 1u);
  const format::SealedRef& pack = sealed->front();
  const ByteVector bytes = objects_->get(pack.object.key(), UINT32_MAX).value();
  ASSERT_EQ(bytes.size(), pack.bytes);
  EXPECT_TRUE(format::check_pack_header(pack.object, Bytes(bytes).first(4096)).ok());
  const uint64_t at =
      format::footer_offset_of(pack.object, pack.bytes, Bytes(bytes).last(4096)).value();
  const auto footer = format::decode_pack_footer(pack.object, pack.bytes, Bytes(bytes).subspan(at));
  ASSERT_TRUE(footer.ok()) << footer.status().to_string();
  EXPECT_EQ(footer->digest, pack.digest);
  size_t next = 0;
  for (const format::Segment& segment : footer->segments) {
    EXPECT_LE(segment.bytes, format::kSegmentBytesMax);
    for (const format::ChunkEntry& entry : segment.entries) {
      ASSERT_LT(next, chunks.size());
      EXPECT_EQ(entry, chunks[next].first);
      const Bytes stored = Bytes(bytes).subspan(entry.offset_bytes(), entry.stored_bytes);
      EXPECT_TRUE(std::ranges::equal(stored, chunks[next].second));
      EXPECT_EQ(entry.stored_checksum,
                chunk_checksum(stored, format::pack_salt(pack.object, entry.offset_bytes())));
      ++next;
    }
  }
  EXPECT_EQ(next, chunks.size());
  // What was dropped left no trace: every byte that no chunk claims is zero or a directory.
  EXPECT_EQ(std::search_n(bytes.begin(), bytes.end(), 64, std::byte{0xdd}), bytes.end());
}

TEST_F(SavePartsTest, AFullPackIsFollowedByTheNext) {
  PackWriter packs(*objects_,
                   {.save = save_, .writer = uuids_.next(), .first_number = 1, .number_step = 3});
  packs.expect(1);  // a bound of one segment: the guess was wrong, nothing is lost
  BufferPool buffers = pool(2);
  ASSERT_TRUE(packs.begin(buffers).ok());
  const auto raw = random_bytes(format::kSegmentBytesMax - format::kBlockBytes, 1);
  std::vector<format::ObjectRef> places;
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(append(packs, raw, true).ok());
    places.push_back(packs.pack());
  }
  ASSERT_TRUE(packs.end().ok());
  const auto sealed = packs.finish();
  ASSERT_TRUE(sealed.ok()) << sealed.status().to_string();
  ASSERT_EQ(sealed->size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(sealed->at(i).object, places[i]);
    EXPECT_EQ(places[i].number, 1 + 3 * i);
  }
}

TEST_F(SavePartsTest, NothingCommittedIsNoObject) {
  PackWriter packs(*objects_, {.save = save_, .writer = uuids_.next()});
  BufferPool buffers = pool(2);
  ASSERT_TRUE(packs.begin(buffers).ok());
  ASSERT_TRUE(packs.reserve(1000, false).ok());
  packs.drop();
  ASSERT_TRUE(packs.end().ok());
  EXPECT_TRUE(packs.finish()->empty());
  EXPECT_EQ(objects_->list("data/", [](const ObjectInfo& o) { return io_error(o.key); }).code(),
            StatusCode::kOk);
}

TEST_F(SavePartsTest, AFailedSyncPoisonsThePackWriter) {
  PackWriter packs(*objects_, {.save = save_, .writer = uuids_.next()});
  BufferPool buffers = pool(2);
  ASSERT_TRUE(packs.begin(buffers).ok());
  ASSERT_TRUE(append(packs, random_bytes(10'000, 1), false).ok());
  ASSERT_TRUE(packs.end().ok());
  fail(sim::CallKind::kSync);
  EXPECT_EQ(packs.finish().status().code(), StatusCode::kIoError);
  files_->set_fault_hook({});
  EXPECT_EQ(packs.finish().status().code(), StatusCode::kIoError);
  EXPECT_EQ(packs.begin(buffers).code(), StatusCode::kIoError);
}

TEST_F(SavePartsTest, APartOfManyBlocksReadsBack) {
  const format::ObjectRef ref{
      .kind = format::ObjectKind::kPart, .save = save_, .writer = uuids_.next(), .number = 0};
  const format::ObjectRef own{
      .kind = format::ObjectKind::kPack, .save = save_, .writer = ref.writer, .number = 7};
  // Past kTableBytesHeld: the table is written while it grows.
  const uint64_t entries = kTableBytesHeld / 40 + 12'345;
  PartWriter part(*objects_, ref, 3);
  format::ChunkEntry entry;
  entry.raw_bytes = entry.stored_bytes = 1000;
  entry.pack = part.pack_index(own).value();
  for (uint64_t i = 0; i < entries; ++i) {
    entry.offset_units = static_cast<uint32_t>(i);
    ASSERT_TRUE(part.add(entry).ok());
  }
  const auto small = random_bytes(100, 1);
  ASSERT_TRUE(part.try_reserve_inline(small.size()));
  ASSERT_TRUE(part.add_inline(entry_of(small), small).ok());
  TensorRecord record;
  record.spec = {.name = "t", .dtype = kF32, .shape = shape_of({25})};
  record.tile = record.spec.shape;
  ShardRecord shard;
  shard.box = Box::whole(record.spec.shape);
  shard.grid = choose_pieces(record.spec.shape, kF32, record.tile, shard.box);
  shard.pieces = 1;
  shard.first_entry = entries;
  record.shards = {shard};
  part.add_record(record);
  const std::vector<format::SealedRef> packs{{.object = own, .bytes = 4096 * 9, .digest = {}}};
  const auto sealed = part.seal(packs);
  ASSERT_TRUE(sealed.ok()) << sealed.status().to_string();

  const auto reader = PartReader::open(*objects_, *sealed);
  ASSERT_TRUE(reader.ok()) << reader.status().to_string();
  EXPECT_EQ((*reader)->trailer().rank, 3u);
  EXPECT_EQ((*reader)->trailer().entries, entries + 1);
  EXPECT_EQ((*reader)->trailer().stored_bytes, small.size());
  EXPECT_EQ((*reader)->packs().value(), packs);
  const ByteVector bytes = objects_->get(ref.key(), UINT32_MAX).value();
  const auto body = Bytes(bytes).first(bytes.size() - 4096);
  EXPECT_EQ((*reader)->trailer().body_digest, digest_of(body));
  const uint64_t block = entries / format::kEntriesPerBlock;
  const auto last = format::decode_entry_block(ref.writer, block,
                                               Bytes(bytes).subspan(block * 4096, 4096), "part");
  ASSERT_TRUE(last.ok()) << last.status().to_string();
  EXPECT_EQ(last->back().pack, format::kPackInline);
  EXPECT_EQ(last->at(last->size() - 2).offset_units, entries - 1);
}

TEST_F(SavePartsTest, InlineDataIsBounded) {
  PartWriter part(*objects_,
                  {.kind = format::ObjectKind::kPart, .save = save_, .writer = uuids_.next()}, 0);
  uint64_t fitted = 0;
  while (part.try_reserve_inline(4096)) fitted += 4096;
  EXPECT_EQ(fitted, kInlineBytesHeld);
}

TEST_F(SavePartsTest, NamesTheTensorWhoseMemoryChangedMeanwhile) {
  // Tiles that are contiguous, and tiles that lie side by side.
  for (const Shape& shape : {shape_of({512, 1024}), shape_of({33, 16384})}) {
    for (const char* codec : {"raw", "zstd"}) {
      // Like an optimizer step: a sample sees it.
      for (const MemoryCheck check : {MemoryCheck::kSampled, MemoryCheck::kFull}) {
        const Status status = save_while_changing(shape, check, codec, 4);
        EXPECT_EQ(status.code(), StatusCode::kInvalidArgument) << status.to_string();
        EXPECT_NE(status.to_string().find("\"layer.0\""), std::string::npos) << status.to_string();
      }
      // One byte in all: for that there is kFull.
      EXPECT_FALSE(save_while_changing(shape, MemoryCheck::kFull, codec, 2 << 20).ok());
      EXPECT_TRUE(save_while_changing(shape, MemoryCheck::kOff, codec, 4).ok());
    }
  }
}

TEST_F(SavePartsTest, BatchesComeBackInOrder) {
  std::vector<uint64_t> order;
  SaveBatches batches([&](const SaveBatch& batch) {
    order.push_back(batch.first);
    return ok_status();
  });
  batches.add(nullptr, 100'000);
  batches.close();
  SaveBatch first, second, third;
  ASSERT_TRUE(batches.claim(first) && batches.claim(second) && batches.claim(third));
  batches.finish(std::move(third));
  batches.finish(std::move(second));
  EXPECT_TRUE(order.empty());
  batches.finish(std::move(first));
  EXPECT_EQ(order,
            (std::vector<uint64_t>{0, SaveBatches::kBatchUnits, 2 * SaveBatches::kBatchUnits}));
  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < 4; ++i) {
      workers.emplace_back([&] {
        SaveBatch batch;
        while (batches.claim(batch)) batches.finish(std::move(batch));
      });
    }
  }
  EXPECT_TRUE(batches.status().ok());
  EXPECT_EQ(order.size(), 100'000 / SaveBatches::kBatchUnits);
  EXPECT_TRUE(std::ranges::is_sorted(order));
}

TEST_F(SavePartsTest, AFailureStopsAWorkerThatWaitsForTheWindow) {
  SaveBatches batches([](const SaveBatch&) { return ok_status(); });
  batches.add(nullptr, 1'000'000);
  SaveBatch oldest;
  ASSERT_TRUE(batches.claim(oldest));  // never finished: the window stays where it is
  uint64_t claimed = 1;
  std::jthread worker([&] {
    SaveBatch batch;
    while (batches.claim(batch)) {
      ++claimed;
      batches.finish(std::move(batch));
      if (claimed == SaveBatches::kAheadMax) batches.fail(io_error("disk"));
    }
  });
  worker.join();
  EXPECT_EQ(claimed, SaveBatches::kAheadMax);
  EXPECT_EQ(batches.status().code(), StatusCode::kIoError);
}

TEST_F(SavePartsTest, EqualInputGivesEqualBytes) {
  std::vector<std::pair<std::string, ByteVector>> stores[2];
  for (auto& contents : stores) {
    CountingUuids uuids;
    auto files = std::make_shared<sim::SimFileSystem>();
    ASSERT_TRUE(files->create_directory("/s").ok());
    const auto objects = make_object_dir(files, "/s", uuids);
    auto pipeline = SavePipeline::create(*objects, budget_, uuids, {.save = uuids.next()}).value();
    const TestTensor a("a", kF32, shape_of({1000, 700}), 1), b("b", kF32, shape_of({33}), 2);
    std::vector<SaveItem> items{{.shard = a.whole()}, {.shard = b.whole()}};
    ASSERT_TRUE(pipeline->put(items).ok());
    ASSERT_TRUE(pipeline->seal().ok());
    ASSERT_TRUE(objects
                    ->list("data/",
                           [&](const ObjectInfo& object) {
                             contents.emplace_back(object.key,
                                                   objects->get(object.key, UINT32_MAX).value());
                             return ok_status();
                           })
                    .ok());
    std::ranges::sort(contents);
  }
  EXPECT_EQ(stores[0].size(), 2u);
  EXPECT_TRUE(stores[0] == stores[1]);
}

// ---- the committer

class CommitTest : public SavePartsTest {
 protected:
  void SetUp() override {
    SavePartsTest::SetUp();
    log_ = Log::open(*objects_, uuids_, {}).value();
    append(format::ClaimRecord{.run = "run", .epoch = 1, .base = 0});
    append(format::OpenRecord{.save = save_, .run = "run", .step = 1, .epoch = 1, .bases = {}});
  }
  void append(const format::LogBody& body) {
    const auto seq = log_->append([&](const LogState&) { return Result<format::LogBody>(body); });
    ASSERT_TRUE(seq.ok()) << seq.status().to_string();
  }
  format::SealedRef part_of(uint32_t rank, const std::vector<SaveItem>& items) {
    auto pipeline =
        SavePipeline::create(*objects_, budget_, uuids_, {.save = save_, .rank = rank}).value();
    EXPECT_TRUE(pipeline->put(items).ok());
    return pipeline->seal().value();
  }
  Result<CommitOutcome> commit(uint32_t ranks, const std::vector<format::SealedRef>& parts) {
    const CommitPlan plan{.save = save_, .run = "run", .step = 1, .epoch = 1, .ranks = ranks};
    return commit_checkpoint(*objects_, *log_, uuids_, clock_, plan, parts);
  }

  std::unique_ptr<Log> log_;
  const TestTensor tensor_{"t", kF32, shape_of({3000, 100}), 1};
};

TEST_F(CommitTest, MergesTheDirectoriesByName) {
  const TestTensor z("z", kF32, shape_of({10}), 2), a("a", kF32, shape_of({500, 500}), 3);
  const auto outcome =
      commit(2, {part_of(1, {{.shard = tensor_.rows(1000, 3000)}, {.shard = a.whole()}}),
                 part_of(0, {{.shard = z.whole()}, {.shard = tensor_.rows(0, 1000)}})});
  ASSERT_TRUE(outcome.ok()) << outcome.status().to_string();
  const Checkpoint* checkpoint = log_->state()->latest("run");
  ASSERT_NE(checkpoint, nullptr);
  EXPECT_EQ(checkpoint->seq, outcome->seq);
  const auto manifest = Manifest::open(*objects_, checkpoint->root).value();
  std::vector<std::string> names;
  EXPECT_TRUE(manifest
                  ->for_each([&](const TensorRecord& record) {
                    names.push_back(record.spec.name);
                    return ok_status();
                  })
                  .ok());
  EXPECT_EQ(names, (std::vector<std::string>{"a", "t", "z"}));
  const auto record = manifest->find("t").value();
  ASSERT_TRUE(record);
  ASSERT_EQ(record->shards.size(), 2u);
  EXPECT_EQ(record->shards[0].part, 0u);
  EXPECT_EQ(record->shards[1].part, 1u);
  EXPECT_TRUE(std::ranges::is_sorted(manifest->packs().all().value().packs, {},
                                     &format::SealedRef::object));
}

TEST_F(CommitTest, RefusesAnAliasOfNothing) {
  const auto outcome = commit(1, {part_of(0, {alias_item("head", "nobody")})});
  EXPECT_EQ(outcome.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(outcome.status().to_string().find("nobody"), std::string::npos);
  // The save is over: gc may take what it left.
  EXPECT_TRUE(log_->state()->open_saves().empty());
  EXPECT_EQ(log_->state()->latest("run"), nullptr);
}

TEST_F(CommitTest, RefusesANamePutTwiceForDifferentThings) {
  const TestTensor same("t", kF32, shape_of({4}), 2);
  const Status status =
      commit(1, {part_of(0, {{.shard = tensor_.whole()}, {.shard = same.whole()}})}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.to_string().find("rank 0 put it twice, and not with the same shape"),
            std::string::npos)
      << status.to_string();
}

TEST_F(CommitTest, RefusesATensorInMoreBoxesThanTheFormatHolds) {
  const TestTensor fine("fine", {DTypeCode::kUInt, 8}, shape_of({format::kShardsMax + 1}), 4);
  std::vector<SaveItem> items;
  for (uint64_t i = 0; i <= format::kShardsMax; ++i)
    items.push_back({.shard = fine.rows(i, i + 1)});
  const Status status = commit(1, {part_of(0, items)}).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.to_string().find("\"fine\""), std::string::npos) << status.to_string();
  EXPECT_EQ(log_->state()->latest("run"), nullptr);
}

TEST_F(CommitTest, RefusesAPartThatIsNotWhatWasSealed) {
  format::SealedRef part = part_of(0, {{.shard = tensor_.whole()}});
  part.digest.bytes[0] ^= std::byte{1};
  EXPECT_EQ(commit(1, {part}).status().code(), StatusCode::kCorruption);
}

TEST_F(CommitTest, RefusesARunThatWasClaimedSince) {
  const format::SealedRef part = part_of(0, {{.shard = tensor_.whole()}});
  append(format::ClaimRecord{.run = "run", .epoch = 2, .base = 0});
  EXPECT_EQ(commit(1, {part}).status().code(), StatusCode::kFenced);
  EXPECT_EQ(log_->state()->latest("run"), nullptr);
}

TEST_F(CommitTest, AFailedSyncBeforeTheRecordCommitsNothing) {
  const format::SealedRef part = part_of(0, {{.shard = tensor_.whole()}});
  fail(sim::CallKind::kSync);
  EXPECT_EQ(commit(1, {part}).status().code(), StatusCode::kIoError);
  files_->set_fault_hook({});
  EXPECT_EQ(Log::open(*objects_, uuids_, {}).value()->state()->latest("run"), nullptr);
}

}  // namespace
}  // namespace caisson

#include "engine/gc.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/log_records.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/seeded.h"

namespace caisson {
namespace {

using Fault = MemoryObjectStore::Fault;
using format::CommitSeq;
using format::LogBody;
using format::ObjectKind;
using format::ObjectRef;
using format::SealedRef;
using testing::HasSubstr;

class GcTest : public testing::Test {
 protected:
  void SetUp() override {
    log_ = open_log();
    append(claim_run(1));
  }
  std::unique_ptr<Log> open_log() {
    auto log = Log::open(store_, uuids_, {.host = "elsewhere", .pid = 1}, clock_);
    EXPECT_TRUE(log.ok()) << log.status().to_string();
    return std::move(log).value();
  }
  CommitSeq append(const LogBody& body) {
    const auto seq = log_->append([&](const LogState&) -> Result<LogBody> { return body; });
    EXPECT_TRUE(seq.ok()) << seq.status().to_string();
    return seq.ok() ? *seq : 0;
  }
  void put(const ObjectRef& object) {
    EXPECT_TRUE(store_.put_new(object.key(), as_bytes("content")).ok());
  }
  static ObjectRef pack(uint8_t save, uint32_t number = 0) {
    return object_of(save, ObjectKind::kPack, number);
  }

  // Opens a save and writes a pack, a part and a directory of it.
  void begin(uint8_t save, uint64_t step, std::vector<CommitSeq> bases = {}) {
    append(open_save(save, step, 1, std::move(bases)));
    put(pack(save));
    put(object_of(save, ObjectKind::kPart));
    put(object_of(save, ObjectKind::kDirectory));
  }
  // Commits it, with a root that needs its own pack and those of other saves too.
  CommitSeq finish(uint8_t save, uint64_t step, const std::vector<uint8_t>& others = {}) {
    format::Root root;
    root.object = object_of(save, ObjectKind::kRoot);
    root.run = "r";
    root.step = step;
    root.epoch = 1;
    root.metadata_json = "{}";
    std::vector<ObjectRef> packs{pack(save)};
    for (const uint8_t other : others) packs.push_back(pack(other));
    std::sort(packs.begin(), packs.end());
    format::PackTables tables;
    for (const ObjectRef& object : packs) tables.packs.push_back({object, 4096, {}});
    format::RootPart part;
    part.part = {object_of(save, ObjectKind::kPart), 4096, {}};
    for (uint32_t i = 0; i < packs.size(); ++i) tables.of_parts.push_back(i);
    part.packs = static_cast<uint32_t>(packs.size());
    root.parts.push_back(part);
    root.directory = {object_of(save, ObjectKind::kDirectory), 4096, {}};
    const format::EncodedRoot encoded = format::encode_root(root, tables);
    EXPECT_TRUE(store_.put_new(root.object.key(), encoded.bytes).ok());
    format::CommitRecord commit = commit_save(save, step);
    commit.root = encoded.sealed;
    return append(commit);
  }
  CommitSeq save(uint8_t id, uint64_t step) {
    begin(id, step);
    return finish(id, step);
  }
  GcReport collect(const GcOptions& options = {}) {
    const Result<GcReport> report = run_gc(store_, *log_, options);
    EXPECT_TRUE(report.ok()) << report.status().to_string();
    return report.ok() ? *report : GcReport();
  }
  size_t objects_of(uint8_t save) {
    return store_.keys(format::save_prefix(numbered_uuid(save))).size();
  }

  MemoryObjectStore store_;
  SeededUuids uuids_{2};
  FixedClock clock_;
  std::unique_ptr<Log> log_;
};

TEST_F(GcTest, FreesAPrunedCheckpointAndKeepsTheOthers) {
  const CommitSeq a = save(1, 10);
  save(2, 20);
  EXPECT_EQ(collect().reclaimed.objects, 0u);
  append(format::PruneRecord{a});
  const GcReport dry = collect({.dry_run = true});
  EXPECT_EQ(dry.reclaimed.objects, 4u);
  EXPECT_EQ(objects_of(1), 4u);
  const GcReport report = collect();
  EXPECT_EQ(report.reclaimed.objects, 4u);
  EXPECT_EQ(report.reclaimed.bytes, dry.reclaimed.bytes);
  EXPECT_EQ(report.kept.objects, 4u);
  EXPECT_EQ(report.saves_condemned, 1u);
  EXPECT_EQ(objects_of(1), 0u);
  EXPECT_EQ(objects_of(2), 4u);
  const uint64_t seq = log_->state()->seq();
  EXPECT_EQ(collect().reclaimed.objects, 0u);
  EXPECT_EQ(log_->state()->seq(), seq) << "a run with nothing to do appends nothing";
}

TEST_F(GcTest, KeepsThePacksThatALaterCheckpointShares) {
  const CommitSeq a = save(1, 10);
  begin(2, 20, {a});
  const CommitSeq b = finish(2, 20, {1});
  append(format::PruneRecord{a});
  collect();
  EXPECT_EQ(store_.keys(format::save_prefix(numbered_uuid(1))),
            std::vector<std::string>{pack(1).key()});
  append(format::PruneRecord{b});
  collect();
  EXPECT_TRUE(store_.keys("data/").empty()) << "the rest goes with its last reader";
  EXPECT_TRUE(log_->state()->ended_saves().empty());
}

TEST_F(GcTest, KeepsThePrunedBaseOfAnOpenSave) {
  const CommitSeq a = save(1, 10);
  begin(2, 20, {a});
  append(format::PruneRecord{a});
  const GcReport report = collect();
  EXPECT_EQ(objects_of(1), 4u);
  ASSERT_EQ(report.open_saves.size(), 1u);
  EXPECT_EQ(report.open_saves[0].written.objects, 3u);
  EXPECT_EQ(report.open_saves[0].writer.host, "elsewhere");
  finish(2, 20, {1});
  collect();
  EXPECT_TRUE(store_.has(pack(1).key()));
  EXPECT_EQ(objects_of(1), 1u);
}

TEST_F(GcTest, FreesSavesThatEndedWithoutACommit) {
  begin(1, 10);
  append(format::CloseRecord{numbered_uuid(1)});
  begin(2, 20);
  append(claim_run(2));
  put(object_of(9, ObjectKind::kPack));  // of a save that this log does not know
  const GcReport report = collect();
  EXPECT_EQ(report.reclaimed.objects, 6u);
  EXPECT_EQ(report.unknown.objects, 1u);
  EXPECT_EQ(store_.keys("data/").size(), 1u);
  // A fenced writer that goes on leaves what the next run takes.
  put(pack(2, 7));
  EXPECT_EQ(collect().reclaimed.objects, 1u);
}

TEST_F(GcTest, FreesTheAbandonedPartOfACommittedSaveOnceItIsOver) {
  begin(1, 10);
  put(pack(1, 5));
  EXPECT_EQ(collect().reclaimed.objects, 0u);
  finish(1, 10);
  const GcReport report = collect();
  EXPECT_EQ(report.reclaimed.objects, 1u);
  EXPECT_EQ(report.objects_condemned, 1u);
  EXPECT_FALSE(store_.has(pack(1, 5).key()));
  EXPECT_EQ(objects_of(1), 4u);
}

TEST_F(GcTest, StopsAtARootThatItCannotRead) {
  const CommitSeq a = save(1, 10);
  save(2, 20);
  append(format::PruneRecord{a});
  const std::string key = root_of(2).object.key();
  ByteVector bytes = store_.get(key, 1 << 20).value();
  bytes.back() ^= std::byte{1};
  store_.damage(key, bytes);
  const uint64_t seq = log_->state()->seq();
  const Status status = run_gc(store_, *log_).status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_THAT(status.to_string(), HasSubstr(key));
  EXPECT_EQ(log_->refresh().value()->seq(), seq);
  EXPECT_EQ(objects_of(1), 4u);
}

TEST_F(GcTest, DecidesAnewWhenARecordGetsInFirst) {
  const CommitSeq a = save(1, 10);
  const auto other = open_log();
  begin(2, 20, {a});
  begin(3, 30);
  append(format::PruneRecord{a});
  append(format::CloseRecord{numbered_uuid(3)});
  // gc would condemn save 3 only, as save 2 still holds its base; just before its record, 2 ends.
  const std::string place = format::log_key(log_->state()->seq() + 1);
  bool once = true;
  store_.set_hook([&](std::string_view operation, std::string_view key) {
    if (once && operation == "put" && key == place) {
      once = false;
      EXPECT_TRUE(other
                      ->append([](const LogState&) -> Result<LogBody> {
                        return LogBody(format::CloseRecord{numbered_uuid(2)});
                      })
                      .ok());
    }
    return Fault::kNone;
  });
  collect();
  EXPECT_FALSE(once);
  // What was read as live stays live for this run; the next one takes it.
  EXPECT_EQ(objects_of(3) + objects_of(2), 0u);
  EXPECT_EQ(objects_of(1), 4u);
  collect();
  EXPECT_EQ(objects_of(1), 0u);
}

TEST_F(GcTest, DeletesOnlyAfterTheCondemnRecordIsDurable) {
  const CommitSeq a = save(1, 10);
  append(format::PruneRecord{a});
  collect();
  const auto journal = store_.journal();
  const auto removed = std::find_if(journal.begin(), journal.end(), [](const std::string& entry) {
    return entry.starts_with("remove data/");
  });
  ASSERT_NE(removed, journal.end());
  EXPECT_EQ(*(removed - 1), "sync log/");
  EXPECT_EQ(*(removed - 2), "put " + format::log_key(log_->state()->seq()));
}

TEST_F(GcTest, GoesOnWhereItWasStopped) {
  const CommitSeq a = save(1, 10);
  append(format::PruneRecord{a});
  for (int removals = 0; removals < 5; ++removals) {
    store_.set_hook([left = removals % 2](std::string_view operation, std::string_view) mutable {
      return operation == "remove" && left-- <= 0 ? Fault::kBefore : Fault::kNone;
    });
    static_cast<void>(run_gc(store_, *log_));
  }
  store_.set_hook({});
  EXPECT_LT(objects_of(1), 4u);
  collect();
  EXPECT_EQ(objects_of(1), 0u);
}

TEST_F(GcTest, AStaleListingOnlyDelays) {
  const CommitSeq a = save(1, 10);
  append(format::PruneRecord{a});
  store_.set_hook([](std::string_view operation, std::string_view key) {
    return operation == "list" && key.ends_with(".pack") ? Fault::kUnseen : Fault::kNone;
  });
  collect();
  EXPECT_EQ(objects_of(1), 1u);
  store_.set_hook({});
  collect();
  EXPECT_EQ(objects_of(1), 0u);
}

TEST_F(GcTest, EndsSavesOfDeadWriters) {
  format::WriterInfo dead = this_process();
  dead.pid_start_ticks += 1;  // somebody who had our pid before
  auto opened = Log::open(store_, uuids_, dead, clock_);
  ASSERT_TRUE(opened.ok());
  ASSERT_TRUE(
      (*opened)
          ->append([](const LogState&) -> Result<LogBody> { return LogBody(open_save(1, 10)); })
          .ok());
  put(pack(1));
  ASSERT_TRUE(log_->refresh().ok());
  begin(2, 20);
  EXPECT_TRUE(collect({.dry_run = true}).open_saves[0].provably_dead);
  const GcReport report = collect();
  EXPECT_EQ(report.saves_closed, 1u);
  EXPECT_EQ(objects_of(1), 0u);
  EXPECT_EQ(objects_of(2), 3u) << "nobody knows whether that one lives";
}

}  // namespace
}  // namespace caisson

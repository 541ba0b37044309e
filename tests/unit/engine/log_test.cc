#include "engine/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "tests/support/log_records.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/seeded.h"

namespace caisson {
namespace {

using Fault = MemoryObjectStore::Fault;
using format::log_key;
using format::LogBody;
using testing::HasSubstr;

class LogTest : public testing::Test {
 protected:
  std::unique_ptr<Log> open_log() {
    auto log = Log::open(store_, uuids_, {.host = "host", .pid = 1}, clock_);
    EXPECT_TRUE(log.ok()) << log.status().to_string();
    return std::move(log).value();
  }
  Status open_status() { return Log::open(store_, uuids_, {}, clock_).status(); }
  static Log::MakeBody record(LogBody body) {
    return [body = std::move(body)](const LogState&) -> Result<LogBody> { return body; };
  }
  static Log::MakeBody next_claim(std::string run) {
    return [run = std::move(run)](const LogState& state) -> Result<LogBody> {
      const auto known = state.runs().find(run);
      return LogBody(claim_run(known == state.runs().end() ? 1 : known->second.epoch + 1, 0, run));
    };
  }
  // The fault for the next put of a log record only.
  void fail_next_put(Fault fault) {
    store_.set_hook([fault, left = 1](std::string_view operation, std::string_view key) mutable {
      if (operation != "put" || !key.starts_with("log/") || left-- <= 0) return Fault::kNone;
      return fault;
    });
  }

  MemoryObjectStore store_;
  SeededUuids uuids_{1};
  FixedClock clock_;
};

TEST_F(LogTest, WritersSeeEachOther) {
  const auto a = open_log(), b = open_log();
  EXPECT_EQ(a->append(record(claim_run(1))).value(), 1u);
  EXPECT_EQ(b->append(record(open_save(1, 10))).value(), 2u);
  EXPECT_EQ(a->state()->seq(), 1u);
  const auto old = a->state();
  EXPECT_EQ(a->refresh().value()->open_saves().size(), 1u);
  EXPECT_EQ(a->append(record(commit_save(1, 10))).value(), 3u);
  EXPECT_EQ(old->seq(), 1u) << "a state that was given out never changes";
  EXPECT_NE(b->refresh().value()->latest("r"), nullptr);
  EXPECT_EQ(b->append(record(claim_run(1))).status().code(), StatusCode::kFenced);
  EXPECT_EQ(open_log()->state()->encode(), b->state()->encode());
}

TEST_F(LogTest, AsksAgainWhenAnotherWasFirst) {
  const auto a = open_log(), b = open_log();
  ASSERT_TRUE(a->append(record(claim_run(1))).ok());
  int asked = 0;
  const auto seq = a->append([&](const LogState& state) -> Result<LogBody> {
    if (++asked == 1) {
      EXPECT_TRUE(b->append(record(open_save(1, 10))).ok());
    }
    EXPECT_EQ(state.open_saves().size(), asked == 1 ? 0u : 1u);
    return LogBody(open_save(2, 20));
  });
  EXPECT_EQ(seq.value(), 3u);
  EXPECT_EQ(asked, 2);
}

TEST_F(LogTest, ARefusalAppendsNothing) {
  const auto log = open_log();
  const auto refuse = [](const LogState&) -> Result<LogBody> { return not_found("no"); };
  EXPECT_EQ(log->append(refuse).status().code(), StatusCode::kNotFound);
  EXPECT_TRUE(store_.keys("").empty());
}

TEST_F(LogTest, AnUnknownOutcomeThatHappenedIsOkOnceItsNameIsDurable) {
  const auto log = open_log();
  fail_next_put(Fault::kAfter);
  EXPECT_EQ(log->append(record(claim_run(1))).value(), 1u);
  EXPECT_THAT(store_.journal(), testing::ElementsAre("put " + log_key(1), "sync log/"));
  store_.set_hook([](std::string_view operation, std::string_view key) {
    const bool bad = (operation == "put" && key == log_key(2)) || operation == "sync";
    return bad ? Fault::kAfter : Fault::kNone;
  });
  const auto unsure = log->append(record(open_save(1, 10)));
  EXPECT_EQ(unsure.status().code(), StatusCode::kIoError);
  EXPECT_THAT(unsure.status().to_string(), HasSubstr("unknown"));
  store_.set_hook({});
  EXPECT_EQ(log->refresh().value()->open_saves().size(), 1u);
}

TEST_F(LogTest, AnUnknownOutcomeThatDidNotHappenIsAnErrorAndIsNotTriedAgain) {
  const auto log = open_log();
  fail_next_put(Fault::kBefore);
  const auto failed = log->append(record(claim_run(1)));
  EXPECT_EQ(failed.status().code(), StatusCode::kIoError);
  EXPECT_THAT(failed.status().to_string(), HasSubstr(log_key(1)));
  EXPECT_TRUE(store_.keys("log/").empty());
  EXPECT_EQ(log->append(record(claim_run(1))).value(), 1u);
}

TEST_F(LogTest, AnUnknownOutcomeAtATakenPlaceGoesOn) {
  const auto a = open_log(), b = open_log();
  ASSERT_TRUE(a->append(record(claim_run(1))).ok());
  bool lost = false;
  store_.set_hook([&](std::string_view operation, std::string_view key) {
    if (lost || operation != "put" || key != log_key(2)) return Fault::kNone;
    lost = true;
    EXPECT_TRUE(b->append(record(open_save(1, 10))).ok());
    return Fault::kBefore;
  });
  EXPECT_EQ(a->append(record(open_save(2, 20))).value(), 3u);
}

TEST_F(LogTest, ReadsThatLagAreWaitedFor) {
  const auto a = open_log(), b = open_log();
  ASSERT_TRUE(a->append(record(claim_run(1))).ok());
  int hidden = 3;
  store_.set_hook([&](std::string_view operation, std::string_view key) {
    return operation == "get" && key == log_key(1) && hidden-- > 0 ? Fault::kUnseen : Fault::kNone;
  });
  EXPECT_EQ(b->append(record(open_save(1, 10))).status().code(), StatusCode::kInvalidArgument)
      << "decided on what was seen, and nothing was appended";
  EXPECT_EQ(b->append(next_claim("other")).value(), 2u);
}

TEST_F(LogTest, ADamagedRecordStopsEverythingAndSaysWhatToDo) {
  const auto log = open_log();
  ASSERT_TRUE(log->append(record(claim_run(1))).ok());
  ASSERT_TRUE(log->append(record(open_save(1, 10))).ok());
  ByteVector bytes = store_.get(log_key(2), 1 << 20).value();
  bytes.back() ^= std::byte{1};
  store_.damage(log_key(2), bytes);
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_THAT(status.to_string(), HasSubstr(log_key(2)));
  EXPECT_THAT(status.to_string(), HasSubstr("docs/operations.md"));
}

TEST_F(LogTest, ALostRecordIsNoticed) {
  const auto log = open_log();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(log->append(next_claim("r")).ok());
  ASSERT_TRUE(store_.remove(log_key(2)).ok());
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_THAT(status.to_string(), HasSubstr(log_key(2)));
}

TEST_F(LogTest, SeveralLostRecordsAreNoticed) {
  const auto log = open_log();
  for (int i = 0; i < 9; ++i) ASSERT_TRUE(log->append(next_claim("r")).ok());
  for (uint64_t seq = 3; seq <= 7; ++seq) ASSERT_TRUE(store_.remove(log_key(seq)).ok());
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_THAT(status.to_string(), HasSubstr(log_key(3)));
}

// However wide the gap is and wherever the last record stands: also between the places that a
// sparse look would pick.
TEST_F(LogTest, AGapOfAnyWidthIsNoticed) {
  const auto log = open_log();
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(log->append(next_claim("r")).ok());
  const MemoryObjectStore::Objects whole = store_.objects();
  for (const uint64_t first : {2u, 7u, 31u}) {
    for (const uint64_t width : {1u, 6u, 7u, 8u, 9u, 14u, 25u, 38u}) {
      if (first + width > 40) continue;
      store_.objects() = whole;
      for (uint64_t seq = first; seq < first + width; ++seq) store_.objects().erase(log_key(seq));
      const Status status = open_status();
      ASSERT_EQ(status.code(), StatusCode::kCorruption) << first << " + " << width;
      ASSERT_THAT(status.to_string(), HasSubstr(log_key(first)));
    }
  }
}

// Nobody may begin a new log over the data of a lost one.
TEST_F(LogTest, ALogThatIsGoneIsNoNewStore) {
  const auto log = open_log();
  ASSERT_TRUE(log->append(next_claim("r")).ok());
  store_.damage("data/notes", {});
  const std::string part = object_of(1, format::ObjectKind::kPart, 0).key();
  store_.damage(part, {});
  store_.objects().erase(log_key(1));
  const Status status = open_status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_THAT(status.to_string(), AllOf(HasSubstr(log_key(1)), HasSubstr(part)));
  store_.objects().erase(part);
  EXPECT_TRUE(open_status().ok()) << "a stranger's file is no data";
}

// A first save may come between the look at the log and the look at its data.
TEST_F(LogTest, AnotherMayBeginTheLogMeanwhile) {
  const auto other = open_log();
  const std::string part = object_of(1, format::ObjectKind::kPart, 0).key();
  store_.set_hook([&](std::string_view operation, std::string_view key) {
    if (operation == "list" && key == "data/" && !store_.has(part)) {
      store_.damage(part, {});
      EXPECT_TRUE(other->append(next_claim("r")).ok());
    }
    return Fault::kNone;
  });
  EXPECT_EQ(open_log()->state()->seq(), 1u);
  EXPECT_TRUE(store_.has(part));
}

TEST_F(LogTest, StrangersInTheLogAreNoRecords) {
  const auto log = open_log();
  ASSERT_TRUE(log->append(next_claim("r")).ok());
  for (const char* key : {"log/notes", "log/zz", "log/f", "log/00000000000000ff.bak", "log/a/b"}) {
    store_.damage(key, {});
  }
  EXPECT_TRUE(open_status().ok());
  EXPECT_TRUE(log->append(next_claim("r")).ok());
}

// A gap that opens while a writer runs: what it appended there would hide it for ever.
TEST_F(LogTest, NothingIsAppendedIntoAGap) {
  const auto behind = open_log();
  ASSERT_TRUE(behind->append(next_claim("r")).ok());
  const auto log = open_log();
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(log->append(next_claim("r")).ok());
  ASSERT_TRUE(store_.remove(log_key(2)).ok());
  const Status status = behind->append(next_claim("r")).status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_THAT(status.to_string(), HasSubstr(log_key(2)));
  EXPECT_FALSE(store_.has(log_key(2)));
}

TEST_F(LogTest, NothingIsAppendedToAStoreThatIsGone) {
  const auto log = open_log();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(log->append(next_claim("r")).ok());
  for (uint64_t seq = 1; seq <= 3; ++seq) ASSERT_TRUE(store_.remove(log_key(seq)).ok());
  EXPECT_EQ(log->append(next_claim("r")).status().code(), StatusCode::kCorruption);
  EXPECT_TRUE(store_.keys("log/").empty());
}

TEST_F(LogTest, SnapshotsShortenTheReadingAndNothingElse) {
  const auto log = open_log();
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(log->append(next_claim("r")).ok());
    ASSERT_TRUE(log->snapshot_if_due(3).ok());
  }
  EXPECT_THAT(store_.keys("snapshots/"),
              testing::ElementsAre(format::snapshot_key(6), format::snapshot_key(9)));
  int reads = 0;
  store_.set_hook([&](std::string_view operation, std::string_view key) {
    if (operation == "get" && key.starts_with("log/")) ++reads;
    return Fault::kNone;
  });
  EXPECT_EQ(open_log()->state()->encode(), log->state()->encode());
  EXPECT_EQ(reads, 2);  // record 10, and that there is no 11
  store_.damage(format::snapshot_key(9), {});
  EXPECT_EQ(open_log()->state()->encode(), log->state()->encode());
  store_.damage(format::snapshot_key(6), {});
  EXPECT_EQ(open_log()->state()->encode(), log->state()->encode());
  // The names of records are made durable before a snapshot stands for them.
  const auto journal = store_.journal();
  const auto put = std::find(journal.begin(), journal.end(), "put " + format::snapshot_key(3));
  ASSERT_NE(put, journal.end());
  EXPECT_EQ(*(put - 1), "sync log/");
}

TEST_F(LogTest, ASnapshotNeverStandsForRecordsThatAreNotThere) {
  const auto log = open_log();
  ASSERT_TRUE(log->append(next_claim("r")).ok());
  ASSERT_TRUE(log->append(next_claim("r")).ok());
  ASSERT_TRUE(log->snapshot_if_due(1).ok());
  ASSERT_TRUE(store_.remove(log_key(2)).ok());
  EXPECT_EQ(open_status().code(), StatusCode::kCorruption);
}

TEST_F(LogTest, ManyWritersLoseNothing) {
  constexpr int kThreads = 4, kAppends = 40;
  const auto shared = open_log();
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      const auto own = open_log();
      for (int i = 0; i < kAppends; ++i) {
        Log& log = i % 2 == 0 ? *own : *shared;
        EXPECT_TRUE(log.append(next_claim("run" + std::to_string(t))).ok());
        EXPECT_GT(log.state()->seq(), 0u);
      }
    });
  }
  threads.clear();
  const auto state = shared->refresh().value();
  EXPECT_EQ(state->seq(), uint64_t{kThreads * kAppends});
  for (int t = 0; t < kThreads; ++t) {
    EXPECT_EQ(state->runs().at("run" + std::to_string(t)).epoch, uint64_t{kAppends});
  }
}

// A pid namespace that still has the /proc of the one outside: there our pid is another process,
// and a live save would be taken for a dead one's.
TEST(WriterInfoTest, AForeignProcIsNoProof) {
  constexpr int kNotAllowed = 77;
  const pid_t outer = ::fork();
  if (outer == 0) {
    if (::unshare(CLONE_NEWPID) != 0) ::_exit(kNotAllowed);
    const pid_t inner = ::fork();  // the first of the new namespace
    if (inner == 0) ::_exit(is_provably_dead(this_process()) ? 1 : 0);
    int status = 0;
    ::waitpid(inner, &status, 0);
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(outer, &status, 0), outer);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotAllowed) GTEST_SKIP() << "needs the right to unshare";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(WriterInfoTest, OnlyProofCounts) {
  format::WriterInfo self = this_process();
  EXPECT_FALSE(is_provably_dead(self));
  int gate[2];
  ASSERT_EQ(::pipe(gate), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = 0;
    ::_exit(::read(gate[0], &byte, 1) == 1 ? 0 : 1);
  }
  std::ifstream stat("/proc/" + std::to_string(child) + "/stat");
  format::WriterInfo writer = self;
  writer.pid = static_cast<uint64_t>(child);
  std::string field;
  for (int i = 0; i < 22; ++i) stat >> field;
  writer.pid_start_ticks = std::stoull(field);
  EXPECT_FALSE(is_provably_dead(writer));
  ASSERT_EQ(::write(gate[1], "x", 1), 1);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(is_provably_dead(writer));
  format::WriterInfo elsewhere = writer;
  elsewhere.host += "x";
  EXPECT_FALSE(is_provably_dead(elsewhere));
  elsewhere = writer;
  elsewhere.boot_id += "x";
  EXPECT_FALSE(is_provably_dead(elsewhere));
  // The pid is taken again, by a process that started later.
  self.pid_start_ticks += 1;
  EXPECT_TRUE(is_provably_dead(self));
  ::close(gate[0]);
  ::close(gate[1]);
}

}  // namespace
}  // namespace caisson

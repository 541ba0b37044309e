#include "engine/log_state.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/support/log_records.h"

namespace caisson {
namespace {

using format::CloseRecord;
using format::CommitSeq;
using format::CondemnRecord;
using format::LogBody;
using format::ObjectKind;
using format::PruneRecord;
using format::ReplaceRecord;

class LogStateTest : public testing::Test {
 protected:
  // Applies whether or not it may follow, as a reader does.
  StatusCode add(const LogBody& body) {
    const StatusCode code = state_.check(body).code();
    format::LogRecord record{.seq = state_.seq() + 1, .nonce = {}, .writer = {}, .body = body};
    record.writer.host = "host";
    record.writer.pid = record.seq;
    const ByteVector before = code == StatusCode::kOk ? ByteVector() : body_of(state_);
    state_.apply(record);
    if (code != StatusCode::kOk) {
      EXPECT_EQ(body_of(state_), before) << "a refused record had an effect";
    }
    return code;
  }
  // One save from open to commit; its commit's place.
  CommitSeq commit(uint8_t save, uint64_t step, uint64_t epoch = 1) {
    EXPECT_EQ(add(open_save(save, step, epoch)), StatusCode::kOk);
    EXPECT_EQ(add(commit_save(save, step, epoch)), StatusCode::kOk);
    return state_.seq();
  }
  CommitSeq latest() const {
    const Checkpoint* checkpoint = state_.latest("r");
    return checkpoint == nullptr ? 0 : checkpoint->seq;
  }
  // The encoding without envelope and position.
  static ByteVector body_of(const LogState& state) {
    const ByteVector bytes = state.encode();
    return {bytes.begin() + 64 + 1, bytes.end()};
  }

  LogState state_;
};

TEST_F(LogStateTest, ASaveNeedsTheRunsEpochAndLiveBases) {
  EXPECT_EQ(add(open_save(1, 10)), StatusCode::kInvalidArgument);  // never claimed
  EXPECT_EQ(add(claim_run(2)), StatusCode::kFenced);
  EXPECT_EQ(add(claim_run(1)), StatusCode::kOk);
  EXPECT_EQ(add(claim_run(1)), StatusCode::kFenced);
  EXPECT_EQ(add(open_save(1, 10, 2)), StatusCode::kFenced);
  EXPECT_EQ(add(open_save(1, 10, 1, {2})), StatusCode::kNotFound);
  const CommitSeq base = commit(1, 10);
  EXPECT_EQ(add(open_save(2, 20, 1, {base})), StatusCode::kOk);
  EXPECT_EQ(add(PruneRecord{base}), StatusCode::kOk);
  EXPECT_EQ(add(open_save(3, 30, 1, {base})), StatusCode::kNotFound);
  EXPECT_EQ(add(open_save(1, 40)), StatusCode::kAlreadyExists) << "a uuid used before";
}

TEST_F(LogStateTest, ACommitNeedsItsOpenSave) {
  add(claim_run(1));
  EXPECT_EQ(add(commit_save(1, 10)), StatusCode::kNotFound);
  add(open_save(1, 10));
  EXPECT_EQ(add(commit_save(1, 11)), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(commit_save(1, 10, 2)), StatusCode::kInvalidArgument);
  format::CommitRecord foreign = commit_save(1, 10);
  foreign.root = root_of(2);
  EXPECT_EQ(add(foreign), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(commit_save(1, 10)), StatusCode::kOk);
  EXPECT_EQ(add(commit_save(1, 10)), StatusCode::kAlreadyExists);
  add(open_save(2, 20));
  EXPECT_EQ(add(CloseRecord{numbered_uuid(2)}), StatusCode::kOk);
  EXPECT_EQ(add(commit_save(2, 20)), StatusCode::kFenced);
  EXPECT_EQ(add(CloseRecord{numbered_uuid(2)}), StatusCode::kFenced);
}

TEST_F(LogStateTest, AClaimFencesEverySaveOfItsRunAndNoOther) {
  add(claim_run(1));
  add(claim_run(1, 0, "other"));
  add(open_save(1, 10));
  add(open_save(2, 10, 1, {}, "other"));
  EXPECT_EQ(add(claim_run(2)), StatusCode::kOk);
  EXPECT_EQ(add(commit_save(1, 10)), StatusCode::kFenced);
  EXPECT_EQ(add(commit_save(2, 10, 1, false, "other")), StatusCode::kOk);
  EXPECT_TRUE(state_.ended_saves().contains(numbered_uuid(1)));
  EXPECT_EQ(latest(), 0u);
}

TEST_F(LogStateTest, AClaimOfAnOlderCheckpointRollsTheNewerOnesBack) {
  add(claim_run(1));
  const CommitSeq a = commit(1, 10), b = commit(2, 20), c = commit(3, 30);
  EXPECT_EQ(add(claim_run(2, a)), StatusCode::kOk);
  EXPECT_EQ(latest(), a);
  EXPECT_TRUE(state_.checkpoints().at(b).rolled_back);
  const CommitSeq d = commit(4, 40, 2);
  EXPECT_EQ(state_.checkpoints().at(d).parent, a);
  // Back to the first line: all of it, and only it.
  EXPECT_EQ(add(claim_run(3, c)), StatusCode::kOk);
  EXPECT_EQ(latest(), c);
  EXPECT_FALSE(state_.checkpoints().at(b).rolled_back);
  EXPECT_TRUE(state_.checkpoints().at(d).rolled_back);
  // The line closes over what is pruned, and latest falls back along it.
  EXPECT_EQ(add(PruneRecord{b}), StatusCode::kOk);
  EXPECT_EQ(add(PruneRecord{c}), StatusCode::kOk);
  EXPECT_EQ(latest(), a);
  EXPECT_EQ(add(PruneRecord{c}), StatusCode::kNotFound);
}

TEST_F(LogStateTest, ANameHasOneLiveCheckpoint) {
  add(claim_run(1));
  const CommitSeq a = commit(1, 10);
  add(open_save(2, 20));
  add(open_save(3, 20));
  add(commit_save(2, 20));
  const CommitSeq b = state_.seq();
  EXPECT_EQ(add(commit_save(3, 20)), StatusCode::kAlreadyExists);
  EXPECT_EQ(add(commit_save(3, 20, 1, true)), StatusCode::kOk);
  EXPECT_EQ(state_.find("r", 20)->save, numbered_uuid(3));
  EXPECT_FALSE(state_.checkpoints().contains(b));
  EXPECT_EQ(state_.latest("r")->parent, a);
  // One that was rolled back makes room without being asked.
  add(claim_run(2, a));
  add(open_save(4, 20, 2));
  EXPECT_EQ(add(commit_save(4, 20, 2)), StatusCode::kOk);
  EXPECT_EQ(state_.find("r", 20)->save, numbered_uuid(4));
  EXPECT_EQ(state_.checkpoints().size(), 2u);
}

TEST_F(LogStateTest, BasesOfOpenSavesAreKept) {
  add(claim_run(1));
  const CommitSeq a = commit(1, 10);
  add(open_save(2, 20, 1, {a}));
  add(PruneRecord{a});
  ASSERT_EQ(state_.roots_to_keep().size(), 1u);
  EXPECT_EQ(state_.roots_to_keep()[0], root_of(1));
  EXPECT_EQ(add(CondemnRecord{.objects = {root_of(1).object}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(CondemnRecord{.saves = {numbered_uuid(1)}}), StatusCode::kInvalidArgument);
  add(CloseRecord{numbered_uuid(2)});
  EXPECT_TRUE(state_.roots_to_keep().empty());
  EXPECT_EQ(add(CondemnRecord{.saves = {numbered_uuid(1), numbered_uuid(2)}}), StatusCode::kOk);
  EXPECT_TRUE(state_.ended_saves().empty());
}

TEST_F(LogStateTest, OnlyWhatIsOverCanBeCondemned) {
  add(claim_run(1));
  commit(1, 10);
  add(open_save(2, 20));
  const auto pack = [](uint8_t save) { return object_of(save, ObjectKind::kPack); };
  EXPECT_EQ(add(CondemnRecord{}), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(CondemnRecord{.objects = {pack(2)}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(CondemnRecord{.objects = {pack(9)}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(CondemnRecord{.saves = {numbered_uuid(1)}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(CondemnRecord{.objects = {root_of(1).object}}), StatusCode::kInvalidArgument);
  EXPECT_EQ(add(CondemnRecord{.objects = {pack(1)}}), StatusCode::kOk);  // a part that was retried
  EXPECT_TRUE(state_.is_condemned(pack(1)));
  EXPECT_FALSE(state_.is_condemned(object_of(1, ObjectKind::kPack, 1)));
  add(PruneRecord{state_.find("r", 10)->seq});
  EXPECT_EQ(add(CondemnRecord{.saves = {numbered_uuid(1)}}), StatusCode::kOk);
  EXPECT_TRUE(state_.is_condemned(object_of(1, ObjectKind::kPack, 1)));
}

TEST_F(LogStateTest, AReplacementIsASaveThatEndsInAnotherRecord) {
  add(claim_run(1));
  const CommitSeq a = commit(1, 10);
  add(open_save(2, 10, 1, {a}));
  add(open_save(3, 10, 1, {a}));
  EXPECT_EQ(add(ReplaceRecord{a, root_of(9), root_of(2)}), StatusCode::kFenced);
  EXPECT_EQ(add(ReplaceRecord{a, root_of(1), root_of(2)}), StatusCode::kOk);
  EXPECT_EQ(state_.find("r", 10)->root, root_of(2));
  EXPECT_TRUE(state_.ended_saves().contains(numbered_uuid(1)));
  EXPECT_EQ(state_.roots_to_keep().size(), 2u) << "the base of save 3 is the old root";
  EXPECT_EQ(add(ReplaceRecord{a, root_of(1), root_of(3)}), StatusCode::kFenced);
}

// Random records, valid or not: what decode gives back behaves as what was encoded.
TEST_F(LogStateTest, SnapshotsCarryTheWholeState) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    const auto pick = [&](uint32_t bound) { return static_cast<uint8_t>(random() % bound); };
    state_ = LogState();
    add(claim_run(1));
    for (int i = 0; i < 120; ++i) {
      const uint64_t epoch = state_.runs().at("r").epoch;
      const CommitSeq some = random() % (state_.seq() + 1);
      switch (pick(9)) {
        case 0:
          add(claim_run(epoch + 1, pick(3) == 0 ? 0 : some));
          break;
        case 1:
          add(PruneRecord{some});
          break;
        case 2:
          add(CloseRecord{numbered_uuid(pick(60))});
          break;
        case 3:
          add(CondemnRecord{.saves = {numbered_uuid(pick(60))}});
          break;
        case 4:
          add(CondemnRecord{.objects = {object_of(pick(60), ObjectKind::kPack)}});
          break;
        case 5:
          add(open_save(pick(60), pick(8), epoch, {some}));
          break;
        case 6:
          add(open_save(pick(60), pick(8), epoch));
          break;
        default:
          if (!state_.open_saves().empty()) {
            const OpenSave& open = state_.open_saves().begin()->second;
            add(commit_save(static_cast<uint8_t>(open.save.bytes.back()), open.step, open.epoch,
                            pick(2) == 0));
          }
      }
      const ByteVector bytes = state_.encode();
      const Result<LogState> back = LogState::decode(state_.seq(), bytes);
      ASSERT_TRUE(back.ok()) << back.status().to_string();
      EXPECT_EQ(back->encode(), bytes);
      EXPECT_EQ(back->roots_to_keep(), state_.roots_to_keep());
      if (pick(4) == 0) state_ = *back;  // go on from the decoded one
    }
    EXPECT_FALSE(LogState::decode(state_.seq() + 1, state_.encode()).ok());
  }
}

TEST_F(LogStateTest, DamagedSnapshotsAreRefused) {
  add(claim_run(1));
  const CommitSeq a = commit(1, 10);
  add(open_save(2, 20, 1, {a}));
  const ByteVector good = state_.encode();
  for (size_t at = 0; at < good.size(); ++at) {
    ByteVector bad = good;
    bad[at] ^= std::byte{1};
    EXPECT_FALSE(LogState::decode(state_.seq(), bad).ok()) << "byte " << at;
    bad.resize(at);
    EXPECT_FALSE(LogState::decode(state_.seq(), bad).ok()) << "cut to " << at;
  }
}

TEST(UuidSetTest, CopiesShareAndNothingIsLost) {
  UuidSet set;
  std::vector<UuidSet> copies;
  std::mt19937 random(7);
  std::set<Uuid> expected;
  for (int i = 0; i < 2000; ++i) {
    Uuid uuid;
    store_le<uint64_t>(uuid.bytes.data(), random() % 5000);
    set.insert(uuid);
    expected.insert(uuid);
    if (i % 500 == 0) copies.push_back(set);
  }
  EXPECT_EQ(set.size(), expected.size());
  EXPECT_EQ(set.sorted(), std::vector<Uuid>(expected.begin(), expected.end()));
  EXPECT_EQ(copies[0].size(), 1u);
}

}  // namespace
}  // namespace caisson

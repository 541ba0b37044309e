// Opening
//   1. list snapshots/, take the newest that decodes; a damaged one only costs reading time. The
//      record at its place must exist: a snapshot never stands for records that are not there.
//   2. read log/<seq + 1>, log/<seq + 2>, ... until not found, folding each into the state
//   3. nothing may stand after that: a gap means that records were lost. The next few places are
//      looked at one by one, and the names beyond are listed, so that a gap of any width is seen.
//      Where no record is found at all there is no data either: a save writes after its `open`
// Appending
//   1. read on, as opening 2. The place after the next must be empty: a record put into a gap would
//      hide it for ever
//   2. make the names of the records read durable (sync_names), unless they are known to be: their
//      writers may not have come to that, and a crash must not keep our record and lose theirs
//   3. the last record that was read must still be there: a store that was moved away or unmounted
//      must not begin again, empty, under its old path. Ask the caller for the record; check it
//      against the state; refuse what may not follow
//   4. put_new(log/<seq + 1>) with a fresh nonce
//   5. ok: the record is durable; fold it in; done
//   6. already exists: another writer was first; from 1 again
//   7. any other failure: the outcome is unknown. Read log/<seq + 1>:
//        our nonce   make the name durable (sync_names); done
//        another's   from 1 again
//        nothing     give the failure back: it may still appear, so it is not tried again
// Snapshots
//   1. sync_names("log/"): a record that we read may not be durable yet, and must not be lost
//      while a snapshot says that it happened
//   2. put_new(snapshots/<seq>); whoever was first wrote the same bytes
//   3. remove all but the newest two
// Records are never removed.
#include "engine/log.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace caisson {

namespace {

constexpr uint64_t kSnapshotBytesMax = 1u << 30;
constexpr size_t kSnapshotsKept = 2;
// Each lost race means that another writer got on, so only a store that is hammered gets here.
constexpr int kRacesMax = 10000;
// A store may say "exists" before its readers can see it (NFS attribute caches): about 4 s in all.
constexpr int kUnseenMax = 11;
constexpr uint64_t kGapPlaces = 7;  // that opening 3 looks at without trusting a listing
constexpr int kGapLooksMax = 7;     // of a gap it is enough to be sure that it is no passing one

Status damaged(const Status& status, const std::string& key) {
  std::string message(status.message());
  if (!message.starts_with(key)) message = key + ": " + message;
  return Status(status.code(), message +
                                   "; nothing can be decided without this record. Next: "
                                   "docs/operations.md, \"A damaged log\"");
}

// The position that a key of the log or of its snapshots ends with; the caller makes the key again
// and compares. 0: none.
uint64_t position_in(std::string_view key) {
  const std::string_view digits = key.substr(key.rfind('/') + 1);
  uint64_t seq = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), seq, 16);
  return parsed.ec == std::errc() ? seq : 0;
}

// Positions of the snapshots, newest first.
Result<std::vector<uint64_t>> list_snapshots(ObjectStore& objects) {
  std::vector<uint64_t> found;
  CAISSON_RETURN_IF_ERROR(objects.list("snapshots/", [&](const ObjectInfo& info) {
    const uint64_t seq = position_in(info.key);
    if (seq != 0 && info.key == format::snapshot_key(seq)) found.push_back(seq);
    return ok_status();
  }));
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

}  // namespace

Log::Log(ObjectStore& objects, UuidSource& uuids, format::WriterInfo self, Clock& clock)
    : objects_(objects), uuids_(uuids), self_(std::move(self)), clock_(clock) {}

Result<std::unique_ptr<Log>> Log::open(ObjectStore& objects, UuidSource& uuids,
                                       format::WriterInfo self, Clock& clock) {
  auto log = std::unique_ptr<Log>(new Log(objects, uuids, std::move(self), clock));
  MutexLock lock(log->mutex_);
  CAISSON_RETURN_IF_ERROR(log->load_snapshot_locked());
  CAISSON_RETURN_IF_ERROR(log->catch_up_locked());
  CAISSON_RETURN_IF_ERROR(log->check_no_gap_locked(Look::kAll));
  return log;
}

// Opening 1.
Status Log::load_snapshot_locked() {
  CAISSON_ASSIGN_OR_RETURN(const std::vector<uint64_t> snapshots, list_snapshots(objects_));
  for (const uint64_t seq : snapshots) {
    const std::string key = format::snapshot_key(seq);
    const Result<ByteVector> bytes = objects_.get(key, kSnapshotBytesMax);
    if (!bytes.ok()) continue;
    Result<LogState> state = LogState::decode(seq, *bytes);
    if (!state.ok()) continue;
    const Result<ObjectInfo> record = objects_.stat(format::log_key(seq));
    if (record.status().code() == StatusCode::kNotFound) {
      return damaged(corruption("is missing, though " + key + " was made after it"),
                     format::log_key(seq));
    }
    CAISSON_RETURN_IF_ERROR(record.status());
    state_ = std::move(state).value();
    snapshot_seq_ = seq;
    return ok_status();
  }
  return ok_status();
}

Result<format::LogRecord> Log::read_record(uint64_t seq) {
  const std::string key = format::log_key(seq);
  const Result<ByteVector> bytes =
      objects_.get(key, format::kLogRecordBytesMax + format::kEnvelopeBytes);
  if (!bytes.ok()) {
    if (bytes.status().code() == StatusCode::kNotFound) return bytes.status();
    return damaged(bytes.status(), key);
  }
  Result<format::LogRecord> record = format::decode_log_record(seq, *bytes);
  if (!record.ok()) return damaged(record.status(), key);
  return record;
}

// Opening 2.
Status Log::catch_up_locked() {
  for (;;) {
    const Result<format::LogRecord> record = read_record(state_.seq() + 1);
    if (record.status().code() == StatusCode::kNotFound) return ok_status();
    CAISSON_RETURN_IF_ERROR(record.status());
    if (!format::may_write(record->features)) newer_seq_ = record->seq;
    state_.apply(*record);
  }
}

// An object that is there only if a record was at the first empty place; empty: none. Only an
// opening looks beyond the place after it: what an append passes over was there at no opening, so
// it is the next one's to find.
Result<std::string> Log::proof_of_gap_locked(Look look) {
  const uint64_t places = look == Look::kNext ? 1 : kGapPlaces;
  for (uint64_t ahead = 2; ahead < 2 + places; ++ahead) {
    const std::string key = format::log_key(state_.seq() + ahead);
    const Result<ObjectInfo> beyond = objects_.stat(key);
    if (beyond.ok()) return key;
    if (beyond.status().code() != StatusCode::kNotFound) return beyond.status();
  }
  std::string proof;
  if (look == Look::kNext) return proof;
  const std::string next = format::log_key(state_.seq() + 1);
  CAISSON_RETURN_IF_ERROR(objects_.list_after("log/", next, [&](const ObjectInfo& info) {
    const uint64_t seq = position_in(info.key);
    if (seq != 0 && info.key == format::log_key(seq)) proof = std::max(proof, info.key);
    return ok_status();
  }));
  if (!proof.empty() || state_.seq() != 0) return proof;
  const Status listed = objects_.list("data/", [&](const ObjectInfo& info) {
    if (!format::object_ref_of(info.key).ok()) return ok_status();
    proof = info.key;
    return cancelled("one is enough");
  });
  if (proof.empty()) CAISSON_RETURN_IF_ERROR(listed);
  return proof;
}

// Opening 3, and the end of appending 1.
Status Log::check_no_gap_locked(Look look) {
  for (int attempt = 0;; ++attempt) {
    const uint64_t seq = state_.seq();
    CAISSON_ASSIGN_OR_RETURN(const std::string proof, proof_of_gap_locked(look));
    if (proof.empty()) return ok_status();
    // Others may have appended both since we looked.
    CAISSON_RETURN_IF_ERROR(catch_up_locked());
    if (state_.seq() > seq) {
      attempt = -1;
      continue;
    }
    if (attempt < kGapLooksMax) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1 << attempt));
      continue;
    }
    return damaged(corruption("is missing, though " + proof + " is there"),
                   format::log_key(seq + 1));
  }
}

std::shared_ptr<const LogState> Log::publish_locked() const {
  if (!published_ || published_->seq() != state_.seq()) {
    published_ = std::make_shared<const LogState>(state_);
  }
  return published_;
}

std::shared_ptr<const LogState> Log::state() const {
  MutexLock lock(mutex_);
  return publish_locked();
}

Result<std::shared_ptr<const LogState>> Log::refresh() {
  MutexLock lock(mutex_);
  CAISSON_RETURN_IF_ERROR(catch_up_locked());
  return publish_locked();
}

// Appending 2.
Status Log::make_names_durable_locked() {
  if (durable_seq_ == state_.seq()) return ok_status();
  CAISSON_RETURN_IF_ERROR(objects_.sync_names("log/"));
  durable_seq_ = state_.seq();
  return ok_status();
}

// Appending 4 to 7: true when the record is in the log and durable, false when its place is taken.
Result<bool> Log::put_record_locked(const format::LogRecord& record) {
  const std::string key = format::log_key(record.seq);
  const ByteVector bytes = format::encode_log_record(record);
  if (bytes.size() > format::kLogRecordBytesMax) {
    return invalid_argument(key + ": a record of " + std::to_string(bytes.size()) +
                            " bytes is more than the log takes");
  }
  const Status put = objects_.put_new(key, bytes);
  if (put.ok()) return true;
  if (put.code() == StatusCode::kAlreadyExists) return false;
  const Result<format::LogRecord> found = read_record(record.seq);
  if (found.ok() && found->nonce != record.nonce) return false;
  const Status named = found.ok() ? objects_.sync_names("log/") : found.status();
  if (named.ok()) return true;
  return put.with_context(key +
                          ": whether this record was appended is unknown; it may be there, "
                          "or still appear. Look at the store before trying again");
}

// Appending 3.
Status Log::check_last_record_locked() {
  if (state_.seq() == 0) return ok_status();
  const std::string key = format::log_key(state_.seq());
  const Result<ObjectInfo> last = objects_.stat(key);
  if (last.status().code() != StatusCode::kNotFound) return last.status();
  return damaged(corruption("was read and is gone: the store was moved, unmounted or deleted"),
                 key);
}

Result<uint64_t> Log::append(const MakeBody& make) {
  MutexLock lock(mutex_);
  int unseen = 0;
  for (int race = 0; race < kRacesMax; ++race) {
    const uint64_t before = state_.seq();
    CAISSON_RETURN_IF_ERROR(catch_up_locked());
    if (race > 0 && state_.seq() == before) {  // taken, but not to be seen yet
      if (++unseen > kUnseenMax) {
        return io_error(format::log_key(before + 1) +
                        ": exists, but cannot be read; the store's readers lag behind its writers");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1 << unseen));
      continue;
    }
    unseen = 0;
    CAISSON_RETURN_IF_ERROR(check_no_gap_locked(Look::kNext));
    if (newer_seq_ != 0) {
      return unsupported(format::log_key(newer_seq_) +
                         ": written with features that this build can read past but must not " +
                         "write beside; use a newer Caisson to change this store");
    }
    CAISSON_RETURN_IF_ERROR(make_names_durable_locked());
    CAISSON_RETURN_IF_ERROR(check_last_record_locked());
    CAISSON_ASSIGN_OR_RETURN(format::LogBody body, make(state_));
    CAISSON_RETURN_IF_ERROR(state_.check(body));
    format::LogRecord record{
        .seq = state_.seq() + 1, .nonce = uuids_.next(), .writer = self_, .body = std::move(body)};
    record.writer.unix_ns = clock_.unix_ns();
    CAISSON_ASSIGN_OR_RETURN(const bool ours, put_record_locked(record));
    if (!ours) continue;
    state_.apply(record);
    durable_seq_ = record.seq;  // with all names before it: they stand in the same directory
    return record.seq;
  }
  return io_error("the log moved on " + std::to_string(kRacesMax) +
                  " times before this record could be appended; try again when fewer write");
}

Status Log::snapshot_if_due(uint64_t every) {
  MutexLock lock(mutex_);
  if (newer_seq_ != 0) return ok_status();  // its snapshot is for a newer build to write
  const uint64_t seq = state_.seq();
  if (seq < snapshot_seq_ + every || seq == snapshot_seq_) return ok_status();
  CAISSON_RETURN_IF_ERROR(objects_.sync_names("log/"));
  durable_seq_ = seq;
  const Status put = objects_.put_new(format::snapshot_key(seq), state_.encode());
  if (!put.ok() && put.code() != StatusCode::kAlreadyExists) return put;
  snapshot_seq_ = seq;
  CAISSON_ASSIGN_OR_RETURN(const std::vector<uint64_t> snapshots, list_snapshots(objects_));
  for (size_t i = kSnapshotsKept; i < snapshots.size(); ++i) {
    CAISSON_RETURN_IF_ERROR(objects_.remove(format::snapshot_key(snapshots[i])));
  }
  return ok_status();
}

}  // namespace caisson

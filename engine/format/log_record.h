// The records of a store's log. docs/format.md, "Log"; docs/commit.md says what they mean. Pure.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "engine/format/names.h"
#include "engine/format/record.h"

namespace caisson::format {

inline constexpr uint64_t kLogRecordBytesMax = 1u << 20;
inline constexpr size_t kCondemnedMax = 8192;  // objects, and saves, in one condemn record
inline constexpr size_t kBasesMax = 1024;      // of one open record
inline constexpr size_t kHostBytesMax = 1024;  // and of a boot

// Who appends, for people and for finding out that a local writer is dead.
struct WriterInfo {
  std::string host;
  std::string boot_id;  // the kernel's, a blank, and the pid namespace: where `pid` means something
  uint64_t pid = 0;
  uint64_t pid_start_ticks = 0;  // /proc/<pid>/stat field 22: pids are reused
  int64_t unix_ns = 0;           // for display only; nothing is decided by a clock
  bool operator==(const WriterInfo&) const = default;
};

// A checkpoint is named in the log by the sequence number of its commit record.
using CommitSeq = uint64_t;

struct OpenRecord {  // a save begins; its bases stay alive until it ends
  Uuid save;
  std::string run;
  uint64_t step = 0, epoch = 0;
  std::vector<CommitSeq> bases;
  bool operator==(const OpenRecord&) const = default;
};
struct ClaimRecord {  // takes over a run; commits of older epochs are refused from here on
  std::string run;
  uint64_t epoch = 0;  // the new one: previous + 1
  CommitSeq base = 0;  // the run continues from here; 0: from nothing
  bool operator==(const ClaimRecord&) const = default;
};
struct CommitRecord {  // the commit
  Uuid save;
  std::string run;
  uint64_t step = 0, epoch = 0;
  SealedRef root;                   // digest: of the whole object
  bool replaces_same_step = false;  // the live checkpoint of the same name is pruned by this record
  bool operator==(const CommitRecord&) const = default;
};
struct PruneRecord {  // a checkpoint is given up
  CommitSeq checkpoint = 0;
  bool operator==(const PruneRecord&) const = default;
};
struct CondemnRecord {  // these objects may be deleted and never be referred to again
  std::vector<ObjectRef> objects;
  std::vector<Uuid> saves;  // everything under data/<save>/: saves that ended without a commit
  bool operator==(const CondemnRecord&) const = default;
};
struct CloseRecord {  // a save ends without a commit
  Uuid save;
  bool operator==(const CloseRecord&) const = default;
};
struct ReplaceRecord {  // a checkpoint's root is exchanged for one with the same content
  CommitSeq checkpoint = 0;
  SealedRef old_root, new_root;
  bool operator==(const ReplaceRecord&) const = default;
};

using LogBody = std::variant<OpenRecord, ClaimRecord, CommitRecord, PruneRecord, CondemnRecord,
                             CloseRecord, ReplaceRecord>;
struct LogRecord {
  uint64_t seq = 0;  // 1, 2, ...: dense
  Uuid nonce;        // fresh per append: tells our record from another's of equal content
  WriterInfo writer;
  LogBody body;
  // As decoded; encoders write none. After a record that may_write() refuses, this build
  // reads the store but appends nothing to it.
  Features features;
};
ByteVector encode_log_record(const LogRecord& record);
// Also checks that the record says `seq`.
Result<LogRecord> decode_log_record(uint64_t seq, Bytes bytes);

}  // namespace caisson::format

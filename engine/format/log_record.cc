// A log record is an envelope whose salt is the record's nonce. Its content ("v" is a varint, a
// string is a varint length and its bytes):
//
//    8       sequence number
//    1       type
//    7       zero
//    string  the writer's host
//    string  its boot id, a blank, and its pid namespace
//    8       its process id
//    8       that process's start, in ticks since boot
//    8       when, Unix time in ns
//            the body of the type
//
// Bodies, by type:
//
//   1 open     16 save, string run, 8 step, 8 epoch, v bases, then 8 each
//   2 claim    string run, 8 epoch, 8 base
//   3 commit   16 save, string run, 8 step, 8 epoch, 61 root, 1 replaces the same step (0 or 1)
//   4 prune    8 checkpoint
//   5 condemn  v objects, then 37 each, v saves, then 16 each
//   6 close    16 save
//   7 replace  8 checkpoint, 61 old root, 61 new root
#include "engine/format/log_record.h"

#include <algorithm>

#include "engine/format/record.h"
#include "io/base/check.h"
#include "io/base/mutant.h"
#include "io/base/zeros.h"

namespace caisson::format {
namespace {

constexpr std::string_view kMagic = "CSN_LOGR";
constexpr size_t kReserved = 7;

// The types are the places in LogBody, from 1.
enum class Type : uint8_t {
  kOpen = 1,
  kClaim = 2,
  kCommit = 3,
  kPrune = 4,
  kCondemn = 5,
  kClose = 6,
  kReplace = 7,
};
static_assert(std::variant_size_v<LogBody> == static_cast<size_t>(Type::kReplace));
static_assert(std::is_same_v<std::variant_alternative_t<0, LogBody>, OpenRecord>);
static_assert(std::is_same_v<std::variant_alternative_t<6, LogBody>, ReplaceRecord>);

void put_body(ByteWriter& out, const OpenRecord& body) {
  out.put_bytes(body.save.bytes);
  out.put_string(body.run);
  out.put<uint64_t>(body.step);
  out.put<uint64_t>(body.epoch);
  out.put_varint(body.bases.size());
  for (const CommitSeq base : body.bases) out.put<uint64_t>(base);
}
void put_body(ByteWriter& out, const ClaimRecord& body) {
  out.put_string(body.run);
  out.put<uint64_t>(body.epoch);
  out.put<uint64_t>(body.base);
}
void put_body(ByteWriter& out, const CommitRecord& body) {
  out.put_bytes(body.save.bytes);
  out.put_string(body.run);
  out.put<uint64_t>(body.step);
  out.put<uint64_t>(body.epoch);
  put_sealed(out, body.root);
  out.put<uint8_t>(body.replaces_same_step ? 1 : 0);
}
void put_body(ByteWriter& out, const PruneRecord& body) { out.put<uint64_t>(body.checkpoint); }
void put_body(ByteWriter& out, const CondemnRecord& body) {
  out.put_varint(body.objects.size());
  for (const ObjectRef& object : body.objects) put_ref(out, object);
  out.put_varint(body.saves.size());
  for (const Uuid& save : body.saves) out.put_bytes(save.bytes);
}
void put_body(ByteWriter& out, const CloseRecord& body) { out.put_bytes(body.save.bytes); }
void put_body(ByteWriter& out, const ReplaceRecord& body) {
  out.put<uint64_t>(body.checkpoint);
  put_sealed(out, body.old_root);
  put_sealed(out, body.new_root);
}

OpenRecord get_open(ByteReader& in) {
  OpenRecord body;
  body.save = get_uuid(in);
  body.run = in.get_string(kRunBytesMax);
  body.step = in.get<uint64_t>();
  body.epoch = in.get<uint64_t>();
  body.bases.resize(static_cast<size_t>(in.get_count(sizeof(CommitSeq))));
  for (CommitSeq& base : body.bases) base = in.get<uint64_t>();
  return body;
}
ClaimRecord get_claim(ByteReader& in) {
  ClaimRecord body;
  body.run = in.get_string(kRunBytesMax);
  body.epoch = in.get<uint64_t>();
  body.base = in.get<uint64_t>();
  return body;
}
CommitRecord get_commit(ByteReader& in) {
  CommitRecord body;
  body.save = get_uuid(in);
  body.run = in.get_string(kRunBytesMax);
  body.step = in.get<uint64_t>();
  body.epoch = in.get<uint64_t>();
  body.root = get_sealed(in);
  const auto replaces = in.get<uint8_t>();
  if (replaces > 1) in.fail();
  body.replaces_same_step = replaces == 1;
  return body;
}
CondemnRecord get_condemn(ByteReader& in) {
  CondemnRecord body;
  body.objects.resize(static_cast<size_t>(in.get_count(kObjectRefBytes)));
  for (ObjectRef& object : body.objects) object = get_ref(in);
  body.saves.resize(static_cast<size_t>(in.get_count(sizeof(Uuid))));
  for (Uuid& save : body.saves) save = get_uuid(in);
  return body;
}
ReplaceRecord get_replace(ByteReader& in) {
  ReplaceRecord body;
  body.checkpoint = in.get<uint64_t>();
  body.old_root = get_sealed(in);
  body.new_root = get_sealed(in);
  return body;
}

// REQUIRES: a known type. The reader tells whether it went well.
LogBody get_body(Type type, ByteReader& in) {
  switch (type) {
    case Type::kOpen:
      return get_open(in);
    case Type::kClaim:
      return get_claim(in);
    case Type::kCommit:
      return get_commit(in);
    case Type::kPrune:
      return PruneRecord{.checkpoint = in.get<uint64_t>()};
    case Type::kCondemn:
      return get_condemn(in);
    case Type::kClose:
      return CloseRecord{.save = get_uuid(in)};
    case Type::kReplace:
      return get_replace(in);
  }
  in.fail();
  return LogBody{};
}

// What is wrong with a body; empty: nothing. The same for what is written and what is read.
struct Faults {
  std::string_view operator()(const OpenRecord& body) const {
    if (!check_run_name(body.run).ok()) return "the run's name is not valid";
    return body.bases.size() > kBasesMax ? "too many bases" : "";
  }
  std::string_view operator()(const ClaimRecord& body) const {
    return check_run_name(body.run).ok() ? "" : "the run's name is not valid";
  }
  std::string_view operator()(const CommitRecord& body) const {
    if (!check_run_name(body.run).ok()) return "the run's name is not valid";
    return body.root.object.kind == ObjectKind::kRoot ? "" : "its root is of another kind";
  }
  std::string_view operator()(const CondemnRecord& body) const {
    const bool many = body.objects.size() > kCondemnedMax || body.saves.size() > kCondemnedMax;
    return many ? "condemns too much at once" : "";
  }
  std::string_view operator()(const ReplaceRecord& body) const {
    const bool roots = body.old_root.object.kind == ObjectKind::kRoot &&
                       body.new_root.object.kind == ObjectKind::kRoot;
    return roots ? "" : "its roots are of another kind";
  }
  std::string_view operator()(const PruneRecord&) const { return {}; }
  std::string_view operator()(const CloseRecord&) const { return {}; }
};

}  // namespace

ByteVector encode_log_record(const LogRecord& record) {
  CAISSON_CHECK(std::visit(Faults{}, record.body).empty());
  CAISSON_CHECK(record.writer.host.size() <= kHostBytesMax &&
                record.writer.boot_id.size() <= kHostBytesMax);
  ByteWriter out;
  out.put<uint64_t>(record.seq);
  out.put<uint8_t>(static_cast<uint8_t>(record.body.index() + 1));
  out.put_zeros(kReserved);
  out.put_string(record.writer.host);
  out.put_string(record.writer.boot_id);
  out.put<uint64_t>(record.writer.pid);
  out.put<uint64_t>(record.writer.pid_start_ticks);
  out.put<int64_t>(record.writer.unix_ns);
  std::visit([&](const auto& body) { put_body(out, body); }, record.body);
  ByteVector bytes = encode_envelope(kMagic, record.nonce, out.bytes());
  CAISSON_CHECK(bytes.size() <= kLogRecordBytesMax);
  return bytes;
}

Result<LogRecord> decode_log_record(uint64_t seq, Bytes bytes) {
  const std::string what = log_key(seq);
  const auto damaged = [&](std::string_view why) { return corrupt_at(what, kEnvelopeBytes, why); };
  if (bytes.size() > kLogRecordBytesMax) return damaged("larger than a log record can be");
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope, decode_envelope(kMagic, bytes, what));
  ByteReader in(envelope.payload);
  LogRecord record;
  record.features = envelope.features;
  record.nonce = envelope.salt;
  record.seq = in.get<uint64_t>();
  const auto type = in.get<uint8_t>();
  const Bytes reserved = in.get_bytes(kReserved);
  record.writer.host = in.get_string(kHostBytesMax);
  record.writer.boot_id = in.get_string(kHostBytesMax);
  record.writer.pid = in.get<uint64_t>();
  record.writer.pid_start_ticks = in.get<uint64_t>();
  record.writer.unix_ns = in.get<int64_t>();
  if (!in.ok()) return damaged("the record is cut short");
  if (record.seq != seq && !CAISSON_MUTANT(log_record_seq)) {
    return damaged("the record says " + log_key(record.seq));
  }
  if (!is_zero(reserved)) {
    return damaged("reserved bytes are not zero");
  }
  if (type < static_cast<uint8_t>(Type::kOpen) || type > static_cast<uint8_t>(Type::kReplace)) {
    return unsupported(what + ": a record of type " + std::to_string(type) +
                       ", which this build does not know; use a newer caisson");
  }
  record.body = get_body(static_cast<Type>(type), in);
  if (!in.ok() || in.remaining() != 0) return damaged("the body is malformed");
  const std::string_view fault = std::visit(Faults{}, record.body);
  if (!fault.empty()) return damaged(fault);
  return record;
}

}  // namespace caisson::format

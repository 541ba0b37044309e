// The state of the log as a snapshot object, and back. Pure; decode treats its input as hostile:
// what it accepts is a state that apply could have reached, as far as one can see from it alone.
//
// An envelope ("CSN_SNAP") whose salt is the position, 8 bytes, and 8 zeros. Its content ("v" is a
// varint, a string is a varint length and its bytes; every list ascends by its first field):
//
//    v position
//    v runs,        each: string name, v epoch, v latest, writer
//    v checkpoints, each: v seq, 16 save, string run, v step, v epoch, 61 root, writer, v parent,
//                         1 rolled back (0 or 1)
//    v open saves,  each: 16 save, string run, v step, v epoch, v bases (each: v seq, 61 root),
//                         v seq of its open record, writer
//    v ended saves, 16 each
//    v condemned objects, 37 each
//    v condemned saves, 16 each
//
// A writer is string host, string boot id, v pid, v start in ticks, 8 Unix time in ns.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/format/record.h"
#include "engine/log_state.h"

namespace caisson {

using format::CommitSeq;
using format::ObjectRef;
using format::SealedRef;

namespace {

constexpr std::string_view kMagic = "CSN_SNAP";
constexpr uint64_t kNameBytesMax = 4096;
constexpr size_t kUuidBytes = 16;

// The envelope's salt: a snapshot of another position never passes.
Uuid salt_at(uint64_t seq) {
  Uuid salt;
  store_le(salt.bytes.data(), seq);
  return salt;
}

void put_uuid(ByteWriter& out, const Uuid& uuid) { out.put_bytes(uuid.bytes); }
Uuid get_uuid(ByteReader& in) {
  Uuid uuid;
  const Bytes bytes = in.get_bytes(kUuidBytes);
  if (bytes.size() == kUuidBytes) std::copy(bytes.begin(), bytes.end(), uuid.bytes.begin());
  return uuid;
}

void put_writer(ByteWriter& out, const format::WriterInfo& writer) {
  out.put_string(writer.host);
  out.put_string(writer.boot_id);
  out.put_varint(writer.pid);
  out.put_varint(writer.pid_start_ticks);
  out.put<int64_t>(writer.unix_ns);
}
format::WriterInfo get_writer(ByteReader& in) {
  format::WriterInfo writer;
  writer.host = in.get_string(kNameBytesMax);
  writer.boot_id = in.get_string(kNameBytesMax);
  writer.pid = in.get_varint();
  writer.pid_start_ticks = in.get_varint();
  writer.unix_ns = in.get<int64_t>();
  return writer;
}

void put_checkpoint(ByteWriter& out, const Checkpoint& checkpoint) {
  out.put_varint(checkpoint.seq);
  put_uuid(out, checkpoint.save);
  out.put_string(checkpoint.run);
  out.put_varint(checkpoint.step);
  out.put_varint(checkpoint.epoch);
  format::put_sealed(out, checkpoint.root);
  put_writer(out, checkpoint.writer);
  out.put_varint(checkpoint.parent);
  out.put<uint8_t>(checkpoint.rolled_back ? 1 : 0);
}
Checkpoint get_checkpoint(ByteReader& in) {
  Checkpoint checkpoint;
  checkpoint.seq = in.get_varint();
  checkpoint.save = get_uuid(in);
  checkpoint.run = in.get_string(kNameBytesMax);
  checkpoint.step = in.get_varint();
  checkpoint.epoch = in.get_varint();
  checkpoint.root = format::get_sealed(in);
  checkpoint.writer = get_writer(in);
  checkpoint.parent = in.get_varint();
  const auto flag = in.get<uint8_t>();
  if (flag > 1) in.fail();
  checkpoint.rolled_back = flag == 1;
  return checkpoint;
}

void put_open(ByteWriter& out, const OpenSave& open) {
  put_uuid(out, open.save);
  out.put_string(open.run);
  out.put_varint(open.step);
  out.put_varint(open.epoch);
  out.put_varint(open.bases.size());
  for (size_t i = 0; i < open.bases.size(); ++i) {
    out.put_varint(open.bases[i]);
    format::put_sealed(out, open.base_roots[i]);
  }
  out.put_varint(open.opened_seq);
  put_writer(out, open.writer);
}
OpenSave get_open(ByteReader& in) {
  OpenSave open;
  open.save = get_uuid(in);
  open.run = in.get_string(kNameBytesMax);
  open.step = in.get_varint();
  open.epoch = in.get_varint();
  for (uint64_t left = in.get_count(1 + 37); left > 0 && in.ok(); --left) {
    open.bases.push_back(in.get_varint());
    open.base_roots.push_back(format::get_sealed(in));
  }
  open.opened_seq = in.get_varint();
  open.writer = get_writer(in);
  return open;
}

// Inserts in ascending order only: a state has one encoding.
template <typename Map, typename Key, typename Value>
void append_to(ByteReader& in, Map& map, const Key& key, Value value) {
  if (!map.empty() && !(map.rbegin()->first < key)) return in.fail();
  map.emplace_hint(map.end(), key, std::move(value));
}

void put_uuids(ByteWriter& out, const auto& uuids) {
  out.put_varint(uuids.size());
  for (const Uuid& uuid : uuids) put_uuid(out, uuid);
}
std::vector<Uuid> get_uuids(ByteReader& in) {
  std::vector<Uuid> uuids;
  const uint64_t count = in.get_count(kUuidBytes);
  uuids.reserve(count);
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    uuids.push_back(get_uuid(in));
    if (i > 0 && !(uuids[i - 1] < uuids[i])) in.fail();
  }
  return uuids;
}

}  // namespace

ByteVector LogState::encode() const {
  ByteWriter out;
  out.put_varint(seq_);
  out.put_varint(runs_.size());
  for (const auto& [name, run] : runs_) {
    out.put_string(name);
    out.put_varint(run.epoch);
    out.put_varint(run.latest);
    put_writer(out, run.claimed_by);
  }
  out.put_varint(live_.size());
  for (const auto& [seq, checkpoint] : live_) put_checkpoint(out, checkpoint);
  out.put_varint(open_.size());
  for (const auto& [save, open] : open_) put_open(out, open);
  put_uuids(out, ended_);
  out.put_varint(condemned_.size());
  for (const ObjectRef& object : condemned_) format::put_ref(out, object);
  put_uuids(out, condemned_saves_.sorted());
  return format::encode_envelope(kMagic, salt_at(seq_), out.bytes());
}

Result<LogState> LogState::decode(uint64_t seq, Bytes bytes) {
  const std::string what = format::snapshot_key(seq);
  CAISSON_ASSIGN_OR_RETURN(const format::Envelope envelope,
                           format::decode_envelope(kMagic, bytes, what));
  // A newer build's: the records themselves are read instead, and say what this build may not do.
  if (!format::may_write(envelope.features)) return unsupported(what + ": of a newer Caisson");
  ByteReader in(envelope.payload);
  LogState state;
  state.seq_ = in.get_varint();
  for (uint64_t left = in.get_count(1 + 3 + 12); left > 0 && in.ok(); --left) {
    std::string name(in.get_string(kNameBytesMax));
    RunState run{.epoch = in.get_varint(), .latest = in.get_varint(), .claimed_by = {}};
    run.claimed_by = get_writer(in);
    append_to(in, state.runs_, name, std::move(run));
  }
  for (uint64_t left = in.get_count(kUuidBytes + 37); left > 0 && in.ok(); --left) {
    Checkpoint checkpoint = get_checkpoint(in);
    const CommitSeq committed = checkpoint.seq;
    append_to(in, state.live_, committed, std::move(checkpoint));
  }
  for (uint64_t left = in.get_count(kUuidBytes + 4); left > 0 && in.ok(); --left) {
    OpenSave open = get_open(in);
    const Uuid save = open.save;
    append_to(in, state.open_, save, std::move(open));
  }
  const std::vector<Uuid> ended = get_uuids(in);
  state.ended_.insert(ended.begin(), ended.end());
  for (uint64_t left = in.get_count(37); left > 0 && in.ok(); --left) {
    const ObjectRef object = format::get_ref(in);
    if (!state.condemned_.empty() && !(*state.condemned_.rbegin() < object)) in.fail();
    state.condemned_.insert(state.condemned_.end(), object);
  }
  state.condemned_saves_ = UuidSet(get_uuids(in));
  if (!in.ok() || in.remaining() != 0) return corruption(what + ": its content is malformed");
  if (envelope.salt != salt_at(seq) || state.seq_ != seq || !state.index_checkpoints()) {
    return corruption(what + ": what it says does not fit together");
  }
  return state;
}

// Fills what follows from live_, and compares the parts with each other.
bool LogState::index_checkpoints() {
  for (const auto& [name, run] : runs_) {
    const auto latest = live_.find(run.latest);
    const bool good = run.latest == 0 || (latest != live_.end() && latest->second.run == name &&
                                          !latest->second.rolled_back);
    if (name.empty() || run.epoch == 0 || !good) return false;
  }
  for (const auto& [seq, checkpoint] : live_) {
    const auto parent = live_.find(checkpoint.parent);
    const bool good_parent =
        checkpoint.parent == 0 ||
        (parent != live_.end() && checkpoint.parent < seq && parent->second.run == checkpoint.run);
    const bool good_root = checkpoint.root.object.kind == format::ObjectKind::kRoot &&
                           checkpoint.root.object.save == checkpoint.save;
    const bool fresh = committed_.emplace(checkpoint.save, seq).second &&
                       names_.emplace(Name(checkpoint.run, checkpoint.step), seq).second;
    if (seq == 0 || seq > seq_ || !good_parent || !good_root || !fresh ||
        !runs_.contains(checkpoint.run) || is_condemned(checkpoint.root.object)) {
      return false;
    }
    if (checkpoint.parent != 0) children_.emplace(checkpoint.parent, seq);
  }
  for (const auto& [save, open] : open_) {
    const auto run = runs_.find(open.run);
    if (run == runs_.end() || run->second.epoch != open.epoch || open.opened_seq > seq_ ||
        committed_.contains(save) || ended_.contains(save) || is_save_condemned(save)) {
      return false;
    }
  }
  return std::none_of(ended_.begin(), ended_.end(), [&](const Uuid& save) {
    return committed_.contains(save) || is_save_condemned(save);
  });
}

}  // namespace caisson

// The commit of a save, step by step. Nothing before step 6 is visible to anybody; step 6 is one
// create-once record, and that record is the commit.
//
//  1. Every part is opened and its trailer compared with the digest that its rank handed over at
//     seal(). A rank seals only after its packs are durable, so what a part refers to is on disk;
//     packs of earlier saves are looked for.
//  2. Ranks 0 .. n-1 are there, each exactly once.
//  3. The parts' directories are merged by name. Records of one tensor must agree on element type,
//     shape, kind and tile; its shards must cover it exactly once; aliases must name a tensor.
//  4. The merged directory object is written and made durable.
//  5. The root (parts, digests, every pack needed, the directory) is written and made durable.
//  6. The commit record is appended to the log. Before every attempt its preconditions are checked
//     against the newest state: the save is open and of the run's current epoch (nobody claimed the
//     run since), the name is free or to be replaced, and no pack needed is condemned.
//
// A crash before 6 leaves an open save: garbage that gc reclaims after a close or a claim. A
// failure before 6 also appends `close`, best effort, so that gc need not wait. After 6 the
// checkpoint is whole; there is no repair step either way.
//
// Cost: one read of each part's directory, a sort of the names; in memory the encoded records and
// 40 bytes for each.
#include "engine/commit.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "engine/coverage.h"
#include "engine/manifest.h"
#include "engine/merged_records.h"
#include "io/base/check.h"

namespace caisson {

namespace {

constexpr const char* kTraceRow = "commit: 7";

using format::SealedRef;

struct Parts {
  std::vector<SealedRef> sealed;                  // by rank
  std::vector<std::unique_ptr<PartReader>> open;  // by rank
  std::vector<uint32_t> ranks;                    // 0, 1, ...: part index -> rank
};

std::string rank_text(uint32_t rank) { return "rank " + std::to_string(rank); }

// Steps 1 and 2.
Result<Parts> open_parts(ObjectStore& objects, const CommitPlan& plan,
                         std::span<const SealedRef> sealed) {
  Parts parts;
  parts.sealed.resize(plan.ranks);
  parts.open.resize(plan.ranks);
  for (const SealedRef& part : sealed) {
    if (part.object.save != plan.save || part.object.kind != format::ObjectKind::kPart) {
      return invalid_argument(part.object.key() + " is not a part of this save; pass the parts " +
                              "that were sealed under the same ticket");
    }
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<PartReader> open, PartReader::open(objects, part));
    const uint32_t rank = open->trailer().rank;
    if (rank >= plan.ranks) {
      return invalid_argument("a part of " + rank_text(rank) +
                              " was handed over, but the save has " + std::to_string(plan.ranks) +
                              " ranks");
    }
    if (parts.open[rank] != nullptr) {
      return invalid_argument(rank_text(rank) + " was handed over twice: " +
                              parts.sealed[rank].object.key() + " and " + part.object.key());
    }
    parts.sealed[rank] = part;
    parts.open[rank] = std::move(open);
  }
  std::string missing;
  for (uint32_t rank = 0; rank < plan.ranks; ++rank) {
    parts.ranks.push_back(rank);
    if (parts.open[rank] == nullptr && missing.size() < 200) {
      missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
    }
  }
  if (!missing.empty()) {
    return invalid_argument("the parts of these ranks are missing: " + missing +
                            "; nothing was committed, save again");
  }
  return parts;
}

// Step 3, all but coverage.
Status merge_records(const Parts& parts, MergedRecords& merged) {
  for (uint32_t rank = 0; rank < parts.open.size(); ++rank) {
    CAISSON_RETURN_IF_ERROR(merged.add(rank, *parts.open[rank]));
  }
  return merged.finish();
}

Status check_shards(const TensorRecord& tensor, const Parts& parts) {
  if (tensor.shards.size() > format::kShardsMax) {
    return invalid_argument(
        "tensor \"" + tensor.spec.name + "\" is held in " + std::to_string(tensor.shards.size()) +
        " boxes, " + std::to_string(format::kShardsMax) + " are allowed; save larger boxes of it");
  }
  return check_coverage(tensor, parts.ranks);
}

// The rest of step 3 and step 4.
Status write_directory(ObjectStore& objects, const MergedRecords& merged, const Parts& parts,
                       format::Root& root) {
  // What the parts' directories have, plus part numbers and larger page bounds.
  uint64_t bytes_max = (1u << 20) + 16 * merged.shards();
  for (const auto& part : parts.open) bytes_max += part->trailer().directory_bytes;

  root.directory.object = root.object;
  root.directory.object.kind = format::ObjectKind::kDirectory;
  CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> object,
                           objects.create(root.directory.object.key(), bytes_max));
  format::DirectoryEncoder encoder(root.directory.object.writer);
  DigestStream digest;
  const auto append = [&](Bytes bytes) {
    if (bytes.empty()) return ok_status();
    digest.add(bytes);
    const uint64_t at = root.directory.bytes;
    root.directory.bytes += bytes.size();
    return object->write(at, bytes);
  };
  ByteVector pending;  // whole pages, gathered into writes of a megabyte
  const auto add = [&](const MergedRecords::Tensor& tensor) -> Status {
    if (!tensor.encoded.empty()) {
      encoder.add_encoded(tensor.name, tensor.encoded);
    } else {
      CAISSON_RETURN_IF_ERROR(check_shards(*tensor.record, parts));
      encoder.add(*tensor.record);
    }
    const ByteVector pages = encoder.take_pages();
    pending.insert(pending.end(), pages.begin(), pages.end());
    if (pending.size() < (1u << 20)) return ok_status();
    CAISSON_RETURN_IF_ERROR(append(pending));
    pending.clear();
    return ok_status();
  };
  CAISSON_RETURN_IF_ERROR(merged.for_each(add));
  const ByteVector end = encoder.finish();
  pending.insert(pending.end(), end.begin(), end.end());
  CAISSON_RETURN_IF_ERROR(append(pending));
  root.directory.digest = digest.finish();
  root.directory_index_offset = encoder.index_offset();
  root.tensors = encoder.tensors();
  return object->publish(root.directory.bytes);
}

// Parts and the union of their packs, sorted.
Status list_parts_and_packs(const Parts& parts, WrittenRoot& made) {
  format::Root& root = made.root;
  std::vector<SealedRef>& all = made.tables.packs;
  std::map<format::ObjectRef, SealedRef> packs;
  std::vector<std::vector<SealedRef>> packs_of_part;
  for (uint32_t rank = 0; rank < parts.open.size(); ++rank) {
    CAISSON_ASSIGN_OR_RETURN(std::vector<SealedRef> listed, parts.open[rank]->packs());
    for (const SealedRef& pack : listed) {
      const auto [at, fresh] = packs.emplace(pack.object, pack);
      if (!fresh && !(at->second == pack)) {
        return corruption(rank_text(rank) + " vouches for " + pack.object.key() +
                          " with another digest than a lower rank does");
      }
    }
    packs_of_part.push_back(std::move(listed));
  }
  std::map<format::ObjectRef, uint32_t> index_of;
  for (const auto& [object, pack] : packs) {
    index_of.emplace(object, static_cast<uint32_t>(all.size()));
    all.push_back(pack);
  }
  for (uint32_t rank = 0; rank < parts.open.size(); ++rank) {
    const format::PartTrailer& trailer = parts.open[rank]->trailer();
    format::RootPart part{.part = parts.sealed[rank],
                          .rank = rank,
                          .entries = trailer.entries,
                          .inline_offset = trailer.inline_offset,
                          .inline_bytes = trailer.inline_bytes,
                          .packs = static_cast<uint32_t>(packs_of_part[rank].size())};
    for (const SealedRef& pack : packs_of_part[rank]) {
      made.tables.of_parts.push_back(index_of[pack.object]);
    }
    root.parts.push_back(std::move(part));
    root.raw_bytes += trailer.raw_bytes;
    root.stored_bytes += trailer.stored_bytes;
  }
  return ok_status();
}

// A pack of another save, that this one dedups into, was not written or read by us: it must at
// least be there, whole, or every later checkpoint would share the loss.
Status check_shared_packs(ObjectStore& objects, const Uuid& save,
                          std::span<const SealedRef> packs) {
  for (const SealedRef& pack : packs) {
    if (pack.object.save == save) continue;
    const std::string key = pack.object.key();
    const Result<ObjectInfo> found = objects.stat(key);
    if (found.ok() && found->bytes == pack.bytes) continue;
    if (!found.ok() && found.status().code() != StatusCode::kNotFound) return found.status();
    return corruption(
        key + (found.ok() ? ": has another length than it was sealed with" : ": is missing") +
        "; this save would share it with an earlier checkpoint. Save without dedup " +
        "(--no-dedup), and see caisson verify");
  }
  return ok_status();
}

// Step 6.
Result<format::CommitSeq> append_commit(Log& log, const CommitPlan& plan, const WrittenRoot& made) {
  const TraceSpan span(plan.trace, plan.trace == nullptr ? 0 : plan.trace->row(kTraceRow),
                       "commit record");
  return log.append([&](const LogState& state) -> Result<format::LogBody> {
    const bool taken = state.find(plan.run, plan.step) != nullptr;
    const format::CommitRecord commit{.save = plan.save,
                                      .run = plan.run,
                                      .step = plan.step,
                                      .epoch = plan.epoch,
                                      .root = made.sealed,
                                      .replaces_same_step = taken && plan.overwrite};
    CAISSON_RETURN_IF_ERROR(state.check(commit));
    for (const SealedRef& pack : made.tables.packs) {
      if (!state.is_condemned(pack.object)) continue;
      return fenced(pack.object.key() + ", which this save refers to, was condemned by gc; save " +
                    "again: the chunks will be written anew");
    }
    return format::LogBody(commit);
  });
}

}  // namespace

Result<WrittenRoot> write_root(ObjectStore& objects, UuidSource& uuids, Clock& clock,
                               const CommitPlan& plan, std::span<const SealedRef> sealed) {
  const uint32_t row = plan.trace == nullptr ? 0 : plan.trace->row(kTraceRow);
  std::optional<TraceSpan> span(std::in_place, plan.trace, row, "read the parts back");
  CAISSON_ASSIGN_OR_RETURN(const Parts parts, open_parts(objects, plan, sealed));
  MergedRecords merged;
  CAISSON_RETURN_IF_ERROR(merge_records(parts, merged));
  WrittenRoot made;
  format::Root& root = made.root;
  root.object = {
      .kind = format::ObjectKind::kRoot, .save = plan.save, .writer = uuids.next(), .number = 0};
  root.run = plan.run;
  root.step = plan.step;
  root.epoch = plan.epoch;
  root.created_unix_ns = plan.created_unix_ns.value_or(clock.unix_ns());
  root.metadata_json = plan.metadata_json;
  span.emplace(plan.trace, row, "look for the packs");
  CAISSON_RETURN_IF_ERROR(list_parts_and_packs(parts, made));
  CAISSON_RETURN_IF_ERROR(check_shared_packs(objects, plan.save, made.tables.packs));
  span.emplace(plan.trace, row, "check coverage, write the directory");
  CAISSON_RETURN_IF_ERROR(write_directory(objects, merged, parts, root));
  span.emplace(plan.trace, row, "write the root");
  const format::EncodedRoot encoded = format::encode_root(root, made.tables);
  const ByteVector& bytes = encoded.bytes;
  made.sealed = encoded.sealed;
  if (bytes.size() > format::kRootBytesMax) {
    return unsupported("the root of " + plan.run + "/" + std::to_string(plan.step) +
                       " would have " + std::to_string(bytes.size()) + " bytes, " +
                       std::to_string(format::kRootBytesMax) +
                       " are allowed; save by fewer ranks, or with less metadata");
  }
  CAISSON_RETURN_IF_ERROR(objects.put_new(root.object.key(), bytes));
  return made;
}

Status close_save(Log& log, const Uuid& save) {
  const auto closed = log.append([&](const LogState& state) -> Result<format::LogBody> {
    const format::CloseRecord record{.save = save};
    CAISSON_RETURN_IF_ERROR(state.check(record));
    return format::LogBody(record);
  });
  return closed.status();
}

Result<CommitOutcome> commit_checkpoint(ObjectStore& objects, Log& log, UuidSource& uuids,
                                        Clock& clock, const CommitPlan& plan,
                                        std::span<const format::SealedRef> parts) {
  // Best effort: it only spares gc the wait for a claim or for proof that this process died.
  const auto close = [&] { (void)close_save(log, plan.save); };
  const auto made = write_root(objects, uuids, clock, plan, parts);
  if (!made.ok()) {
    close();
    return made.status().with_context("commit of " + plan.run + "/" + std::to_string(plan.step));
  }
  const auto seq = append_commit(log, plan, *made);
  if (!seq.ok()) {
    // An unknown outcome (I/O error) must stay unknown: a close would fail or contradict it.
    const StatusCode code = seq.status().code();
    if (code == StatusCode::kAlreadyExists || code == StatusCode::kFenced) close();
    return seq.status().with_context("commit of " + plan.run + "/" + std::to_string(plan.step));
  }
  CommitOutcome outcome{.seq = *seq,
                        .tensors = made->root.tensors,
                        .entries = 0,
                        .raw_bytes = made->root.raw_bytes,
                        .stored_bytes = made->root.stored_bytes};
  for (const format::RootPart& part : made->root.parts) outcome.entries += part.entries;
  return outcome;
}

}  // namespace caisson

#include "engine/scrub.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "engine/coverage.h"
#include "io/base/mutant.h"

namespace caisson {

namespace {

constexpr uint64_t kEntriesPerBatch = 256 * format::kEntriesPerBlock;  // 1 MiB of blocks
constexpr uint64_t kDigestReadBytes = 1u << 20;

// Whether a failure says that something is damaged, rather than that the check cannot go on.
bool is_damage(const Status& status) {
  return status.code() == StatusCode::kCorruption || status.code() == StatusCode::kIoError ||
         status.code() == StatusCode::kNotFound || status.code() == StatusCode::kInvalidArgument;
}

// The message without the advice to run what is running already.
std::string without_hint(std::string_view message) {
  return std::string(message.substr(0, message.find("; next: caisson verify")));
}

// The message without the place that the finding has in fields of its own.
std::string without_place(std::string message, const std::string& object, uint64_t offset) {
  const std::string at = " at offset " + std::to_string(offset) + ":";
  const size_t found = message.find(object);
  if (found == std::string::npos) return message;
  std::string rest = message.substr(found + object.size());
  if (rest.starts_with(at)) rest.erase(0, at.size());
  if (rest.starts_with(" at offset ")) return message;  // another one, which is worth telling
  return rest.substr(std::min(rest.find_first_not_of(": "), rest.size()));
}

}  // namespace

Result<ScrubDepth> scrub_depth_from_name(std::string_view name) {
  if (name == "structure") return ScrubDepth::kStructure;
  if (name == "checksums") return ScrubDepth::kChecksums;
  if (name == "full") return ScrubDepth::kFull;
  return invalid_argument("no depth \"" + std::string(name) +
                          "\"; choose structure, checksums or full");
}

Scrubber::Scrubber(ObjectStore& objects, MemoryBudget& budget, ScrubOptions options)
    : objects_(objects),
      budget_(budget),
      options_(std::move(options)),
      reads_(objects),
      footers_(reads_) {}

Status Scrubber::check_checkpoint(const std::string& name, const format::SealedRef& root) {
  checkpoint_ = name;
  findings_before_ = report_.findings.size();
  damaged_before_ = report_.damaged;
  places_.clear();
  ++report_.checkpoints;
  ++report_.objects;
  needed_.insert(root.object.key());
  Result<std::shared_ptr<Manifest>> opened = Manifest::open(objects_, root);
  if (!opened.ok()) return note_unopened(root, opened.status());
  Manifest& manifest = **opened;
  const format::Root& content = manifest.root();
  report_.bytes_read += root.bytes;
  report_.objects += 1 + content.parts.size() + content.packs;
  needed_.insert(content.directory.object.key());
  for (const format::RootPart& part : content.parts) needed_.insert(part.part.object.key());
  CAISSON_RETURN_IF_ERROR(read_tables(manifest));
  for (const format::SealedRef& pack : tables_.packs) needed_.insert(pack.object.key());
  if (content.run + "/" + std::to_string(content.step) != name) {
    add({.object = root.object.key(),
         .what = "the root is of " + content.run + "/" + std::to_string(content.step)});
  }
  CAISSON_RETURN_IF_ERROR(check_parts(manifest));
  CAISSON_RETURN_IF_ERROR(check_directory(manifest));
  CAISSON_RETURN_IF_ERROR(check_packs());
  CAISSON_RETURN_IF_ERROR(check_entries(manifest));
  if (options_.depth != ScrubDepth::kStructure) CAISSON_RETURN_IF_ERROR(check_bodies(manifest));
  return name_tensors(manifest);
}

void Scrubber::retract_damage() {
  report_.findings.resize(findings_before_);
  report_.damaged = damaged_before_;
  std::erase_if(bad_packs_, [this](const auto& bad) {
    if (bad.second != checkpoint_) return false;
    read_packs_.erase(bad.first);
    return true;
  });
}

// A manifest that does not open: its root is damaged, or else the page index of its directory.
Status Scrubber::note_unopened(const format::SealedRef& root, const Status& why) {
  const Result<WholeRoot> whole = read_root(objects_, root);
  if (!whole.ok()) return note(why, root.object.key(), 0);
  return note(why, whole->root.directory.object.key(), whole->root.directory_index_offset);
}

// Damaged tables leave none: then what only they tell goes unchecked, and this was reported.
Status Scrubber::read_tables(Manifest& manifest) {
  tables_ = {};
  Result<format::PackTables> tables = manifest.packs().all();
  const Status read = tables.status();
  if (read.ok()) tables_ = std::move(tables).value();
  return note(read, manifest.root().object.key(), manifest.root().tables_offset);
}

Status Scrubber::note(const Status& status, const std::string& object, uint64_t offset) {
  if (status.ok() || !is_damage(status)) return status;
  add({.object = object,
       .offset = offset,
       .what = without_place(without_hint(status.message()), object, offset)});
  return ok_status();
}

void Scrubber::add(ScrubFinding finding) {
  ++(finding.damage ? report_.damaged : report_.harmless);
  if (report_.findings.size() >= options_.findings_max) return;
  if (finding.damage) finding.checkpoint = checkpoint_;
  report_.findings.push_back(std::move(finding));
}

void Scrubber::add_chunk(ScrubFinding finding, uint32_t part, uint64_t entry) {
  if (report_.findings.size() < options_.findings_max) {
    places_.push_back({.finding = report_.findings.size(), .part = part, .entry = entry});
  }
  add(std::move(finding));
}

Status Scrubber::check_stop() const {
  return options_.stop.stop_requested() ? cancelled("verify was cancelled") : ok_status();
}

// Trailers, and whether the root tells the same of each part as the part itself.
Status Scrubber::check_parts(const Manifest& manifest) {
  const format::Root& root = manifest.root();
  size_t row = 0;  // of the tables
  for (const format::RootPart& part : root.parts) {
    CAISSON_RETURN_IF_ERROR(check_stop());
    const size_t first_row = std::exchange(row, row + part.packs);
    const std::string key = part.part.object.key();
    Result<std::unique_ptr<PartReader>> reader = PartReader::open(objects_, part.part);
    if (!reader.ok()) {
      CAISSON_RETURN_IF_ERROR(note(reader.status(), key, 0));
      continue;
    }
    report_.bytes_read += format::kBlockBytes;
    const format::PartTrailer& trailer = (*reader)->trailer();
    if (std::tie(trailer.rank, trailer.entries, trailer.inline_offset, trailer.inline_bytes) !=
        std::tie(part.rank, part.entries, part.inline_offset, part.inline_bytes)) {
      add({.object = key,
           .offset = part.part.bytes - format::kBlockBytes,
           .what = "the part's trailer and the root differ"});
    }
    const Result<std::vector<format::SealedRef>> packs = (*reader)->packs();
    if (!packs.ok()) {
      CAISSON_RETURN_IF_ERROR(note(packs.status(), key, trailer.packs_offset));
      continue;
    }
    bool same = packs->size() == part.packs;
    for (size_t i = 0; same && first_row + i < tables_.of_parts.size() && i < part.packs; ++i) {
      same = (*packs)[i] == tables_.packs[tables_.of_parts[first_row + i]];
    }
    if (!same) {
      add({.object = key,
           .offset = trailer.packs_offset,
           .what = "the part's pack list and the root's differ"});
    }
  }
  return ok_status();
}

Status Scrubber::check_directory(Manifest& manifest) {
  const format::Root& root = manifest.root();
  const std::string key = root.directory.object.key();
  std::vector<uint32_t> rank_of_part;
  for (const format::RootPart& part : root.parts) rank_of_part.push_back(part.rank);
  uint64_t tensors = 0;
  const Status read = manifest.for_each([&](const TensorRecord& record) {
    ++tensors;
    CAISSON_RETURN_IF_ERROR(check_stop());
    if (record.kind == TensorKind::kAlias) return ok_status();
    const Status covered = check_coverage(record, rank_of_part);
    if (!covered.ok()) {
      add({.object = key, .tensor = record.spec.name, .what = without_hint(covered.message())});
    }
    return ok_status();
  });
  report_.tensors += tensors;
  report_.bytes_read += root.directory.bytes;
  if (read.ok() && tensors != root.tensors) {
    add({.object = key,
         .what = "the directory holds " + std::to_string(tensors) + " tensors, the root says " +
                 std::to_string(root.tensors)});
  }
  return note(read, key, 0);
}

// Footers and lengths; at the other depths check_bodies reads the rest.
Status Scrubber::check_packs() {
  for (const format::SealedRef& pack : tables_.packs) {
    CAISSON_RETURN_IF_ERROR(check_stop());
    const auto known = bad_packs_.find(pack.object);
    if (known != bad_packs_.end()) {
      add({.object = pack.object.key(),
           .what = "needs this pack too, whose damage was reported for " + known->second});
      continue;
    }
    const Result<std::shared_ptr<const format::PackFooter>> footer = footers_.get(pack);
    if (footer.ok()) {
      report_.bytes_read += pack.bytes - (*footer)->footer_offset;
      continue;
    }
    CAISSON_RETURN_IF_ERROR(note(footer.status(), pack.object.key(), 0));
    bad_packs_.emplace(pack.object, checkpoint_);
  }
  return ok_status();
}

Status Scrubber::check_entries(Manifest& manifest) {
  for (uint32_t part = 0; part < manifest.root().parts.size(); ++part) {
    CAISSON_RETURN_IF_ERROR(check_part_entries(manifest, part));
  }
  return ok_status();
}

Status Scrubber::check_part_entries(Manifest& manifest, uint32_t part) {
  const format::RootPart& owner = manifest.root().parts[part];
  for (uint64_t first = 0; first < owner.entries; first += kEntriesPerBatch) {
    CAISSON_RETURN_IF_ERROR(check_stop());
    const uint64_t count = std::min<uint64_t>(kEntriesPerBatch, owner.entries - first);
    const Result<std::vector<format::ChunkEntry>> entries = manifest.entries(part, first, count);
    if (!entries.ok()) {
      const uint64_t offset = first / format::kEntriesPerBlock * format::kBlockBytes;
      CAISSON_RETURN_IF_ERROR(note(entries.status(), owner.part.object.key(), offset));
      continue;
    }
    report_.bytes_read +=
        align_up(count, format::kEntriesPerBlock) / format::kEntriesPerBlock * format::kBlockBytes;
    if (options_.depth == ScrubDepth::kStructure) report_.chunks += count;
    for (uint64_t i = 0; i < count; ++i) {
      CAISSON_RETURN_IF_ERROR(
          check_entry(manifest, part, first + i, (*entries)[static_cast<size_t>(i)]));
    }
  }
  return ok_status();
}

Status Scrubber::check_entry(Manifest& manifest, uint32_t part, uint64_t index,
                             const format::ChunkEntry& entry) {
  const format::RootPart& owner = manifest.root().parts[part];
  const std::string part_key = owner.part.object.key();
  if (entry.pack == format::kPackInline) {
    if (options_.depth != ScrubDepth::kFull) return ok_status();
    // The width is not known here; it is one of few, and inline chunks are small.
    Status good;
    for (const uint32_t bits : {32u, 16u, 8u, 64u, 128u, 4u, 6u}) {
      good = manifest.inline_bytes(part, entry, bits).status();
      if (good.ok()) return ok_status();
    }
    if (!is_damage(good)) return good;
    add_chunk({.object = part_key,
               .offset = owner.inline_offset + entry.offset_bytes(),
               .id = to_hex(entry.id),
               .what = "an inline chunk does not have the content of its id"},
              part, index);
    return ok_status();
  }
  const format::SealedRef& pack = manifest.pack_of(part, entry);
  if (bad_packs_.contains(pack.object)) return ok_status();
  const Result<std::shared_ptr<const format::PackFooter>> footer = footers_.get(pack);
  if (!footer.ok()) {
    bad_packs_.emplace(pack.object, checkpoint_);
    return note(footer.status(), pack.object.key(), 0);
  }
  const format::ChunkEntry* const stored = find_chunk(**footer, entry.offset_bytes());
  if (stored != nullptr && std::tie(stored->id, stored->stored_checksum, stored->raw_bytes,
                                    stored->stored_bytes, stored->codec, stored->flags) ==
                               std::tie(entry.id, entry.stored_checksum, entry.raw_bytes,
                                        entry.stored_bytes, entry.codec, entry.flags)) {
    return ok_status();
  }
  add_chunk(
      {.object = pack.object.key(),
       .offset = entry.offset_bytes(),
       .id = to_hex(entry.id),
       .what = stored == nullptr ? "no chunk starts here, but entry " + std::to_string(index) +
                                       " of " + part_key + " refers to one"
                                 : "the pack holds another chunk here than entry " +
                                       std::to_string(index) + " of " + part_key + " refers to"},
      part, index);
  return ok_status();
}

// Everything that structure leaves unread: parts and directory against their digests, packs whole.
Status Scrubber::check_bodies(Manifest& manifest) {
  const format::Root& root = manifest.root();
  CAISSON_RETURN_IF_ERROR(
      check_digest(root.directory, root.directory.bytes, root.directory.digest));
  for (const format::RootPart& part : root.parts) {
    Result<std::unique_ptr<PartReader>> reader = PartReader::open(objects_, part.part);
    if (!reader.ok()) continue;  // told by check_parts
    CAISSON_RETURN_IF_ERROR(check_digest(part.part, part.part.bytes - format::kBlockBytes,
                                         (*reader)->trailer().body_digest));
  }
  std::vector<format::SealedRef> packs;
  uint64_t total = 0, done = 0;
  for (const format::SealedRef& pack : tables_.packs) {
    if (bad_packs_.contains(pack.object) || !read_packs_.insert(pack.object).second) continue;
    packs.push_back(pack);
    total += pack.bytes;
  }
  const PackScanEvents events{.damage =
                                  [&](const format::SealedRef& pack, uint64_t offset,
                                      const Digest* id, std::string_view what) {
                                    bad_packs_.emplace(pack.object, checkpoint_);
                                    ScrubFinding finding{.object = pack.object.key(),
                                                         .offset = offset,
                                                         .what = std::string(what)};
                                    if (id == nullptr) return add(std::move(finding));
                                    finding.id = to_hex(*id);
                                    add_chunk(std::move(finding), UINT32_MAX, 0);
                                  },
                              .progress =
                                  [&](uint64_t bytes, uint64_t chunks) {
                                    report_.bytes_read += bytes;
                                    report_.chunks += chunks;
                                    done += bytes;
                                    if (options_.progress)
                                      options_.progress({.bytes_done = done, .bytes_total = total});
                                  }};
  return scan_packs(objects_, budget_, footers_, reads_, manifest.packs(), packs,
                    {.decode = options_.depth == ScrubDepth::kFull, .stop = options_.stop}, events);
}

Status Scrubber::check_digest(const format::SealedRef& object, uint64_t bytes,
                              const Digest& expected) {
  const std::string key = object.object.key();
  DigestStream digest;
  ByteVector buffer(static_cast<size_t>(std::min(bytes, kDigestReadBytes)));
  for (uint64_t offset = 0; offset < bytes; offset += buffer.size()) {
    CAISSON_RETURN_IF_ERROR(check_stop());
    const auto piece = static_cast<size_t>(std::min<uint64_t>(buffer.size(), bytes - offset));
    const Status read = reads_.read(object, offset, MutableBytes(buffer).first(piece));
    if (!read.ok()) return note(read, key, offset);
    digest.add(Bytes(buffer).first(piece));
  }
  report_.bytes_read += bytes;
  if (digest.finish() != expected && !CAISSON_MUTANT(object_digest)) {
    add({.object = key, .what = "its bytes do not have the digest that it was sealed with"});
  }
  return ok_status();
}

// Findings in packs know a place, not a tensor: finds the entries that refer to those places, then
// the tensors that own the entries. Reads the tables once more, and only when something is damaged.
Status Scrubber::name_tensors(Manifest& manifest) {
  if (places_.empty()) return ok_status();
  CAISSON_RETURN_IF_ERROR(find_places(manifest));
  const auto by_entry = [](const Place& place) { return std::tie(place.part, place.entry); };
  std::sort(places_.begin(), places_.end(),
            [&](const Place& a, const Place& b) { return by_entry(a) < by_entry(b); });
  const Status named = manifest.for_each([&](const TensorRecord& record) {
    for (const ShardRecord& shard : record.shards) {
      const uint64_t end = shard.first_entry + shard.pieces;
      auto place =
          std::lower_bound(places_.begin(), places_.end(), std::tie(shard.part, shard.first_entry),
                           [&](const Place& a, const auto& b) { return by_entry(a) < b; });
      for (; place != places_.end() && place->part == shard.part && place->entry < end; ++place) {
        report_.findings[place->finding].tensor = record.spec.name;
      }
    }
    return check_stop();
  });
  return named.ok() || is_damage(named) ? ok_status() : named;  // damage of tables was told before
}

Status Scrubber::find_places(Manifest& manifest) {
  std::map<std::pair<std::string, uint64_t>, size_t> wanted;  // place in a pack -> finding
  for (const Place& place : places_) {
    const ScrubFinding& finding = report_.findings[place.finding];
    if (place.part == UINT32_MAX) wanted[{finding.object, finding.offset}] = place.finding;
  }
  if (wanted.empty()) return ok_status();
  std::erase_if(places_, [](const Place& place) { return place.part == UINT32_MAX; });
  const format::Root& root = manifest.root();
  for (uint32_t part = 0; part < root.parts.size(); ++part) {
    for (uint64_t first = 0; first < root.parts[part].entries; first += kEntriesPerBatch) {
      CAISSON_RETURN_IF_ERROR(check_stop());
      const uint64_t count = std::min<uint64_t>(kEntriesPerBatch, root.parts[part].entries - first);
      const Result<std::vector<format::ChunkEntry>> entries = manifest.entries(part, first, count);
      if (!entries.ok()) continue;
      for (size_t i = 0; i < entries->size(); ++i) {
        const format::ChunkEntry& entry = (*entries)[i];
        if (entry.pack == format::kPackInline) continue;
        const auto found =
            wanted.find({manifest.pack_of(part, entry).object.key(), entry.offset_bytes()});
        if (found == wanted.end()) continue;
        places_.push_back({.finding = found->second, .part = part, .entry = first + i});
      }
    }
  }
  return ok_status();
}

Status Scrubber::find_orphans(std::span<const Uuid> saves) {
  std::vector<std::string> prefixes;
  for (const Uuid& save : saves) prefixes.push_back(format::save_prefix(save));
  const auto in_progress = [&](const std::string& key) {
    return std::any_of(prefixes.begin(), prefixes.end(),
                       [&](const std::string& prefix) { return key.starts_with(prefix); });
  };
  for (const std::string_view prefix : {"data/", "tmp/"}) {
    const Status listed = objects_.list(prefix, [&](const ObjectInfo& info) {
      if (needed_.contains(info.key) || in_progress(info.key)) return check_stop();
      add({.object = info.key,
           .what = std::to_string(info.bytes) +
                   " bytes that no checkpoint needs; next: caisson gc STORE",
           .damage = false});
      return check_stop();
    });
    CAISSON_RETURN_IF_ERROR(listed);
  }
  return ok_status();
}

}  // namespace caisson

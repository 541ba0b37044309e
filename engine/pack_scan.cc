#include "engine/pack_scan.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "io/base/mutant.h"

namespace caisson {

namespace {

constexpr size_t kFootersKeptMax = 256;  // about 20 KiB each
constexpr uint32_t kSegmentsInFlightMax = 8;

Result<std::shared_ptr<const format::PackFooter>> read_footer(ObjectReads& reads,
                                                              const format::SealedRef& pack) {
  const std::string key = pack.object.key();
  if (pack.bytes < 2 * format::kBlockBytes) return corruption(key + ": too short for a pack");
  ByteVector trailer(format::kBlockBytes);
  CAISSON_RETURN_IF_ERROR(reads.read(pack, pack.bytes - format::kBlockBytes, trailer));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t offset,
                           format::footer_offset_of(pack.object, pack.bytes, trailer));
  if (offset > pack.bytes - format::kBlockBytes) {
    return corruption(key + ": the footer starts past the end of the pack");
  }
  ByteVector bytes(static_cast<size_t>(pack.bytes - offset));
  CAISSON_RETURN_IF_ERROR(reads.read(pack, offset, bytes));
  CAISSON_ASSIGN_OR_RETURN(format::PackFooter footer,
                           format::decode_pack_footer(pack.object, pack.bytes, bytes));
  if (footer.digest != pack.digest && !CAISSON_MUTANT(pack_footer_digest)) {
    return corruption(key + " at offset " + std::to_string(offset) +
                      ": the footer is not the one that was sealed");
  }
  return std::make_shared<const format::PackFooter>(std::move(footer));
}

// One scan: segments of all packs in order, each a read, checked as they arrive.
class PackScan {
 public:
  PackScan(ObjectStore& objects, PackFooters& footers, ObjectReads& reads, RootPacks& root_packs,
           std::span<const format::SealedRef> packs, const PackScanOptions& options,
           const PackScanEvents& events)
      : objects_(objects),
        footers_(footers),
        packs_(packs),
        options_(options),
        events_(events),
        chunks_(reads, root_packs) {}

  Status run(MemoryBudget& budget) {
    const uint64_t fit = budget.bytes_max() / format::kSegmentBytesMax;
    const auto depth =
        static_cast<uint32_t>(std::clamp<uint64_t>(fit > 1 ? fit - 1 : 1, 1, kSegmentsInFlightMax));
    CAISSON_ASSIGN_OR_RETURN(pool_,
                             BufferPool::create(budget, format::kSegmentBytesMax, depth + 1));
    slots_.resize(depth);
    for (uint32_t i = 0; i < depth; ++i) free_slots_.push_back(i);
    CAISSON_ASSIGN_OR_RETURN(
        queue_, objects_.make_queue({.depth = depth, .registered_memory = pool_.warm_arena()}));
    CAISSON_RETURN_IF_ERROR(fill_queue());
    while (queue_->in_flight() > 0) {
      if (options_.stop.stop_requested()) return cancelled("verify was cancelled");
      CAISSON_ASSIGN_OR_RETURN(const IoCompletion done, queue_->wait());
      Slot slot = std::exchange(slots_[done.tag], {});
      free_slots_.push_back(static_cast<uint32_t>(done.tag));
      CAISSON_RETURN_IF_ERROR(fill_queue());
      CAISSON_RETURN_IF_ERROR(check_segment(slot, done.status));
      pool_.give(slot.buffer);
      CAISSON_RETURN_IF_ERROR(fill_queue());
    }
    return ok_status();
  }

 private:
  struct Slot {
    const format::SealedRef* pack = nullptr;
    std::shared_ptr<ObjectReader> reader;
    std::shared_ptr<const format::PackFooter> footer;
    size_t segment = 0;
    MutableBytes buffer;
  };

  void damage(const Slot& slot, uint64_t offset, const Digest* id, std::string_view what) const {
    events_.damage(*slot.pack, offset, id, what);
  }

  // Opens packs until one has a segment to read; false at the end. A pack that cannot be opened is
  // damage that the structure check has told already.
  Result<bool> next_segment() {
    while (!current_.reader || current_.segment == current_.footer->segments.size()) {
      if (next_pack_ == packs_.size()) return false;
      const format::SealedRef& pack = packs_[next_pack_++];
      current_ = {};
      Result<std::shared_ptr<const format::PackFooter>> footer = footers_.get(pack);
      if (!footer.ok()) continue;
      Result<std::unique_ptr<ObjectReader>> reader = open_sealed(objects_, pack);
      if (!reader.ok()) continue;
      ByteVector header(format::kBlockBytes);
      Status good = (*reader)->read(0, header);
      if (good.ok()) good = format::check_pack_header(pack.object, header);
      if (!good.ok()) events_.damage(pack, 0, nullptr, good.message());
      events_.progress(header.size(), 0);
      current_ = {.pack = &pack,
                  .reader = std::move(reader).value(),
                  .footer = std::move(footer).value(),
                  .segment = 0,
                  .buffer = {}};
    }
    return true;
  }

  Status fill_queue() {
    while (!free_slots_.empty() && pool_.free_count() > 0) {
      CAISSON_ASSIGN_OR_RETURN(const bool more, next_segment());
      if (!more) return ok_status();
      const format::Segment& segment = current_.footer->segments[current_.segment];
      if (segment.bytes > pool_.buffer_bytes() || segment.offset > current_.pack->bytes ||
          segment.bytes > current_.pack->bytes - segment.offset) {
        damage(current_, segment.offset, nullptr, "a segment does not lie inside its pack");
        ++current_.segment;
        continue;
      }
      Slot slot = current_;
      ++current_.segment;
      slot.buffer = pool_.take();
      const uint32_t tag = free_slots_.back();
      CAISSON_RETURN_IF_ERROR(
          queue_->submit_read(*slot.reader, segment.offset,
                              slot.buffer.first(static_cast<size_t>(segment.bytes)), tag));
      free_slots_.pop_back();
      slots_[tag] = std::move(slot);
    }
    return ok_status();
  }

  Status check_segment(const Slot& slot, const Status& read) {
    const format::Segment& segment = slot.footer->segments[slot.segment];
    const MutableBytes bytes = slot.buffer.first(static_cast<size_t>(segment.bytes));
    const Status status = read.ok() ? read : slot.reader->read(segment.offset, bytes);
    events_.progress(segment.bytes, segment.entries.size());
    if (!status.ok()) {
      damage(slot, segment.offset, nullptr, status.message());
      return ok_status();
    }
    const Result<format::Segment> directory = format::decode_segment_directory(
        slot.pack->object, segment.offset, Bytes(bytes).first(format::kBlockBytes));
    if (!directory.ok()) {
      damage(slot, segment.offset, nullptr, directory.status().message());
    } else if (directory->entries != segment.entries) {
      damage(slot, segment.offset, nullptr, "the segment's directory differs from the footer's");
    }
    for (const format::ChunkEntry& entry : segment.entries) {
      CAISSON_RETURN_IF_ERROR(check_chunk(slot, segment, entry, bytes));
    }
    return ok_status();
  }

  Status check_chunk(const Slot& slot, const format::Segment& segment,
                     const format::ChunkEntry& entry, MutableBytes bytes) {
    const uint64_t offset = entry.offset_bytes();
    if (offset < segment.offset || offset - segment.offset > segment.bytes ||
        entry.stored_bytes > segment.bytes - (offset - segment.offset)) {
      damage(slot, offset, &entry.id, "the chunk does not lie inside its segment");
      return ok_status();
    }
    const MutableBytes stored =
        bytes.subspan(static_cast<size_t>(offset - segment.offset), entry.stored_bytes);
    Status good = check_stored(slot, entry, stored);
    if (good.code() == StatusCode::kCorruption) {  // once more: a fault may pass
      good = slot.reader->read(offset, stored);
      if (good.ok()) good = check_stored(slot, entry, stored);
    }
    if (good.code() == StatusCode::kUnsupported) return good;
    if (!good.ok()) damage(slot, offset, &entry.id, good.message());
    return ok_status();
  }

  Status check_stored(const Slot& slot, const format::ChunkEntry& entry, Bytes stored) {
    const uint64_t salt = format::pack_salt(slot.pack->object, entry.offset_bytes());
    const Digest digest = digest_of(stored);
    if (chunk_checksum(digest, salt) != entry.stored_checksum && !CAISSON_MUTANT(stored_checksum)) {
      return corruption("the stored bytes do not have their checksum");
    }
    if (!options_.decode) return ok_status();
    if (entry.raw_bytes > format::kChunkRawBytesMax) {
      return corruption("larger than a chunk can be");
    }
    const bool stored_raw = entry.codec == static_cast<uint8_t>(CodecId::kRaw) && entry.flags == 0;
    if (!stored_raw && scratch_.size() < entry.raw_bytes) scratch_.resize(entry.raw_bytes);
    const StoredChunk form{.id = entry.id,
                           .raw_bytes = entry.raw_bytes,
                           .codec = entry.codec,
                           .flags = entry.flags,
                           .element = {.code = 0, .bits = static_cast<uint8_t>(bits_)}};
    const KnownChunk known = {.id = last_id_, .raw = last_raw_};
    CAISSON_ASSIGN_OR_RETURN(const Bytes raw, chunks_.decode(form, stored, scratch_, known));
    CAISSON_RETURN_IF_ERROR(
        verify_any_width(raw.data() == stored.data() ? digest : digest_of(raw), entry.id, bits_));
    keep_for_twin(entry, raw);
    return ok_status();
  }

  // A twin comes right behind its base, which then need not be read and decoded again. Only what
  // may be one is kept: the raw bytes are about to go.
  void keep_for_twin(const format::ChunkEntry& entry, Bytes raw) {
    last_raw_.clear();
    if (bits_ != 16 || (entry.flags & format::kFlagHasBase) != 0) return;
    last_raw_.assign(raw.begin(), raw.end());
    last_id_ = entry.id;
  }

  ObjectStore& objects_;
  PackFooters& footers_;
  const std::span<const format::SealedRef> packs_;
  const PackScanOptions& options_;
  const PackScanEvents& events_;
  ChunkReader chunks_;
  uint32_t bits_ = 16;  // the width that fitted last
  size_t next_pack_ = 0;
  Slot current_;
  BufferPool pool_;
  ByteVector scratch_;   // of decoding; outside the budget, one chunk
  ByteVector last_raw_;  // of the chunk before, where a twin may follow; one more
  Digest last_id_{};
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_slots_;
  std::unique_ptr<TransferQueue> queue_;  // last: destroyed before what it reads into
};

}  // namespace

Result<std::shared_ptr<const format::PackFooter>> PackFooters::get(const format::SealedRef& pack) {
  for (auto it = kept_.begin(); it != kept_.end(); ++it) {
    if (it->pack != pack.object) continue;
    if (it->footer->digest != pack.digest && !CAISSON_MUTANT(pack_footer_digest)) {
      return corruption(pack.object.key() + ": the footer is not the one that was sealed");
    }
    kept_.splice(kept_.begin(), kept_, it);
    return kept_.front().footer;
  }
  CAISSON_ASSIGN_OR_RETURN(std::shared_ptr<const format::PackFooter> footer,
                           read_footer(reads_, pack));
  kept_.push_front({pack.object, footer});
  if (kept_.size() > kFootersKeptMax) kept_.pop_back();
  return footer;
}

const format::ChunkEntry* find_chunk(const format::PackFooter& footer, uint64_t offset) {
  const auto after = std::upper_bound(
      footer.segments.begin(), footer.segments.end(), offset,
      [](uint64_t wanted, const format::Segment& segment) { return wanted < segment.offset; });
  if (after == footer.segments.begin()) return nullptr;
  const std::vector<format::ChunkEntry>& entries = std::prev(after)->entries;
  const auto entry = std::find_if(entries.begin(), entries.end(), [&](const auto& candidate) {
    return candidate.offset_bytes() == offset;
  });
  return entry == entries.end() ? nullptr : &*entry;
}

const format::ChunkEntry* chunk_before(const format::PackFooter& footer, uint64_t offset) {
  const format::ChunkEntry* last = nullptr;
  for (const format::Segment& segment : footer.segments) {
    if (segment.offset >= offset) break;
    for (const format::ChunkEntry& entry : segment.entries) {
      if (entry.offset_bytes() >= offset) return last;
      last = &entry;
    }
  }
  return last;
}

Status scan_packs(ObjectStore& objects, MemoryBudget& budget, PackFooters& footers,
                  ObjectReads& reads, RootPacks& root_packs,
                  std::span<const format::SealedRef> packs, const PackScanOptions& options,
                  const PackScanEvents& events) {
  if (packs.empty()) return ok_status();
  PackScan scan(objects, footers, reads, root_packs, packs, options, events);
  return scan.run(budget);
}

}  // namespace caisson

#include "engine/manifest.h"

#include <algorithm>
#include <list>
#include <string>
#include <utility>

#include "engine/object_reads.h"
#include "engine/verify_hint.h"
#include "io/base/mutant.h"
#include "io/base/sync.h"

namespace caisson {

namespace {

using format::ChunkEntry;
using format::DirectoryPage;
using format::SealedRef;

constexpr uint64_t kIndexBytesMax = 256u << 20;    // of a page index
constexpr uint64_t kEntryReadBlocksMax = 256;      // 1 MiB of entry blocks a read
constexpr uint64_t kPageCacheBytesMax = 4u << 20;  // of encoded pages; the newest always stays

// Where a paged directory lies: the tail part of a rank part, or an object of its own.
struct DirectoryPlace {
  SealedRef object;
  uint64_t offset = 0;        // of the directory in the object
  uint64_t index_offset = 0;  // of the page index in the directory
  uint64_t bytes = 0;         // of the directory, page index included
  const Uuid& salt() const { return object.object.writer; }
};

Result<std::vector<DirectoryPage>> read_page_index(ObjectReads& reads,
                                                   const DirectoryPlace& place) {
  const std::string what = place.object.object.key();
  if (place.index_offset > place.bytes || place.bytes - place.index_offset > kIndexBytesMax ||
      place.offset > place.object.bytes || place.bytes > place.object.bytes - place.offset) {
    return corruption(what + " at offset " + std::to_string(place.offset + place.index_offset) +
                      ": the page index of the directory does not lie inside the object");
  }
  ByteVector index(static_cast<size_t>(place.bytes - place.index_offset));
  CAISSON_RETURN_IF_ERROR(reads.read(place.object, place.offset + place.index_offset, index));
  return format::decode_page_index(place.salt(), place.index_offset, index, what);
}

Result<ByteVector> read_page_bytes(ObjectReads& reads, const DirectoryPlace& place,
                                   const DirectoryPage& page) {
  ByteVector bytes(page.bytes);
  CAISSON_RETURN_IF_ERROR(reads.read(place.object, place.offset + page.offset, bytes));
  return bytes;
}

Result<std::vector<TensorRecord>> read_page(ObjectReads& reads, const DirectoryPlace& place,
                                            const DirectoryPage& page) {
  CAISSON_ASSIGN_OR_RETURN(const ByteVector bytes, read_page_bytes(reads, place, page));
  return format::decode_page(place.salt(), page, bytes, place.object.object.key());
}

// Decoders check a record by itself; what it refers to outside itself is checked here, so that
// planning and reading may rely on it. `entries_of(part)` is how many entries that part has.
template <typename EntriesOf>
Status check_record(const TensorRecord& record, uint64_t parts, const EntriesOf& entries_of) {
  const auto damaged = [&](const std::string& why) {
    return corruption("tensor \"" + record.spec.name + "\": " + why);
  };
  for (const ShardRecord& shard : record.shards) {
    if (shard.part >= parts) {
      return damaged("a shard refers to part " + std::to_string(shard.part) + " of " +
                     std::to_string(parts));
    }
    if (!contains(record.spec.shape, shard.box)) {
      return damaged("shard " + to_string(shard.box) + " lies outside " +
                     to_string(record.spec.shape));
    }
    const uint64_t cells = piece_count(shard.grid, shard.box);
    if (shard.first_piece > cells || shard.pieces > cells - shard.first_piece) {
      return damaged("shard " + to_string(shard.box) + " claims more pieces than it has");
    }
    const uint64_t entries = entries_of(shard.part);
    if (shard.first_entry > entries || shard.pieces > entries - shard.first_entry) {
      return damaged("shard " + to_string(shard.box) + " refers to entries past the " +
                     std::to_string(entries) + " of its part");
    }
  }
  return ok_status();
}

class PartReaderImpl final : public PartReader {
 public:
  PartReaderImpl(ObjectStore& objects, const SealedRef& part, format::PartTrailer trailer)
      : reads_(objects), part_(part), trailer_(std::move(trailer)) {}

  const format::PartTrailer& trailer() const override { return trailer_; }

  Result<std::vector<SealedRef>> packs() override {
    if (trailer_.packs_bytes > part_.bytes) {
      return corruption(part_.object.key() + ": the pack list is larger than the part");
    }
    ByteVector bytes(static_cast<size_t>(trailer_.packs_bytes));
    CAISSON_RETURN_IF_ERROR(reads_.read(part_, trailer_.packs_offset, bytes));
    return format::decode_pack_list(part_.object.writer, bytes, part_.object.key());
  }

  Status for_each(const std::function<Status(const TensorRecord&, Bytes encoded)>& visit) override {
    const DirectoryPlace place{.object = part_,
                               .offset = trailer_.directory_offset,
                               .index_offset = trailer_.directory_index_offset,
                               .bytes = trailer_.directory_bytes};
    CAISSON_ASSIGN_OR_RETURN(const std::vector<DirectoryPage> pages,
                             read_page_index(reads_, place));
    const auto check_and_visit = [&](const TensorRecord& record, Bytes encoded) -> Status {
      const Status good = check_record(record, 1, [&](uint32_t) { return trailer_.entries; });
      if (!good.ok()) return good.with_context(part_.object.key());
      return visit(record, encoded);
    };
    for (const DirectoryPage& page : pages) {
      CAISSON_ASSIGN_OR_RETURN(const ByteVector bytes, read_page_bytes(reads_, place, page));
      CAISSON_RETURN_IF_ERROR(
          format::for_each_record(place.salt(), page, bytes, part_.object.key(), check_and_visit));
    }
    return ok_status();
  }

 private:
  ObjectReads reads_;
  const SealedRef part_;
  const format::PartTrailer trailer_;
};

using Page = std::shared_ptr<const std::vector<TensorRecord>>;

class ManifestImpl final : public Manifest {
 public:
  ManifestImpl(ObjectStore& objects, format::Root root)
      : reads_(objects),
        root_(std::move(root)),
        name_(root_.run + "/" + std::to_string(root_.step)),
        place_{.object = root_.directory,
               .offset = 0,
               .index_offset = root_.directory_index_offset,
               .bytes = root_.directory.bytes} {}

  // Both once, before the manifest is shared.
  Status start_packs(const SealedRef& sealed, const ByteVector& tables) {
    if (tables.empty()) {
      packs_ = std::make_unique<RootPacks>(reads_, sealed, root_);
      return ok_status();
    }
    Result<format::PackTables> decoded =
        format::decode_pack_tables(root_, tables, sealed.object.key());
    if (!decoded.ok()) return damaged(decoded.status());
    packs_ = std::make_unique<RootPacks>(root_, std::move(decoded).value());
    return ok_status();
  }
  Status read_index() {
    Result<std::vector<DirectoryPage>> pages = read_page_index(reads_, place_);
    if (!pages.ok()) return damaged(pages.status());
    pages_ = std::move(pages).value();
    const auto unordered = std::adjacent_find(
        pages_.begin(), pages_.end(),
        [](const auto& a, const auto& b) { return a.first_name >= b.first_name; });
    if (unordered != pages_.end()) {
      return damaged(corruption(place_.object.object.key() + ": pages are not in order of names"));
    }
    return ok_status();
  }

  const format::Root& root() const override { return root_; }
  RootPacks& packs() override { return *packs_; }

  Result<std::shared_ptr<const TensorRecord>> find(std::string_view name) override {
    const auto after = std::upper_bound(pages_.begin(), pages_.end(), name,
                                        [](std::string_view wanted, const DirectoryPage& page) {
                                          return wanted < page.first_name;
                                        });
    if (after == pages_.begin()) return std::shared_ptr<const TensorRecord>();
    CAISSON_ASSIGN_OR_RETURN(const Page page,
                             cached_page(static_cast<size_t>(after - pages_.begin()) - 1));
    const auto record = std::lower_bound(
        page->begin(), page->end(), name,
        [](const TensorRecord& r, std::string_view wanted) { return r.spec.name < wanted; });
    if (record == page->end() || record->spec.name != name) {
      return std::shared_ptr<const TensorRecord>();
    }
    return std::shared_ptr<const TensorRecord>(page, &*record);  // keeps the page
  }

  Status for_each(const std::function<Status(const TensorRecord&)>& visit) override {
    for (size_t i = 0; i < pages_.size(); ++i) {
      CAISSON_ASSIGN_OR_RETURN(const Page page, load_page(i));
      for (const TensorRecord& record : *page) CAISSON_RETURN_IF_ERROR(visit(record));
    }
    return ok_status();
  }

  Result<std::vector<ChunkEntry>> entries(uint32_t part, uint64_t first, uint64_t count) override;
  Result<ByteVector> inline_bytes(uint32_t part, const ChunkEntry& entry,
                                  uint32_t element_bits) override;

  uint32_t pack_index(uint32_t part, const ChunkEntry& entry) const override {
    return packs_->index_of(part, entry.pack);
  }
  const SealedRef& pack_of(uint32_t part, const ChunkEntry& entry) const override {
    return packs_->at(packs_->index_of(part, entry.pack));
  }

 private:
  struct CachedPage {
    size_t index = 0;
    Page page;
  };

  Status damaged(const Status& status) const {
    if (status.code() != StatusCode::kCorruption) return status.with_context(name_);
    return corruption(name_ + ": " + std::string(status.message()) +
                      verify_hint(name_, "structure"));
  }

  Status check_page(size_t index, const std::vector<TensorRecord>& records) const;
  Result<Page> load_page(size_t index);
  Result<Page> cached_page(size_t index) CAISSON_EXCLUDES(mutex_);
  Status check_entry(uint32_t part, const ChunkEntry& entry);

  ObjectReads reads_;
  const format::Root root_;
  std::unique_ptr<RootPacks> packs_;
  const std::string name_;
  const DirectoryPlace place_;
  std::vector<DirectoryPage> pages_;
  Mutex mutex_;
  std::list<CachedPage> cache_ CAISSON_GUARDED_BY(mutex_);  // most recently used first
  uint64_t cache_bytes_ CAISSON_GUARDED_BY(mutex_) = 0;
};

Status ManifestImpl::check_page(size_t index, const std::vector<TensorRecord>& records) const {
  const std::string where =
      place_.object.object.key() + " at offset " + std::to_string(pages_[index].offset);
  const bool last = index + 1 == pages_.size();
  for (size_t i = 0; i < records.size(); ++i) {
    const std::string& name = records[i].spec.name;
    const bool in_order =
        i == 0 ? name == pages_[index].first_name : records[i - 1].spec.name < name;
    if (!in_order || (!last && name >= pages_[index + 1].first_name)) {
      return corruption(
          std::string(where).append(": names are out of order at \"").append(name).append("\""));
    }
    const Status good = check_record(records[i], root_.parts.size(),
                                     [&](uint32_t part) { return root_.parts[part].entries; });
    if (!good.ok()) return good.with_context(where);
  }
  return ok_status();
}

Result<Page> ManifestImpl::load_page(size_t index) {
  Result<std::vector<TensorRecord>> records = read_page(reads_, place_, pages_[index]);
  if (!records.ok()) return damaged(records.status());
  const Status good = check_page(index, *records);
  if (!good.ok()) return damaged(good);
  return Page(std::make_shared<const std::vector<TensorRecord>>(std::move(records).value()));
}

Result<Page> ManifestImpl::cached_page(size_t index) {
  {
    MutexLock lock(mutex_);
    for (auto it = cache_.begin(); it != cache_.end(); ++it) {
      if (it->index != index) continue;
      cache_.splice(cache_.begin(), cache_, it);
      return cache_.front().page;
    }
  }
  // Read without the lock: two threads may read the same page, none waits for another's I/O.
  CAISSON_ASSIGN_OR_RETURN(Page page, load_page(index));
  MutexLock lock(mutex_);
  cache_.push_front({index, page});
  cache_bytes_ += pages_[index].bytes;
  while (cache_bytes_ > kPageCacheBytesMax && cache_.size() > 1) {
    cache_bytes_ -= pages_[cache_.back().index].bytes;
    cache_.pop_back();
  }
  return page;
}

// What an entry refers to exists; of a chunk in a pack, that pack is known from here on.
Status ManifestImpl::check_entry(uint32_t part, const ChunkEntry& entry) {
  const format::RootPart& owner = root_.parts[part];
  if (entry.pack == format::kPackInline) {
    if (entry.offset_bytes() <= owner.inline_bytes &&
        entry.stored_bytes <= owner.inline_bytes - entry.offset_bytes()) {
      return ok_status();
    }
    return corruption("inline chunk " + to_hex(entry.id) + " lies outside the inline section");
  }
  if (entry.pack >= owner.packs) {
    return corruption("chunk " + to_hex(entry.id) + " refers to pack " +
                      std::to_string(entry.pack) + " of " + std::to_string(owner.packs));
  }
  CAISSON_RETURN_IF_ERROR(packs_->need(part, entry.pack));
  const SealedRef& pack = pack_of(part, entry);
  if (entry.offset_bytes() > pack.bytes || entry.stored_bytes > pack.bytes - entry.offset_bytes()) {
    return corruption("chunk " + to_hex(entry.id) + " lies outside " + pack.object.key());
  }
  return ok_status();
}

Result<std::vector<ChunkEntry>> ManifestImpl::entries(uint32_t part, uint64_t first,
                                                      uint64_t count) {
  if (part >= root_.parts.size() || first > root_.parts[part].entries ||
      count > root_.parts[part].entries - first) {
    return invalid_argument(name_ + ": entries " + std::to_string(first) + " to " +
                            std::to_string(first + count) + " of part " + std::to_string(part) +
                            " do not exist");
  }
  std::vector<ChunkEntry> found;
  if (count == 0) return found;
  found.reserve(static_cast<size_t>(count));
  const format::RootPart& owner = root_.parts[part];
  const std::string key = owner.part.object.key();
  const uint64_t end = first + count;
  const uint64_t end_block = (end - 1) / format::kEntriesPerBlock + 1;
  ByteVector blocks;
  for (uint64_t block = first / format::kEntriesPerBlock; block < end_block;) {
    const uint64_t batch = std::min(kEntryReadBlocksMax, end_block - block);
    blocks.resize(static_cast<size_t>(batch * format::kBlockBytes));
    const Status read = reads_.read(owner.part, block * format::kBlockBytes, blocks);
    if (!read.ok()) return damaged(read);
    for (uint64_t i = 0; i < batch; ++i, ++block) {
      const uint64_t base = block * format::kEntriesPerBlock;
      const Bytes bytes =
          Bytes(blocks).subspan(static_cast<size_t>(i * format::kBlockBytes), format::kBlockBytes);
      Result<std::vector<ChunkEntry>> decoded =
          format::decode_entry_block(owner.part.object.writer, block, bytes, key);
      if (!decoded.ok()) return damaged(decoded.status());
      const std::string where = key + " at offset " + std::to_string(block * format::kBlockBytes);
      if (decoded->size() != std::min<uint64_t>(format::kEntriesPerBlock, owner.entries - base)) {
        return damaged(corruption(where + ": a block of " + std::to_string(decoded->size()) +
                                  " entries does not fill its place in the table"));
      }
      const uint64_t from = std::max(first, base);
      const uint64_t to = std::min(end, base + decoded->size());
      for (uint64_t e = from; e < to; ++e) {
        const ChunkEntry& entry = (*decoded)[static_cast<size_t>(e - base)];
        const Status good = check_entry(part, entry);
        if (!good.ok()) return damaged(good.with_context(where));
        found.push_back(entry);
      }
    }
  }
  return found;
}

Result<ByteVector> ManifestImpl::inline_bytes(uint32_t part, const ChunkEntry& entry,
                                              uint32_t element_bits) {
  if (part >= root_.parts.size() || entry.pack != format::kPackInline) {
    return invalid_argument(name_ + ": not an inline entry of part " + std::to_string(part));
  }
  const Status good = check_entry(part, entry);
  if (!good.ok()) return damaged(good);
  const SealedRef& object = root_.parts[part].part;
  const uint64_t offset = root_.parts[part].inline_offset + entry.offset_bytes();
  const std::string where = object.object.key() + " at offset " + std::to_string(offset);
  if (entry.codec != 0 || entry.stored_bytes != entry.raw_bytes) {
    return damaged(corruption(where + ": inline chunks are stored raw, this one says codec " +
                              std::to_string(entry.codec)));
  }
  ByteVector raw(entry.raw_bytes);
  const Status read = reads_.read(object, offset, raw);
  if (!read.ok()) return damaged(read);
  if (content_id(raw, element_bits) != entry.id && !CAISSON_MUTANT(inline_content_id)) {
    return damaged(corruption(where + ": inline chunk " + to_hex(entry.id) +
                              " does not have the content of its id"));
  }
  return raw;
}

}  // namespace

Result<std::unique_ptr<PartReader>> PartReader::open(ObjectStore& objects, const SealedRef& part) {
  const std::string key = part.object.key();
  if (part.bytes < format::kBlockBytes) return corruption(key + ": too short for a rank part");
  CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectReader> reader, open_sealed(objects, part));
  const uint64_t offset = part.bytes - format::kBlockBytes;
  ByteVector block(format::kBlockBytes);
  const Status read = reader->read(offset, block);
  if (!read.ok()) return read.with_context(key + " at offset " + std::to_string(offset));
  if (digest_of(block) != part.digest && !CAISSON_MUTANT(part_trailer_digest)) {
    return corruption(key + " at offset " + std::to_string(offset) +
                      ": the trailer is not the one that was sealed");
  }
  CAISSON_ASSIGN_OR_RETURN(format::PartTrailer trailer,
                           format::decode_part_trailer(part.object, part.bytes, block, key));
  return std::unique_ptr<PartReader>(
      std::make_unique<PartReaderImpl>(objects, part, std::move(trailer)));
}

namespace {

Status damaged_root(const SealedRef& root, const Status& status) {
  if (status.code() != StatusCode::kCorruption) return status.with_context(root.object.key());
  return corruption(std::string(status.message()) + verify_hint({}, "structure"));
}

}  // namespace

Result<WholeRoot> read_root(ObjectStore& objects, const SealedRef& root) {
  ObjectReads reads(objects);
  Result<OpenRoot> open = read_root_head(reads, root);
  if (!open.ok()) return damaged_root(root, open.status());
  Result<format::PackTables> tables =
      open->tables.empty()
          ? RootPacks(reads, root, open->root).all()
          : format::decode_pack_tables(open->root, open->tables, root.object.key());
  if (!tables.ok()) return damaged_root(root, tables.status());
  return WholeRoot{.root = std::move(open->root), .tables = std::move(tables).value()};
}

Result<std::shared_ptr<Manifest>> Manifest::open(ObjectStore& objects, const SealedRef& root) {
  ObjectReads reads(objects);
  Result<OpenRoot> open = read_root_head(reads, root);
  if (!open.ok()) return damaged_root(root, open.status());
  auto manifest = std::make_shared<ManifestImpl>(objects, std::move(open->root));
  CAISSON_RETURN_IF_ERROR(manifest->start_packs(root, open->tables));
  CAISSON_RETURN_IF_ERROR(manifest->read_index());
  return std::shared_ptr<Manifest>(std::move(manifest));
}

}  // namespace caisson

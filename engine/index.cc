#include "engine/index.h"

#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/sst_file_writer.h>
#include <rocksdb/table.h>
#include <sys/file.h>

#include <algorithm>
#include <filesystem>
#include <future>
#include <map>
#include <system_error>
#include <unordered_set>
#include <utility>

#include "engine/index_rows.h"
#include "engine/index_seal.h"
#include "engine/manifest.h"
#include "engine/place_run.h"
#include "io/base/bytes.h"
#include "io/base/sync.h"
#include "io/posix_file.h"

namespace caisson {

namespace {

namespace fs = std::filesystem;
using format::CommitSeq;
using format::ObjectRef;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;

constexpr uint32_t kKnownPack = UINT32_MAX;       // in place of an ordinal: nothing to load
constexpr uint64_t kEntriesPerRead = 102u * 256;  // 1 MiB of the table

rocksdb::Slice slice(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}
Bytes bytes_of(const rocksdb::Slice& s) { return as_bytes({s.data(), s.size()}); }

Status from_rocks(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return {};
  if (status.IsNoSpace()) return no_space(what + ": " + status.ToString());
  if (status.IsCorruption()) return corruption(what + ": " + status.ToString());
  return io_error(what + ": " + status.ToString());
}

// RocksDB ends the process on some ways to meet a file again that a write to it had failed on, as
// on a full device. So it hears of none: the first is kept here, and nobody uses an index that has
// one.
class WriteErrors {
 public:
  IOStatus keep(const IOStatus& status) CAISSON_EXCLUDES(mutex_) {
    if (!status.ok()) {
      MutexLock lock(mutex_);
      if (first_.ok()) first_ = from_rocks(status, "writing the index");
    }
    return IOStatus::OK();
  }
  Status first() const CAISSON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    return first_;
  }
  void forget() CAISSON_EXCLUDES(mutex_) {
    MutexLock lock(mutex_);
    first_ = {};
  }

 private:
  mutable Mutex mutex_;
  Status first_ CAISSON_GUARDED_BY(mutex_);
};

class KeptFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  KeptFile(std::unique_ptr<rocksdb::FSWritableFile> file, std::shared_ptr<WriteErrors> errors)
      : FSWritableFileOwnerWrapper(std::move(file)), errors_(std::move(errors)) {}

  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  IODebugContext* debug) override {
    return errors_->keep(target()->Append(data, options, debug));
  }
  IOStatus Append(const rocksdb::Slice& data, const IOOptions& options,
                  const rocksdb::DataVerificationInfo& sums, IODebugContext* debug) override {
    return errors_->keep(target()->Append(data, options, sums, debug));
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* debug) override {
    return errors_->keep(target()->Truncate(size, options, debug));
  }
  IOStatus Flush(const IOOptions& options, IODebugContext* debug) override {
    return errors_->keep(target()->Flush(options, debug));
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* debug) override {
    return errors_->keep(target()->Sync(options, debug));
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* debug) override {
    return errors_->keep(target()->Fsync(options, debug));
  }
  IOStatus Close(const IOOptions& options, IODebugContext* debug) override {
    return errors_->keep(target()->Close(options, debug));
  }

 private:
  const std::shared_ptr<WriteErrors> errors_;
};

class KeptFiles final : public rocksdb::FileSystemWrapper {
 public:
  explicit KeptFiles(std::shared_ptr<WriteErrors> errors)
      : FileSystemWrapper(rocksdb::FileSystem::Default()), errors_(std::move(errors)) {}
  const char* Name() const override { return "caisson"; }
  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                           std::unique_ptr<rocksdb::FSWritableFile>* file,
                           IODebugContext* debug) override {
    IOStatus opened = target()->NewWritableFile(path, options, file, debug);
    if (opened.ok()) *file = std::make_unique<KeptFile>(std::move(*file), errors_);
    return opened;
  }

 private:
  const std::shared_ptr<WriteErrors> errors_;
};

rocksdb::Options rocks_options(rocksdb::Env& env) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = rocksdb::NewLRUCache(32u << 20);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.whole_key_filtering = false;           // of prefixes alone: places() seeks by them
  table.cache_index_and_filter_blocks = true;  // counted in the cache, so memory stays bounded
  table.block_size = 16u << 10;
  rocksdb::Options options;
  options.env = &env;
  options.create_if_missing = true;
  options.prefix_extractor.reset(rocksdb::NewFixedPrefixTransform(kChunkPrefixBytes));
  options.paranoid_checks = true;
  options.compression = rocksdb::kNoCompression;  // ids are random
  options.write_buffer_size = 8u << 20;
  options.max_open_files = 256;
  options.level0_file_num_compaction_trigger = 16;  // bulk loads land in level 0
  options.level0_slowdown_writes_trigger = 64;
  options.level0_stop_writes_trigger = 128;
  options.keep_log_file_num = 2;
  options.info_log_level = rocksdb::WARN_LEVEL;
  options.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return options;
}

// One process at a time. The kernel drops the lock with the process, so it is never stale.
Result<UniqueFd> lock_directory(const std::string& directory) {
  const std::string path = directory + "/caisson.lock";
  UniqueFd lock(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644));
  if (!lock.valid()) return errno_status(errno, path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return fenced(directory + ": another process has the index open");
  }
  return lock;
}

// Puts rows into the table of places, whatever their order: in runs, each sorted and written by
// another thread while the next one is filled.
class PlaceLoader {
 public:
  // All that it refers to outlives it. `path` is a file to overwrite, on the file system of `db`.
  PlaceLoader(rocksdb::DB& db, const rocksdb::Options& options, const WriteErrors& errors,
              std::string path, size_t rows_max)
      : db_(db), options_(options), errors_(errors), path_(std::move(path)), rows_max_(rows_max) {
    run_.reserve(rows_max_);
    sorting_.reserve(rows_max_);
  }

  Status add(const PlaceRow& row) {
    run_.push_back(row);
    return run_.size() < rows_max_ ? Status() : hand_over();
  }
  // How many rows were put, equal ones counted once. Nothing may be added afterwards.
  Result<uint64_t> finish() {
    CAISSON_RETURN_IF_ERROR(hand_over());
    CAISSON_RETURN_IF_ERROR(wait());
    return rows_;
  }
  // What a run met, if anything: from then on nothing is put.
  const Status& status() const { return status_; }

 private:
  Status hand_over();
  Status wait();
  Status ingest();  // on the other thread

  rocksdb::DB& db_;
  const rocksdb::Options& options_;
  const WriteErrors& errors_;
  const std::string path_;
  const size_t rows_max_;                    // of a run
  std::vector<PlaceRow> run_;                // being filled
  std::vector<PlaceRow> sorting_, scratch_;  // the other thread's, while there is one
  uint64_t rows_ = 0;
  Status status_;
  std::future<Status> ingesting_;  // last, because its destructor waits for the thread
};

Status PlaceLoader::hand_over() {
  CAISSON_RETURN_IF_ERROR(wait());
  if (run_.empty()) return {};
  sorting_.swap(run_);
  run_.clear();
  ingesting_ = std::async(std::launch::async, [this] { return ingest(); });
  return {};
}

Status PlaceLoader::wait() {
  if (ingesting_.valid()) {
    status_ = ingesting_.get();
    if (status_.ok()) rows_ += sorting_.size();
  }
  return status_;
}

Status PlaceLoader::ingest() {
  sort_places(sorting_, scratch_);
  rocksdb::SstFileWriter writer(rocksdb::EnvOptions(), options_);
  CAISSON_RETURN_IF_ERROR(from_rocks(writer.Open(path_), path_));
  std::string key;
  for (const PlaceRow& row : sorting_) {
    key.assign(1, 'c');
    key.append(as_text(Bytes(row.id.bytes)));
    append_be(key, row.raw_bytes);
    append_be(key, row.pack);
    append_be(key, row.offset_units);
    std::array<std::byte, 14> value;
    store_le(value.data(), row.stored_bytes);
    value[4] = std::byte{row.codec};
    value[5] = std::byte{row.flags};
    store_le(value.data() + 6, row.checksum);
    CAISSON_RETURN_IF_ERROR(from_rocks(writer.Put(key, slice(value)), path_));
  }
  CAISSON_RETURN_IF_ERROR(from_rocks(writer.Finish(), path_));
  CAISSON_RETURN_IF_ERROR(errors_.first());
  rocksdb::IngestExternalFileOptions ingest;
  ingest.move_files = true;
  ingest.write_global_seqno = false;
  return from_rocks(db_.IngestExternalFile({path_}, ingest), path_);
}

class RocksIndex final : public Index {
 public:
  RocksIndex(std::string directory, const Uuid& store, ObjectStore& objects, UniqueFd lock,
             size_t run_rows_max)
      : directory_(std::move(directory)),
        store_(store),
        objects_(objects),
        lock_(std::move(lock)),
        run_rows_max_(run_rows_max),
        options_(rocks_options(*env_)) {}

  // Takes the directory as it is when its seal holds; otherwise starts from nothing.
  Status start() {
    auto seal = break_seal(directory_, store_);
    if (seal.ok()) {
      seal_ = std::move(seal).value();
      if (open_rocks().ok() && load_state()) return {};
      reason_ = "RocksDB refused it";
    } else if (seal.status().code() != StatusCode::kNotFound) {
      reason_ = seal.status().message();
    } else if (fs::exists(directory_ + "/CURRENT")) {
      reason_ = "it was not closed cleanly";
    } else {
      reason_ = "there was none";
    }
    return start_empty();
  }

  Result<IndexSync> sync(const LogState& log,
                         const std::function<void(const Status&)>& complain) override;
  Result<std::vector<ChunkPlace>> places(const Digest& id, uint32_t raw_bytes,
                                         const LogState& log) override;
  Result<std::optional<CatalogEntry>> catalog(CommitSeq seq) override;
  Result<std::optional<std::string>> recall(std::string_view question) override;
  Status remember(std::string_view question, std::string_view answer) override {
    return put("q" + std::string(question), std::string(answer));
  }
  Result<IndexStats> stats() override;
  Status close() override;

 private:
  Status open_rocks() {
    rocksdb::DB* db = nullptr;
    CAISSON_RETURN_IF_ERROR(from_rocks(rocksdb::DB::Open(options_, directory_, &db), directory_));
    db_.reset(db);
    return errors_->first();
  }
  Status start_empty();
  bool load_state();
  bool is_mostly_garbage(const LogState& log) const;
  uint32_t ordinal_of(const ObjectRef& pack);
  // Its places go to `loader`; what they are of is the catalog's.
  Result<CatalogEntry> load_commit(const Checkpoint& checkpoint, PlaceLoader& loader);
  Status put(const std::string& key, const std::string& value) {
    rocksdb::WriteOptions unsynced;
    unsynced.disableWAL = true;  // a cache: close() flushes, a crash rebuilds
    CAISSON_RETURN_IF_ERROR(from_rocks(db_->Put(unsynced, key, value), directory_));
    return errors_->first();
  }

  const std::string directory_;
  const Uuid store_;
  ObjectStore& objects_;
  UniqueFd lock_;  // until close()
  const size_t run_rows_max_;
  const std::shared_ptr<WriteErrors> errors_ = std::make_shared<WriteErrors>();
  const std::unique_ptr<rocksdb::Env> env_ =
      rocksdb::NewCompositeEnv(std::make_shared<KeptFiles>(errors_));
  const rocksdb::Options options_;
  std::unique_ptr<rocksdb::DB> db_;
  IndexSeal seal_;
  std::string reason_;  // of the rebuild that the next sync reports
  Totals totals_;
  std::vector<ObjectRef> packs_;  // by ordinal
  std::map<ObjectRef, uint32_t> ordinals_;
  std::unordered_set<uint32_t> complete_;  // packs whose every chunk is loaded
};

Status RocksIndex::start_empty() {
  db_.reset();
  errors_->forget();
  seal_.clear();
  totals_ = {};
  packs_.clear();
  ordinals_.clear();
  complete_.clear();
  std::error_code error;
  for (fs::directory_iterator it(directory_, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().filename() == "caisson.lock") continue;
    std::error_code ignored;  // what cannot be removed makes the open below fail
    fs::remove_all(it->path(), ignored);
  }
  return open_rocks();
}

bool RocksIndex::load_state() {
  std::string value;
  if (!db_->Get({}, "m", &value).ok() || value.size() != 24) return false;
  ByteReader in(as_bytes(value));
  totals_.schema = in.get<uint64_t>();
  totals_.places = in.get<uint64_t>();
  totals_.caught_up_to = in.get<uint64_t>();
  if (totals_.schema != kSchema) return false;
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  for (it->Seek("o"); it->Valid() && it->key().starts_with("o"); it->Next()) {
    ByteReader row(bytes_of(it->value()));
    const ObjectRef pack = format::get_ref(row);
    const bool complete = row.get<uint8_t>() != 0;
    if (!row.ok() || it->key() != rocksdb::Slice(pack_key(static_cast<uint32_t>(packs_.size())))) {
      return false;
    }
    const auto ordinal = static_cast<uint32_t>(packs_.size());
    packs_.push_back(pack);
    ordinals_.emplace(pack, ordinal);
    if (complete) complete_.insert(ordinal);
  }
  return it->status().ok();
}

// Rows of condemned packs are passed over by places(), and dropped by starting afresh.
bool RocksIndex::is_mostly_garbage(const LogState& log) const {
  const auto condemned = std::count_if(
      packs_.begin(), packs_.end(), [&](const ObjectRef& pack) { return log.is_condemned(pack); });
  return condemned > 16 && static_cast<size_t>(condemned) * 2 > packs_.size();
}

uint32_t RocksIndex::ordinal_of(const ObjectRef& pack) {
  const auto [found, inserted] = ordinals_.try_emplace(pack, static_cast<uint32_t>(packs_.size()));
  if (inserted) packs_.push_back(pack);
  return found->second;
}

Result<IndexSync> RocksIndex::sync(const LogState& log,
                                   const std::function<void(const Status&)>& complain) {
  if (log.seq() < totals_.caught_up_to) {
    reason_ = "it had seen log record " + std::to_string(totals_.caught_up_to) +
              ", and the log ends at " + std::to_string(log.seq());
    CAISSON_RETURN_IF_ERROR(start_empty());
  } else if (is_mostly_garbage(log)) {
    reason_ = "most of it described deleted packs";
    CAISSON_RETURN_IF_ERROR(start_empty());
  }
  IndexSync report;
  report.rebuilt = !reason_.empty();
  report.rebuild_reason = std::exchange(reason_, {});
  PlaceLoader loader(*db_, options_, *errors_, directory_ + "/ingest.tmp", run_rows_max_);
  for (const auto& [seq, checkpoint] : log.checkpoints()) {
    CAISSON_ASSIGN_OR_RETURN(const auto known, catalog(seq));
    if (known.has_value() && known->root == checkpoint.root.object) continue;
    const Result<CatalogEntry> entry = load_commit(checkpoint, loader);
    CAISSON_RETURN_IF_ERROR(loader.status());
    if (!entry.ok()) {
      complain(entry.status().with_context("index: " + checkpoint.name()));
      continue;
    }
    CAISSON_RETURN_IF_ERROR(put(catalog_key(seq), encode(*entry)));
    ++report.commits;
  }
  CAISSON_ASSIGN_OR_RETURN(report.places, loader.finish());
  totals_.places += report.places;
  totals_.caught_up_to = log.seq();
  for (uint32_t i = 0; i < packs_.size(); ++i) {
    ByteWriter row;
    format::put_ref(row, packs_[i]);
    row.put<uint8_t>(complete_.contains(i) ? 1 : 0);
    if (report.commits > 0) {
      CAISSON_RETURN_IF_ERROR(put(pack_key(i), std::string(as_text(row.bytes()))));
    }
  }
  CAISSON_RETURN_IF_ERROR(put("m", encode(totals_)));
  return report;
}

Result<CatalogEntry> RocksIndex::load_commit(const Checkpoint& checkpoint, PlaceLoader& loader) {
  CAISSON_ASSIGN_OR_RETURN(const auto manifest, Manifest::open(objects_, checkpoint.root));
  CAISSON_ASSIGN_OR_RETURN(const format::PackTables tables, manifest->packs().all());
  std::vector<uint32_t> ordinals;  // by the root's index of the pack
  for (const format::SealedRef& pack : tables.packs) {
    const uint32_t ordinal = ordinal_of(pack.object);
    // A pack of an earlier save was loaded whole with that save's own commit.
    const bool known = pack.object.save != checkpoint.save && complete_.contains(ordinal);
    ordinals.push_back(known ? kKnownPack : ordinal);
  }
  const std::vector<format::RootPart>& parts = manifest->root().parts;
  for (uint32_t part = 0; part < parts.size(); ++part) {
    for (uint64_t first = 0; first < parts[part].entries; first += kEntriesPerRead) {
      const uint64_t count = std::min(kEntriesPerRead, parts[part].entries - first);
      CAISSON_ASSIGN_OR_RETURN(const auto entries, manifest->entries(part, first, count));
      for (const format::ChunkEntry& entry : entries) {
        if (entry.pack == format::kPackInline) continue;
        const uint32_t ordinal = ordinals[manifest->pack_index(part, entry)];
        if (ordinal == kKnownPack) continue;
        CAISSON_RETURN_IF_ERROR(
            loader.add({entry.id, entry.raw_bytes, ordinal, entry.offset_units, entry.stored_bytes,
                        entry.stored_checksum, entry.codec, entry.flags}));
      }
    }
  }
  for (size_t i = 0; i < ordinals.size(); ++i) {
    if (tables.packs[i].object.save == checkpoint.save) complete_.insert(ordinals[i]);
  }
  return catalog_entry_of(manifest->root(), checkpoint.seq);
}

Result<std::vector<ChunkPlace>> RocksIndex::places(const Digest& id, uint32_t raw_bytes,
                                                   const LogState& log) {
  const std::string prefix = chunk_prefix(id, raw_bytes);
  std::vector<ChunkPlace> places;
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  for (it->Seek(prefix); it->Valid() && it->key().starts_with(prefix); it->Next()) {
    const rocksdb::Slice key = it->key();
    const Bytes value = bytes_of(it->value());
    if (key.size() != prefix.size() + 8 || value.size() != 14) {
      return corruption(directory_ + ": malformed row; delete the directory, it is rebuilt");
    }
    const uint32_t ordinal = load_be32(key.data() + prefix.size());
    if (ordinal >= packs_.size() || log.is_condemned(packs_[ordinal])) continue;
    places.push_back({.pack = packs_[ordinal],
                      .offset_units = load_be32(key.data() + prefix.size() + 4),
                      .stored_bytes = load_le<uint32_t>(value.data()),
                      .stored_checksum = load_le<uint64_t>(value.data() + 6),
                      .codec = std::to_integer<uint8_t>(value[4]),
                      .flags = std::to_integer<uint8_t>(value[5])});
  }
  CAISSON_RETURN_IF_ERROR(from_rocks(it->status(), directory_));
  return places;
}

Result<std::optional<CatalogEntry>> RocksIndex::catalog(CommitSeq seq) {
  std::string value;
  const rocksdb::Status found = db_->Get({}, catalog_key(seq), &value);
  if (found.IsNotFound()) return std::optional<CatalogEntry>();
  CAISSON_RETURN_IF_ERROR(from_rocks(found, directory_));
  return decode_catalog(as_bytes(value));
}

Result<std::optional<std::string>> RocksIndex::recall(std::string_view question) {
  std::string answer;
  const rocksdb::Status found = db_->Get({}, "q" + std::string(question), &answer);
  if (found.IsNotFound()) return std::optional<std::string>();
  CAISSON_RETURN_IF_ERROR(from_rocks(found, directory_));
  return std::optional<std::string>(std::move(answer));
}

Result<IndexStats> RocksIndex::stats() {
  IndexStats stats;
  stats.places = totals_.places;
  stats.packs = packs_.size();
  stats.caught_up_to = totals_.caught_up_to;
  std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
  for (it->Seek("k"); it->Valid() && it->key().starts_with("k"); it->Next()) ++stats.checkpoints;
  std::error_code error;
  for (fs::directory_iterator file(directory_, error), end; !error && file != end;
       file.increment(error)) {
    std::error_code gone;
    const uint64_t bytes = file->file_size(gone);
    if (!gone) stats.disk_bytes += bytes;
  }
  return stats;
}

Status RocksIndex::close() {
  if (db_ == nullptr) return {};
  CAISSON_RETURN_IF_ERROR(put("m", encode(totals_)));
  CAISSON_RETURN_IF_ERROR(from_rocks(db_->Flush({}), directory_));
  CAISSON_RETURN_IF_ERROR(from_rocks(db_->Close(), directory_));
  db_.reset();
  CAISSON_RETURN_IF_ERROR(errors_->first());
  CAISSON_ASSIGN_OR_RETURN(const IndexSeal seal, take_seal(directory_, seal_));
  const Status sealed = write_seal(directory_, store_, seal);
  lock_ = UniqueFd();
  return sealed;
}

}  // namespace

CatalogEntry catalog_entry_of(const format::Root& root, CommitSeq seq) {
  CatalogEntry entry{.seq = seq,
                     .root = root.object,
                     .created_unix_ns = root.created_unix_ns,
                     .tensors = root.tensors,
                     .ranks = root.parts.size(),
                     .raw_bytes = root.raw_bytes,
                     .stored_bytes = root.stored_bytes,
                     .metadata_json = root.metadata_json};
  for (const format::RootPart& part : root.parts) entry.tiles += part.entries;
  return entry;
}

std::vector<ChunkHint> IndexHints::hints(const Digest& id, uint32_t raw_bytes) {
  std::vector<ChunkHint> hints;
  const auto places = index_.places(id, raw_bytes, log_);
  if (!places.ok()) return hints;
  for (const ChunkPlace& place : *places) {
    hints.push_back({.pack = place.pack, .offset_units = place.offset_units});
  }
  return hints;
}

Result<std::unique_ptr<Index>> Index::open(const std::string& directory, const Uuid& store,
                                           ObjectStore& objects, size_t run_rows_max) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error) return io_error(directory + ": " + error.message());
  CAISSON_ASSIGN_OR_RETURN(UniqueFd lock, lock_directory(directory));
  auto index =
      std::make_unique<RocksIndex>(directory, store, objects, std::move(lock), run_rows_max);
  CAISSON_RETURN_IF_ERROR(index->start());
  return std::unique_ptr<Index>(std::move(index));
}

}  // namespace caisson

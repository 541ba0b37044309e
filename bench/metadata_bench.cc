#include "bench/metadata_bench.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "bench/machine.h"
#include "bench/spread.h"
#include "engine/commit.h"
#include "engine/index.h"
#include "engine/log.h"
#include "engine/manifest.h"
#include "engine/part_writer.h"
#include "io/base/clock.h"
#include "io/object_dir.h"
#include "io/posix_file_system.h"

namespace caisson::bench {

namespace {

namespace fs = std::filesystem;

constexpr uint32_t kTileBytes = 1u << 20;  // [512, 1024] bf16
constexpr uint64_t kTilesPerTensorMax = 10'000;
constexpr uint64_t kChunksPerPack = 250;
constexpr uint64_t kFirstSlopeTiles = 100'000;  // below, fixed costs hide the growth
constexpr const char* kRun = "metadata";

template <typename Fn>
Result<double> timed(Fn&& run) {
  const auto start = std::chrono::steady_clock::now();
  CAISSON_RETURN_IF_ERROR(run());
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Cold from here on: every file below `directory` leaves the page cache.
void drop_page_cache(const std::string& directory) {
  ::sync();
  std::error_code ignored;
  for (fs::recursive_directory_iterator it(directory, ignored), end; it != end;
       it.increment(ignored)) {
    if (ignored) break;
    const int fd = ::open(it->path().c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    ::posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    ::close(fd);
  }
}

// A scratch store, removed with this object.
class Scratch {
 public:
  static Result<std::unique_ptr<Scratch>> create(const std::string& parent,
                                                 const std::string& name) {
    auto scratch = std::make_unique<Scratch>();
    scratch->directory_ = parent + "/caisson-bench-" + std::to_string(::getpid()) + "-" + name;
    std::error_code error;
    fs::create_directory(scratch->directory_, error);
    if (error) return io_error(scratch->directory_ + ": " + error.message());
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<FileSystem> files, make_posix_file_system());
    scratch->objects_ = make_object_dir(std::move(files), scratch->directory_, system_uuids());
    CAISSON_ASSIGN_OR_RETURN(scratch->log_,
                             Log::open(*scratch->objects_, system_uuids(), this_process()));
    return scratch;
  }
  Scratch() = default;
  ~Scratch() {
    log_.reset();
    objects_.reset();
    std::error_code ignored;
    fs::remove_all(directory_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  const std::string& directory() const { return directory_; }
  ObjectStore& objects() { return *objects_; }
  Log& log() { return *log_; }

  Status append(const format::LogBody& body) {
    return log_->append([&](const LogState&) -> Result<format::LogBody> { return body; }).status();
  }

 private:
  std::string directory_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<Log> log_;
};

// Ids as uniform as real ones, without hashing anything.
class FakeIds {
 public:
  Digest next() {
    Digest id;
    for (size_t i = 0; i < 2; ++i) {
      word_ ^= word_ << 13, word_ ^= word_ >> 7, word_ ^= word_ << 17;
      store_le(id.bytes.data() + i * 8, word_ * 0x9e3779b97f4a7c15);
    }
    return id;
  }

 private:
  uint64_t word_ = 88172645463325252;
};

std::string tensor_name(uint64_t index) { return "layers." + std::to_string(index) + ".weight"; }

TensorRecord tensor_record(uint64_t index, uint64_t tiles, uint64_t first_entry) {
  TensorRecord record;
  const uint64_t dims[] = {tiles * 512, 1024};
  const uint64_t tile[] = {512, 1024};
  record.spec = {tensor_name(index), {DTypeCode::kBfloat, 16}, Shape::of(dims)};
  record.tile = Shape::of(tile);
  ShardRecord shard;
  shard.box = Box::whole(record.spec.shape);
  shard.grid.rank = 2;
  shard.grid.cell = record.tile.dims;
  shard.pieces = tiles;
  shard.first_entry = first_entry;
  record.shards.push_back(shard);
  return record;
}

// A part of `tiles` entries that point into packs which do not exist: metadata only.
Result<format::SealedRef> write_part(Scratch& scratch, const Uuid& save, uint64_t tiles) {
  format::ObjectRef part{format::ObjectKind::kPart, save, system_uuids().next(), 0};
  PartWriter writer(scratch.objects(), part, 0);
  FakeIds ids;
  uint64_t written = 0;
  for (uint64_t tensor = 0; written < tiles; ++tensor) {
    const uint64_t count = std::min(kTilesPerTensorMax, tiles - written);
    const uint64_t first = writer.entries();
    for (uint64_t i = 0; i < count; ++i, ++written) {
      format::SealedRef pack;
      pack.object = {format::ObjectKind::kPack, save, part.writer,
                     static_cast<uint32_t>(written / kChunksPerPack)};
      pack.bytes = format::kPackBytesMax;
      format::ChunkEntry entry;
      entry.id = ids.next();
      entry.raw_bytes = entry.stored_bytes = kTileBytes;
      entry.offset_units =
          static_cast<uint32_t>(written % kChunksPerPack + 1) * (kTileBytes / format::kOffsetUnit);
      CAISSON_ASSIGN_OR_RETURN(entry.pack, writer.pack_index(pack));
      CAISSON_RETURN_IF_ERROR(writer.add(entry));
    }
    writer.add_record(tensor_record(tensor, count, first));
  }
  return writer.seal({});
}

// One tensor's entries, as a restore of it alone would look them up.
Status find_one(Scratch& scratch, const format::SealedRef& root, uint64_t tiles) {
  CAISSON_ASSIGN_OR_RETURN(const auto manifest, Manifest::open(scratch.objects(), root));
  const uint64_t middle = (tiles / kTilesPerTensorMax) / 2;
  CAISSON_ASSIGN_OR_RETURN(const auto record, manifest->find(tensor_name(middle)));
  if (record == nullptr) return not_found("bench: tensor " + tensor_name(middle));
  const ShardRecord& shard = record->shards.front();
  return manifest->entries(shard.part, shard.first_entry, shard.pieces).status();
}

Result<uint64_t> metadata_bytes(Scratch& scratch, const Uuid& save) {
  uint64_t bytes = 0;
  CAISSON_RETURN_IF_ERROR(
      scratch.objects().list(format::save_prefix(save), [&](const ObjectInfo& object) -> Status {
        bytes += object.bytes;
        return {};
      }));
  return bytes;
}

Result<MetadataScale> measure_once(const std::string& directory, uint64_t tiles) {
  CAISSON_ASSIGN_OR_RETURN(const auto scratch, Scratch::create(directory, std::to_string(tiles)));
  MetadataScale scale{.tiles = tiles};
  const Uuid save = system_uuids().next();
  CAISSON_RETURN_IF_ERROR(scratch->append(format::ClaimRecord{.run = kRun, .epoch = 1}));
  CAISSON_RETURN_IF_ERROR(
      scratch->append(format::OpenRecord{.save = save, .run = kRun, .step = 1, .epoch = 1}));
  (void)restart_memory_peak();
  format::SealedRef part;
  CAISSON_ASSIGN_OR_RETURN(scale.write_seconds, timed([&]() -> Status {
                             CAISSON_ASSIGN_OR_RETURN(part, write_part(*scratch, save, tiles));
                             return {};
                           }));
  CAISSON_ASSIGN_OR_RETURN(
      scale.commit_seconds, timed([&] {
        const CommitPlan plan{.save = save, .run = kRun, .step = 1, .epoch = 1};
        return commit_checkpoint(scratch->objects(), scratch->log(), system_uuids(), system_clock(),
                                 plan, {&part, 1})
            .status();
      }));
  CAISSON_ASSIGN_OR_RETURN(const auto state, scratch->log().refresh());
  const format::SealedRef root = state->latest(kRun)->root;
  drop_page_cache(scratch->directory());
  CAISSON_ASSIGN_OR_RETURN(scale.find_seconds,
                           timed([&] { return find_one(*scratch, root, tiles); }));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes, metadata_bytes(*scratch, save));
  scale.bytes_per_tile = static_cast<double>(bytes) / static_cast<double>(tiles);
  CAISSON_ASSIGN_OR_RETURN(
      scale.index_seconds, timed([&]() -> Status {
        CAISSON_ASSIGN_OR_RETURN(const auto index, Index::open(scratch->directory() + "/index",
                                                               save, scratch->objects()));
        Status skipped;
        CAISSON_ASSIGN_OR_RETURN(const IndexSync synced,
                                 index->sync(*state, [&](const Status& s) { skipped = s; }));
        CAISSON_RETURN_IF_ERROR(skipped);
        if (synced.places != tiles) return corruption("bench: the index lost places");
        return index->close();
      }));
  scale.peak_memory_bytes = memory_peak();
  return scale;
}

Result<MetadataScale> measure(const MetadataBenchOptions& options, uint64_t tiles) {
  std::vector<MetadataScale> runs;
  for (uint32_t i = 0; i < std::max(1u, options.repeats); ++i) {
    if (options.progress) options.progress(std::to_string(tiles) + " tiles");
    CAISSON_ASSIGN_OR_RETURN(const MetadataScale run, measure_once(options.directory, tiles));
    runs.push_back(run);
  }
  const auto median = [&](double MetadataScale::*field) {
    std::vector<double> values;
    values.reserve(runs.size());
    for (const MetadataScale& run : runs) values.push_back(run.*field);
    return spread_of(values).median;
  };
  MetadataScale scale = runs.front();
  for (double MetadataScale::*field :
       {&MetadataScale::write_seconds, &MetadataScale::commit_seconds, &MetadataScale::find_seconds,
        &MetadataScale::index_seconds}) {
    scale.*field = median(field);
  }
  for (const MetadataScale& run : runs) {
    scale.peak_memory_bytes = std::max(scale.peak_memory_bytes, run.peak_memory_bytes);
  }
  return scale;
}

// A log as a long run leaves it: saves that opened and closed, one record each way. The files are
// written without waiting for the device, which is not what is measured here.
Status write_log(Scratch& scratch, uint64_t records) {
  std::error_code error;
  fs::create_directories(scratch.directory() + "/log", error);
  if (error) return io_error(scratch.directory() + "/log: " + error.message());
  Uuid save;
  for (uint64_t seq = 1; seq <= records; ++seq) {
    format::LogRecord record{
        .seq = seq, .nonce = system_uuids().next(), .writer = this_process(), .body = {}};
    if (seq == 1) {
      record.body = format::ClaimRecord{.run = kRun, .epoch = 1};
    } else if (seq % 2 == 0) {
      save = system_uuids().next();
      record.body = format::OpenRecord{.save = save, .run = kRun, .step = seq, .epoch = 1};
    } else {
      record.body = format::CloseRecord{.save = save};
    }
    const ByteVector bytes = format::encode_log_record(record);
    std::ofstream file(scratch.directory() + "/" + format::log_key(seq), std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) return io_error(format::log_key(seq) + ": write failed");
  }
  return {};
}

Status measure_log(const MetadataBenchOptions& options, MetadataBenchReport& report) {
  if (options.progress) options.progress("log");
  CAISSON_ASSIGN_OR_RETURN(const auto scratch, Scratch::create(options.directory, "log"));
  CAISSON_RETURN_IF_ERROR(write_log(*scratch, options.log_records));
  report.log_records = options.log_records;
  const auto open = [&] { return Log::open(scratch->objects(), system_uuids(), this_process()); };
  drop_page_cache(scratch->directory() + "/log");
  CAISSON_ASSIGN_OR_RETURN(report.log_open_seconds_replayed, timed([&]() -> Status {
                             CAISSON_ASSIGN_OR_RETURN(const auto log, open());
                             return log->snapshot_if_due();
                           }));
  std::vector<double> opens;
  for (uint32_t i = 0; i < std::max(1u, options.repeats); ++i) {
    drop_page_cache(scratch->directory());
    CAISSON_ASSIGN_OR_RETURN(const double seconds, timed([&] { return open().status(); }));
    opens.push_back(seconds);
  }
  report.log_open_seconds = spread_of(opens).median;
  return {};
}

}  // namespace

Result<MetadataBenchReport> run_metadata_bench(const MetadataBenchOptions& options) {
  MetadataBenchReport report;
  report.machine = machine_words();
  std::vector<double> tiles, seconds, memory;
  for (const uint64_t count : options.tiles) {
    CAISSON_ASSIGN_OR_RETURN(const MetadataScale scale, measure(options, count));
    report.scales.push_back(scale);
    if (count < kFirstSlopeTiles) continue;
    tiles.push_back(static_cast<double>(count));
    seconds.push_back(scale.write_seconds + scale.commit_seconds);
    memory.push_back(static_cast<double>(scale.peak_memory_bytes));
  }
  report.commit_slope = log_log_slope(tiles, seconds);
  report.memory_slope = log_log_slope(tiles, memory);
  CAISSON_RETURN_IF_ERROR(measure_log(options, report));
  return report;
}

}  // namespace caisson::bench

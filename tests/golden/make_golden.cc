// Makes a golden store: make_golden v1|coded|sparse STORE RAW_DIRECTORY. Uuids, clock and the
// writer that log records name are fixed. Run once for a version and commit what it wrote: a golden
// store is never made again (README.md).
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include "client/open_store.h"
#include "engine/format/log_record.h"
#include "io/object_dir.h"
#include "io/posix_file_system.h"
#include "tests/golden/golden_coded.h"
#include "tests/golden/golden_sparse.h"
#include "tests/golden/golden_tensors.h"
#include "tests/support/seeded.h"

namespace {

using namespace caisson;
using testing::GoldenCheckpoint;
using testing::GoldenTensor;

void require(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "make_golden: %s\n", status.to_string().c_str());
  std::exit(1);
}
template <typename T>
T require(Result<T> result) {
  require(result.status());
  return std::move(result).value();
}

void save_whole(Store& store, const GoldenCheckpoint& checkpoint, const SaveOptions& options) {
  std::vector<TensorShard> tensors;
  std::vector<BlobView> blobs;
  std::vector<Alias> aliases;
  for (const GoldenTensor& tensor : checkpoint.tensors) {
    if (!tensor.alias_of.empty()) {
      aliases.push_back({tensor.spec.name, tensor.alias_of});
    } else if (tensor.blob) {
      blobs.push_back({tensor.spec.name, tensor.bytes});
    } else {
      tensors.push_back({.tensor = tensor.spec,
                         .box = Box::whole(tensor.spec.shape),
                         .data = tensor.bytes.data(),
                         .strides_bytes = {},
                         .replica = {}});
    }
  }
  PendingSave save = require(store.save(
      checkpoint.name, {.tensors = tensors, .blobs = blobs, .aliases = aliases}, options));
  require(save.wait());
}

// A share of each tensor: halves by columns or rows, one row of "uneven", replicas of "replicated".
TensorShard share_of(const GoldenTensor& tensor, uint32_t rank) {
  TensorShard shard{.tensor = tensor.spec,
                    .box = Box::whole(tensor.spec.shape),
                    .data = tensor.bytes.data(),
                    .strides_bytes = {},
                    .replica = {}};
  if (tensor.spec.name == "replicated") {
    shard.replica = {.index = rank, .count = 2};
    return shard;
  }
  const size_t axis = tensor.spec.name == "columns" ? 1 : 0;
  const int64_t element = tensor.spec.dtype.bits / 8;
  shard.strides_bytes = {static_cast<int64_t>(tensor.spec.shape.dims[1]) * element, element};
  const uint64_t extent = shard.box.extent[axis];
  const uint64_t cut = tensor.spec.name == "uneven" ? 1 : extent / 2;
  shard.box.offset[axis] = rank == 0 ? 0 : cut;
  shard.box.extent[axis] = rank == 0 ? cut : extent - cut;
  shard.data += static_cast<int64_t>(shard.box.offset[axis]) * shard.strides_bytes[axis];
  return shard;
}

void save_sharded(Store& store, const GoldenCheckpoint& checkpoint) {
  const std::string ticket = require(store.begin_save(checkpoint.name));
  std::vector<SealedPart> parts;
  for (uint32_t rank = 0; rank < 2; ++rank) {
    const std::unique_ptr<SaveTransaction> part = require(store.join_save(ticket, rank));
    std::vector<TensorShard> shards;
    for (const GoldenTensor& tensor : checkpoint.tensors) shards.push_back(share_of(tensor, rank));
    require(part->put({.tensors = shards, .blobs = {}, .aliases = {}}));
    parts.push_back(require(part->seal()));
  }
  require(store.commit_save(ticket, 2, parts).status());
}

void write_file(const std::filesystem::path& path, Bytes bytes) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.data()),
            static_cast<std::streamsize>(bytes.size()));
  if (!out.flush()) require(io_error(path.string() + ": cannot be written"));
}

// Log records name the process that wrote them; the golden ones name nobody's.
void rename_writers(const std::filesystem::path& store) {
  for (uint64_t seq = 1;; ++seq) {
    const std::filesystem::path path = store / format::log_key(seq);
    std::ifstream in(path, std::ios::binary);
    if (!in) return;
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    format::LogRecord record = require(format::decode_log_record(seq, as_bytes(text)));
    record.writer = {.host = "golden",
                     .boot_id = "00000000-0000-4000-8000-000000000000",
                     .pid = 1,
                     .pid_start_ticks = 1,
                     .unix_ns = FixedClock().unix_ns()};
    std::filesystem::remove(path);
    write_file(path, format::encode_log_record(record));
  }
}

void dump_raw(const std::filesystem::path& directory,
              const std::vector<GoldenCheckpoint>& checkpoints) {
  for (const GoldenCheckpoint& checkpoint : checkpoints) {
    for (const GoldenTensor& tensor : checkpoint.tensors) {
      Bytes bytes = tensor.bytes;
      for (const GoldenTensor& other : checkpoint.tensors) {
        if (other.spec.name == tensor.alias_of) bytes = other.bytes;
      }
      std::string name = tensor.spec.name;
      for (size_t at = 0; (at = name.find('/', at)) != std::string::npos;)
        name.replace(at, 1, "%2f");
      write_file(directory / checkpoint.name / name, bytes);
    }
  }
}

}  // namespace

namespace {

void make_v1(Store& store, const std::vector<GoldenCheckpoint>& checkpoints) {
  const SaveOptions options{.metadata_json = R"({"golden": 1})"};
  GoldenCheckpoint pruned = checkpoints[0];
  pruned.name = "golden/0";
  pruned.tensors.resize(1);
  save_whole(store, pruned, options);
  save_whole(store, checkpoints[0], options);
  save_whole(store, checkpoints[1], options);
  require(store.remove("golden/0"));
  save_sharded(store, checkpoints[2]);
}

// Every codec that there was then.
void make_coded(Store& store, const std::vector<GoldenCheckpoint>& checkpoints) {
  save_whole(store, checkpoints[0], {.codec_deterministic = true});
  save_whole(store, checkpoints[1], {.codec = "entropy"});
  save_whole(store, checkpoints[2], {.codec_deterministic = true, .delta = "*"});
}

void make_sparse(Store& store, const std::vector<GoldenCheckpoint>& checkpoints) {
  save_whole(store, checkpoints[0], {.codec_deterministic = true});
  save_whole(store, checkpoints[1], {.codec = "sparse"});
}

struct Golden {
  std::string_view name;
  std::vector<GoldenCheckpoint> (*checkpoints)();
  void (*make)(Store&, const std::vector<GoldenCheckpoint>&);
};
constexpr Golden kGoldens[] = {{"v1", testing::golden_checkpoints, make_v1},
                               {"coded", testing::coded_checkpoints, make_coded},
                               {"sparse", testing::sparse_checkpoints, make_sparse}};

}  // namespace

int main(int argc, char** argv) {
  const std::string_view which = argc == 4 ? argv[1] : "";
  const auto* const golden = std::ranges::find(kGoldens, which, &Golden::name);
  if (golden == std::end(kGoldens)) {
    std::fprintf(stderr, "usage: make_golden v1|coded|sparse STORE RAW_DIRECTORY\n");
    return 2;
  }
  const std::vector<GoldenCheckpoint> checkpoints = golden->checkpoints();
  SeededUuids uuids(1);
  FixedClock clock;
  {
    const std::shared_ptr<FileSystem> files = require(make_posix_file_system());
    const std::unique_ptr<Store> store =
        require(open_store(make_object_dir(files, std::filesystem::absolute(argv[2]), uuids), uuids,
                           clock, StoreOptions{}));
    golden->make(*store, checkpoints);
  }
  rename_writers(argv[2]);
  dump_raw(argv[3], checkpoints);
  return 0;
}

// THE save path: one rank's side of a save, from tensors in memory to durable packs and a sealed
// part table. client/ makes one per rank part; commit.cc turns sealed parts into a checkpoint.
//
// Memory is bounded by the budget, whatever is saved: the workers together hold some twenty
// segment buffers during put(), nothing between calls. Thread-compatible; put() makes the extra
// workers' threads itself and joins them before it returns.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/options.h"
#include "engine/dedup.h"
#include "engine/part_writer.h"
#include "engine/store_dedup.h"
#include "io/base/buffer.h"

namespace caisson {

struct SaveItem {
  TensorKind kind = TensorKind::kTensor;
  TensorShard shard;     // of an alias: only the name
  std::string alias_of;  // kAlias only
};
// Bytes with a name, as the pipeline takes them: a tensor of u8 with one dimension.
SaveItem blob_item(std::string name, Bytes bytes);
SaveItem alias_item(std::string name, std::string target);

struct SaveTotals {
  uint64_t tensors = 0;  // and blobs and aliases
  uint64_t tiles = 0;
  uint64_t raw_bytes = 0;
  uint64_t deduplicated_bytes = 0;
  uint64_t stored_bytes = 0;
  std::vector<CodecUse> codecs;  // of the chunks newly stored in packs
};

class SavePipeline {
 public:
  struct Config {
    Uuid save;
    uint32_t rank = 0;
    std::shared_ptr<Manifest> parent;  // compared with, tile by tile; may be null
    ChunkHints* hints = nullptr;       // of a writer that owns the index; may be null
    std::string codec = "auto";
    double codec_cpu = -1;  // over all workers
    bool codec_deterministic = false;
    std::function<bool(std::string_view tensor)> delta;  // whose chunks may be deltas; may be empty
    uint32_t workers = 1;
    MemoryCheck memory_check = MemoryCheck::kSampled;
    // Raw bytes of all puts together, so that packs reserve room beyond the put that opens them. 0:
    // every put may be the last.
    uint64_t bytes_expected = 0;
    ProgressFn progress;
    std::stop_token stop;
    std::shared_ptr<Trace> trace;      // may be null
    std::shared_ptr<Metrics> metrics;  // may be null
  };
  static Result<std::unique_ptr<SavePipeline>> create(ObjectStore& objects, MemoryBudget& budget,
                                                      UuidSource& uuids, Config config);
  virtual ~SavePipeline() = default;

  // Stages 1 to 6 for every piece of `items`. The memory may change as soon as it returned, not
  // before: config.memory_check. After an error every later call returns it.
  virtual Status put(std::span<const SaveItem> items) = 0;
  // Packs and part table durable. Call once, last.
  virtual Result<format::SealedRef> seal() = 0;
  virtual const SaveTotals& totals() const = 0;
  // Why the parent could not be read, when it could not: the save then went on without it.
  virtual Status parent_error() const = 0;
};

}  // namespace caisson

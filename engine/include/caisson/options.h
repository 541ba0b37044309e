// Options of a store and of single saves and restores. Plain values with defaults that are right
// for a training job.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stop_token>
#include <string>

namespace caisson {

class Metrics;  // caisson/metrics.h
class Trace;    // caisson/trace.h

struct StoreOptions {
  // Create the store when the directory is absent or empty. A directory that holds anything else
  // is refused, so that a mistyped path never becomes a store.
  bool create = true;
  // Create it also beside other files, as long as none lies where a store keeps its own: for a
  // directory that belongs to a framework.
  bool create_beside_files = false;
  // Bytes of staging memory that all saves and restores of this Store hold at most.
  uint64_t memory_bytes_max = 192ull << 20;
  // "auto" (io_uring where it works), "io_uring", "threads", "buffered".
  std::string io_engine = "auto";
  // Where the stages of saves and restores are recorded; null: nowhere.
  std::shared_ptr<Trace> trace{};
  // What saves and restores are counted in; null: nowhere.
  std::shared_ptr<Metrics> metrics{};
};

struct Progress {
  uint64_t bytes_done = 0;  // raw bytes through the last stage
  uint64_t bytes_total = 0;
};
// Called from a pipeline's thread, at most about ten times a second; must not block.
using ProgressFn = std::function<void(const Progress&)>;

// What is done to notice memory that was lent to a save and changed before the save had read all of
// it: such a checkpoint would hold some tensors as they were and others as they are. Every tile
// that is stored has the bytes of its content id whatever this says; noticing is about their being
// of one moment. A save that notices fails, naming the tensor.
enum class MemoryCheck : uint8_t {
  kOff,      // for memory that provably stays as it is
  kSampled,  // up to 64 places a tile are looked at again when everything was read: an optimizer
             // step in between does not pass, a single changed element may
  kFull,     // everything is hashed again: nothing passes, for one more pass over the memory
};

// How much of what a save newly stored was encoded with which codec, and why with that one.
struct CodecUse {
  std::string codec;   // "raw", "planes", ...
  std::string reason;  // "device busy", ...: docs/operations.md, "Codecs"
  uint64_t chunks = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;
};

struct SaveOptions {
  // "auto" chooses for each chunk, and stores raw what a look at it says gains nothing: floats with
  // their exponents coded as planes, or smaller and slower as entropy codes while the device is
  // busy, or raw while it idles, without their rows of zeros where they have many ("sparse");
  // everything else with zstd. "raw", "zstd", "planes", "entropy" and "sparse" do just that
  // (compression/SPEC.md).
  std::string codec = "auto";
  // Processor time that "auto" spends on coding at most, in cores: 0.25 is a quarter of one, for
  // hosts whose cores feed the training; 0 stores everything raw. Negative: no bound.
  double codec_cpu = -1;
  // "auto" goes by the bytes alone, not by device and clock: equal input gives equal packs.
  bool codec_deterministic = false;
  // Glob over tensor names: chunks of these are stored as their difference from the checkpoint that
  // the save is compared with, where that is clearly smaller. Pays for bf16 weights that change
  // little between saves. Each save reads what it takes the difference from, and keeps its packs
  // alive. Only with "auto". Empty: none.
  std::string delta{};
  // Compare with the run's latest checkpoint, tile by tile, and store only what changed.
  bool dedup = true;
  // Another checkpoint to compare with, "run/step": for a fork. Empty: the run's latest.
  std::string base{};
  // Copy every tensor before save() returns, so that it may change at once. Otherwise the memory is
  // lent until the save has finished and must not change; see memory_check.
  bool stage = false;
  MemoryCheck memory_check = MemoryCheck::kSampled;
  // Replace a live checkpoint of the same name instead of refusing.
  bool overwrite = false;
  // JSON object kept with the checkpoint.
  std::string metadata_json = "{}";
  uint32_t workers = 1;
  ProgressFn progress{};
  std::stop_token stop{};
};

struct RestoreOptions {
  uint32_t workers = 1;
  ProgressFn progress{};
  std::stop_token stop{};
};

}  // namespace caisson

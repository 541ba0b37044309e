// Caisson's C++ API. Start here: open a Store, save tensors under "run/step", restore any box of
// any of them.
//
//   auto store = caisson::Store::open("/data/ckpt");                       //
//   Result<unique_ptr<Store>> caisson::PendingSave save = (*store)->save("run/100", {.tensors =
//   shards}).value();  // at once caisson::Status done = save.wait(); // durable and committed
//   (*store)->restore("run/100", targets);                                  // verified, in place
//
// Store is thread-safe. One process of many ranks begins a save, every rank puts its shards and
// seals its part, and one process commits them: begin_save, join_save, SaveTransaction.
// After fork() a child must open a Store of its own; the inherited one answers kInvalidArgument.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/options.h"
#include "caisson/result.h"
#include "caisson/tensor.h"

namespace caisson {

// Bytes with a name that belong to a checkpoint: a tokenizer, a data-loader position.
struct BlobView {
  std::string name;
  std::span<const std::byte> bytes;
};
// Another name for a tensor of the same save: tied weights.
struct Alias {
  std::string name;
  std::string target;
};

struct SaveInput {
  std::span<const TensorShard> tensors = {};
  std::span<const BlobView> blobs = {};
  std::span<const Alias> aliases = {};
};

// What a finished save did.
struct SaveReport {
  std::string name;  // "run/step"
  uint64_t tensors = 0;
  uint64_t tiles = 0;
  uint64_t raw_bytes = 0;  // handed over
  uint64_t deduplicated_bytes = 0;
  uint64_t stored_bytes = 0;     // payload bytes newly written
  double stall_seconds = 0;      // how long save() itself took
  double seconds = 0;            // from save() to durable
  std::vector<CodecUse> codecs;  // of the chunks newly stored by this process
  std::string warning;           // not empty: it succeeded, but somebody should look at this
};

struct CheckpointInfo {
  std::string name;  // "run/step"
  std::string run;
  uint64_t step = 0;
  uint64_t epoch = 0;
  uint64_t commit_seq = 0;  // position of its commit record in the log
  bool latest = false;      // what "run/latest" means now
  bool rolled_back = false;
  int64_t created_unix_ns = 0;
  uint64_t tensors = 0;
  uint64_t ranks = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;  // newly written by its save
  std::string metadata_json;
  std::string problem;  // not empty: its root could not be read, the fields from
                        // created_unix_ns on are unknown; names the next command
};

struct TensorInfo {
  TensorSpec spec;
  bool blob = false;
  std::string alias_of;  // not empty for an alias
  Shape tile;
  uint64_t raw_bytes = 0;
  std::vector<Box> shards;
  std::vector<uint32_t> ranks;  // of the shards
};

// A save in progress. Dropping it waits for it. Thread-safe.
class PendingSave {
 public:
  struct State;
  explicit PendingSave(std::shared_ptr<State> state);
  ~PendingSave();
  PendingSave(PendingSave&&) noexcept;
  PendingSave& operator=(PendingSave&&) noexcept;
  PendingSave(const PendingSave&) = delete;
  PendingSave& operator=(const PendingSave&) = delete;

  bool done() const;
  // Blocks until the checkpoint is durable and committed, or failed. Every call gives the same.
  Status wait();
  // Blocks for `timeout` at most; whether it has finished. Does not count as asking for the
  // outcome.
  bool wait_for(std::chrono::nanoseconds timeout) const;
  // After wait() gave ok.
  const SaveReport& report() const;
  // Asks the save to stop; wait() then gives kCancelled, unless it had committed already.
  void cancel();

 private:
  std::shared_ptr<State> state_;
};

// What one rank contributes, in a form that travels to the committer (a few hundred bytes).
struct SealedPart {
  std::string token;  // opaque text
};

// One rank's side of a save by many ranks. Not thread-safe.
class SaveTransaction {
 public:
  virtual ~SaveTransaction() = default;  // without seal(): the part is abandoned
  // Writes the shards now; returns when they are staged in the engine or on the device. May be
  // called several times.
  virtual Status put(const SaveInput& input) = 0;
  // Makes this rank's packs and part table durable. No put() afterwards.
  virtual Result<SealedPart> seal() = 0;
  virtual const SaveReport& report() const = 0;
};

class Store {
 public:
  // `url`: a directory, or file:// and a directory.
  static Result<std::unique_ptr<Store>> open(const std::string& url,
                                             const StoreOptions& options = {});
  virtual ~Store() = default;

  // ---- one process
  // Starts a save of a whole checkpoint. An error of an earlier save that nobody waited for is
  // returned here. kAlreadyExists when the name is taken; kFenced when another process claimed the
  // run since this one did.
  virtual Result<PendingSave> save(const std::string& name, const SaveInput& input,
                                   const SaveOptions& options = {}) = 0;

  // ---- many ranks: begin once, hand the ticket to every rank, gather the sealed parts, commit.
  virtual Result<std::string> begin_save(const std::string& name,
                                         const SaveOptions& options = {}) = 0;
  virtual Result<std::unique_ptr<SaveTransaction>> join_save(const std::string& ticket,
                                                             uint32_t rank,
                                                             const SaveOptions& options = {}) = 0;
  // Refuses, naming rank, tensor and box, when a part of `ranks` is missing, overlaps another, or a
  // tensor is not covered. Ok means durable and committed.
  virtual Result<SaveReport> commit_save(const std::string& ticket, uint32_t ranks,
                                         std::span<const SealedPart> parts,
                                         const SaveOptions& options = {}) = 0;
  virtual Status abort_save(const std::string& ticket) = 0;
  // Takes the run over: every save begun before is refused its commit. The run continues from
  // `base` ("run/step"; empty: its latest); later checkpoints of the run are rolled back.
  virtual Status claim(const std::string& run, const std::string& base = {}) = 0;

  // ---- reading. A name is "run/step" or "run/latest"; "run/step@N" means the one that log record
  // N committed (CheckpointInfo::commit_seq) or none, for whoever reads a checkpoint by several
  // calls. kFenced: it was pruned or overwritten while it was read; nothing is damaged.
  virtual Result<std::vector<CheckpointInfo>> checkpoints() = 0;
  virtual Result<CheckpointInfo> info(const std::string& name) = 0;
  // Those that match the glob ('*', '?', '[a-z]'), sorted by name.
  virtual Result<std::vector<TensorInfo>> tensors(const std::string& name,
                                                  std::string_view glob = "*") = 0;
  // Fills every target, verified; reads each stored byte once. Fails before it reads when a tensor
  // is missing or a box does not fit, listing all such targets. After any other error the content
  // of the targets is unspecified.
  virtual Status restore(const std::string& name, std::span<const TensorTarget> targets,
                         const RestoreOptions& options = {}) = 0;
  virtual Result<std::vector<std::byte>> read_blob(const std::string& name,
                                                   const std::string& blob) = 0;

  // ---- giving up checkpoints: prune in the log; gc (maintenance) deletes later.
  virtual Status remove(const std::string& name) = 0;
};

}  // namespace caisson

// caisson::index, a library of its own: RocksDB as a cache of what the log and the manifests say.
// It answers "where is this chunk", the catalog for `ls`, store-wide dedup for single-process
// writers, and again what `stat` and `diff` once found out. It is caught up from the log by bulk
// load, and it is rebuilt by itself when it is absent, stale, damaged or of another store; nothing
// is ever lost with it.
//
// Only the command-line tool and services link this. A training process never does: a damaged
// RocksDB file can abort the process that reads it, and one process only may write it
// (docs/decisions/0002-index-is-a-cache.md). Index is thread-compatible.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/format/chunk.h"
#include "engine/log.h"
#include "engine/store_dedup.h"
#include "io/object_store.h"

namespace caisson {

// One stored form of a chunk.
struct ChunkPlace {
  format::ObjectRef pack;
  uint32_t offset_units = 0;
  uint32_t stored_bytes = 0;
  uint64_t stored_checksum = 0;
  uint8_t codec = 0;
  uint8_t flags = 0;
};

// What the catalog keeps of a checkpoint, so that `ls` reads one file instead of every root.
struct CatalogEntry {
  format::CommitSeq seq = 0;
  format::ObjectRef root;  // that it was made from; a rewrite gives the checkpoint another
  int64_t created_unix_ns = 0;
  uint64_t tensors = 0;
  uint64_t ranks = 0;
  uint64_t tiles = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;  // newly written by its save
  std::string metadata_json;
};

CatalogEntry catalog_entry_of(const format::Root& root, format::CommitSeq seq);

struct IndexStats {
  uint64_t places = 0;  // chunk places ever loaded, those in condemned packs included
  uint64_t packs = 0;
  uint64_t checkpoints = 0;
  uint64_t disk_bytes = 0;
  format::CommitSeq caught_up_to = 0;
};

// Chunk places that a bulk load sorts at once: two such runs of 48 MiB, and one to sort in.
inline constexpr size_t kIndexRunRowsMax = 1u << 20;

struct IndexSync {
  bool rebuilt = false;        // from nothing, and the first sync since
  std::string rebuild_reason;  // why, in words
  uint64_t commits = 0;        // loaded by this sync
  uint64_t places = 0;
};

class Index {
 public:
  // Opens the index in `directory` (a local directory, created when absent) for the store named
  // `store`. kFenced when another process has it open: do without it. Damage is never an error:
  // the index starts empty and sync() says why (IndexSync::rebuild_reason).
  static Result<std::unique_ptr<Index>> open(const std::string& directory, const Uuid& store,
                                             ObjectStore& objects,
                                             size_t run_rows_max = kIndexRunRowsMax);
  virtual ~Index() = default;

  // Loads the commits that came since the last sync, and those that have another root since. A
  // checkpoint whose manifest cannot be read is skipped and reported through `complain`; it is
  // tried again by the next sync. An index that has seen more than `log` starts anew: the log it
  // was made from is not this one, so nobody may pass an older state than was passed before.
  virtual Result<IndexSync> sync(const LogState& log,
                                 const std::function<void(const Status&)>& complain) = 0;
  // Where else the chunk is: places in packs that the log has not condemned.
  virtual Result<std::vector<ChunkPlace>> places(const Digest& id, uint32_t raw_bytes,
                                                 const LogState& log) = 0;
  virtual Result<std::optional<CatalogEntry>> catalog(format::CommitSeq seq) = 0;
  // What was found out about objects that never change, kept for whoever asks next. `question`
  // names the objects by what they were sealed with, so that an answer that is here is right.
  virtual Result<std::optional<std::string>> recall(std::string_view question) = 0;
  virtual Status remember(std::string_view question, std::string_view answer) = 0;
  virtual Result<IndexStats> stats() = 0;
  // Writes everything out and records what a sound index looks like. Without it the next open
  // rebuilds, which is always safe. Nothing may be asked afterwards.
  virtual Status close() = 0;
};

// The index as hints for store-wide dedup, as of one state of the log. An index that answers with
// an error gives none. Both outlive it.
class IndexHints final : public ChunkHints {
 public:
  IndexHints(Index& index, const LogState& log) : index_(index), log_(log) {}
  std::vector<ChunkHint> hints(const Digest& id, uint32_t raw_bytes) override;

 private:
  Index& index_;
  const LogState& log_;
};

}  // namespace caisson

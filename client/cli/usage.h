// Where the bytes of a store are: of every object, whether checkpoints need it and how many, per
// run, and what sharing and coding saved. Told from roots and pack footers; the index remembers
// what the footers said. Used by stat. Single-threaded.
#pragma once

#include <algorithm>
#include <map>
#include <stop_token>
#include <string>

#include "client/cli/indexed.h"
#include "engine/gc.h"

namespace caisson::cli {

struct RunUsage {
  uint64_t checkpoints = 0;
  uint64_t logical_bytes = 0;       // what restoring all its checkpoints would give
  uint64_t newly_stored_bytes = 0;  // what their saves stored
  GcCount own_packs;                // that only checkpoints of this run need
  GcCount shared_packs;             // that other runs need too
};

struct Usage {
  uint64_t checkpoints = 0;
  uint64_t logical_bytes = 0;
  // Of the packs that checkpoints need, counted whole, and of their inline data.
  uint64_t chunks = 0;  // those in packs
  uint64_t chunk_raw_bytes = 0;
  uint64_t chunk_stored_bytes = 0;
  GcCount own_packs;     // one checkpoint needs them
  GcCount shared_packs;  // several do
  GcCount metadata;      // parts, directories, roots, the store file
  GcCount log;           // records and snapshots
  GcCount in_progress;   // of open saves, and of bases that they alone keep
  GcCount reclaimable;   // gc would free it
  GcCount other;         // temporary files, and what the log does not know
  std::map<std::string, RunUsage> runs;

  uint64_t sharing_saves() const {
    return logical_bytes - std::min(logical_bytes, chunk_raw_bytes);
  }
  uint64_t coding_saves() const {
    return chunk_raw_bytes - std::min(chunk_raw_bytes, chunk_stored_bytes);
  }
};

// Of the store as it is at the end, should checkpoints be given up meanwhile.
Result<Usage> measure_usage(StoreAccess& access, IndexedAnswers& answers,
                            const std::stop_token& stop);

}  // namespace caisson::cli

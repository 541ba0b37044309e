// Garbage collection: frees what no checkpoint needs. Safe beside saves, restores and other
// collections, and when it is stopped at any point. docs/commit.md, "Deleting", says why; gc.cc has
// the steps. Thread-compatible.
#pragma once

#include <string>
#include <vector>

#include "engine/log.h"
#include "io/object_store.h"

namespace caisson {

struct GcOptions {
  // Changes nothing; the report says what would be freed now.
  bool dry_run = false;
};

struct GcCount {
  uint64_t objects = 0;
  uint64_t bytes = 0;
  void add(uint64_t object_bytes) {
    ++objects;
    bytes += object_bytes;
  }
};

// A save in progress, or one whose writer died where nobody can tell.
struct GcOpenSave {
  Uuid save;
  std::string run;
  uint64_t step = 0;
  format::WriterInfo writer;  // unix_ns: when the save was opened
  bool provably_dead = false;
  GcCount written;
};

struct GcReport {
  GcCount reclaimed;  // deleted, or what a dry run would delete
  GcCount kept;       // needed by checkpoints, or by the bases of open saves
  GcCount unknown;    // of saves that the log does not know (yet): left alone
  uint64_t saves_closed = 0;
  uint64_t saves_condemned = 0;
  uint64_t objects_condemned = 0;  // one by one, of saves that are still needed in part
  uint64_t temporary_removed = 0;
  std::vector<GcOpenSave> open_saves;
};

// An unreadable or newer root, part of a checkpoint to keep, stops it before anything is condemned.
// Saves whose process is certainly gone (is_provably_dead) are ended first; others end by `close`,
// or by a claim of their run. Any error may leave condemned objects behind; the next run deletes
// them.
Result<GcReport> run_gc(ObjectStore& objects, Log& log, const GcOptions& options = {});

}  // namespace caisson

// How metadata grows: checkpoints of 10^3 to 10^7 tiles without payload are written, committed,
// looked into and indexed, and a log of 10^5 records is opened. What `caisson bench --metadata DIR`
// prints. Single-threaded driver.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "caisson/result.h"

namespace caisson::bench {

struct MetadataBenchOptions {
  std::string directory;  // must exist
  std::vector<uint64_t> tiles = {1000, 10'000, 100'000, 1'000'000, 10'000'000};
  uint64_t log_records = 100'000;
  uint32_t repeats = 3;  // of every timing; the median is kept
  std::function<void(const std::string& what)> progress;
};

struct MetadataScale {
  uint64_t tiles = 0;
  double write_seconds = 0;        // part table, durable
  double commit_seconds = 0;       // read back, coverage, directory, root, commit record
  double find_seconds = 0;         // one tensor's entries, from nothing, page cache dropped
  double index_seconds = 0;        // bulk load of this checkpoint
  double bytes_per_tile = 0;       // part, directory and root on disk
  uint64_t peak_memory_bytes = 0;  // resident, of the whole process
};

struct MetadataBenchReport {
  std::string machine;
  std::vector<MetadataScale> scales;
  double commit_slope = 0;  // of log(write + commit seconds) over log(tiles), from 10^5 tiles on
  double memory_slope = 0;  // of log(peak) over log(tiles)
  uint64_t log_records = 0;
  double log_open_seconds = 0;           // through its snapshot, page cache dropped
  double log_open_seconds_replayed = 0;  // without one
};

Result<MetadataBenchReport> run_metadata_bench(const MetadataBenchOptions& options);

}  // namespace caisson::bench

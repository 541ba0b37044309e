// Tensors and blobs of a checkpoint out into files: safetensors files (whole, sharded by size, or
// one slice of a sharding) and the other files that an import took in. Called by the CLI. Every
// byte is verified by the restore that reads it; every file appears whole or not at all
// (new_file.h).
//
// A safetensors file that was imported is written with its original header (import.h), so it is
// byte-identical. Anything else gets the header that the safetensors library would write.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "caisson/store.h"
#include "client/safetensors.h"

namespace caisson {

struct ExportOptions {
  std::string glob = "*";        // which tensors
  uint64_t shard_bytes_max = 0;  // 0: one file, or the files that were imported
  bool overwrite = false;
  ProgressFn progress;
  std::stop_token stop;
};

struct ExportedFile {
  std::string path;
  uint64_t bytes = 0;
  uint64_t tensors = 0;
  bool original_header = false;  // byte-identical to the file that was imported
};

// `name`, pinned to the commit that it means now: an export reads by many calls, and must not go
// over to another checkpoint when `latest` moves or the name is saved again.
Result<std::string> pin(Store& store, const std::string& name);

// `destination`: a path that ends in ".safetensors" becomes that one file; anything else is a
// directory, which is created. Files in order of writing.
Result<std::vector<ExportedFile>> export_checkpoint(Store& store, const std::string& name,
                                                    const std::string& destination,
                                                    const ExportOptions& options);

// Slice `index` of `count` of every tensor, cut as evenly as possible along `dim`. A tensor that
// has fewer than `count` rows there, or fewer dimensions, goes whole to one slice.
struct SliceOptions {
  uint32_t index = 0;
  uint32_t count = 1;
  int dim = 0;
};
// The box of slice `index`, or nothing. `position`: of the tensor among those selected. Pure.
std::optional<Box> slice_box(const TensorSpec& spec, uint64_t position, const SliceOptions& slice);

// One safetensors file with that slice of every selected tensor; __metadata__ says which box of
// which global shape each tensor is.
Result<ExportedFile> export_slice(Store& store, const std::string& name, const std::string& path,
                                  const SliceOptions& slice, const ExportOptions& options);

// One .npy file per selected tensor in `directory`. kUnsupported for dtypes that numpy lacks.
Result<std::vector<ExportedFile>> export_npy(Store& store, const std::string& name,
                                             const std::string& directory,
                                             const SliceOptions& slice,
                                             const ExportOptions& options);

// `relative` as a path below `root`; kCorruption for one that would lead out of it.
Result<std::string> path_below(const std::string& root, const std::string& relative);

}  // namespace caisson

// Existing checkpoint files into a store: safetensors files, Hugging Face directories (sharded with
// an index.json or not), any other files as blobs. Called by the CLI, in one process or as one of
// many rank processes.
//
// What is stored: every tensor under its own name; per safetensors file its header, byte for byte,
// as blob "safetensors/<file>/header", so that an export is byte-identical; every other file as
// blob "files/<file>". <file> is relative to the directory that was given, or the bare file name.
//
// An ImportPlan is immutable once made; it maps the files, and the shards that slice() gives point
// into it.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "caisson/store.h"
#include "client/mapped_file.h"
#include "client/safetensors.h"

namespace caisson {

inline constexpr std::string_view kHeaderBlobPrefix = "safetensors/";
inline constexpr std::string_view kHeaderBlobSuffix = "/header";
inline constexpr std::string_view kFileBlobPrefix = "files/";

struct ImportSource {
  std::string path;      // as it was found
  std::string relative;  // <file> above
  MappedFile file;
  bool is_safetensors = false;
  uint64_t header_bytes = 0;  // is_safetensors only, as is the next
  safetensors::Header header;
};

// One rank's share: spans and pointers into the plan.
struct ImportSlice {
  std::vector<TensorShard> tensors;
  std::vector<BlobView> blobs;
  uint64_t raw_bytes = 0;
  SaveInput input() const { return {.tensors = tensors, .blobs = blobs, .aliases = {}}; }
};

class ImportPlan {
 public:
  // Maps every source, parses every header, and checks that no tensor or file comes twice and that
  // an index.json and the files agree. kCorruption, kNotFound or kInvalidArgument naming the file.
  static Result<ImportPlan> make(std::span<const std::string> sources);

  uint64_t tensors() const { return tensors_; }
  uint64_t raw_bytes() const { return raw_bytes_; }
  std::span<const ImportSource> sources() const { return sources_; }
  // Are the files what they were at make()? Asked between reading and committing: kInvalidArgument
  // naming the one that changed.
  Status check_unchanged() const;

  // What rank `rank` of `ranks` saves. Tensors are cut along their first dimension, between tiles,
  // so that an import by another number of ranks shares every chunk; a tensor of fewer tile rows
  // than ranks goes whole to the rank that has least so far. Rank 0 has the blobs. The same in
  // every process. REQUIRES: rank < ranks.
  ImportSlice slice(uint32_t rank, uint32_t ranks) const;

 private:
  Status add(const std::string& path, const std::string& relative);
  Status add_directory(const std::string& path);
  Status check_names() const;
  Status check_index(const ImportSource& index) const;

  std::vector<ImportSource> sources_;
  uint64_t tensors_ = 0;
  uint64_t raw_bytes_ = 0;
};

// Rows [begin, end) of a tensor's first dimension for each rank; all ranks but one may be empty.
// `loads` carries the bytes that each rank has so far from tensor to tensor. Pure.
// REQUIRES: bytes > 0 and the tensor's shape is checked.
struct RowRange {
  uint64_t begin = 0, end = 0;
};
std::vector<RowRange> divide_rows(const TensorSpec& spec, uint64_t bytes,
                                  std::vector<uint64_t>& loads);

}  // namespace caisson

// Restores boxes of tensors into their places in a file, through one bounded buffer. Used by
// export.cc. Not thread-safe.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "caisson/store.h"
#include "client/new_file.h"

namespace caisson {

// A box of a tensor and where its row-major bytes go in the file.
struct FilePiece {
  std::string tensor;
  DType dtype;
  Box box;
  uint64_t offset = 0;
};

// `piece` cut into contiguous runs of rows of at most `bytes_max` bytes each, where a byte can be
// cut at all. Pure. REQUIRES: the piece's elements are whole bytes.
std::vector<FilePiece> cut_piece(const FilePiece& piece, uint64_t bytes_max);

// Reports bytes as `done + so far`; called by write_pieces after and within every batch.
struct FileProgress {
  ProgressFn report;
  uint64_t done = 0;
  uint64_t total = 0;
  std::stop_token stop;
};

// Verified bytes of every piece, at their offsets.
Status write_pieces(Store& store, const std::string& checkpoint, std::span<const FilePiece> pieces,
                    NewFile& file, FileProgress& progress);

}  // namespace caisson

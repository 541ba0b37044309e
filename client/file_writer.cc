// See file_writer.h.
#include "client/file_writer.h"

#include <algorithm>

namespace caisson {
namespace {

constexpr uint64_t kBatchBytesMax = 128ull << 20;

uint64_t bytes_of(const FilePiece& piece) {
  // Checked when the piece was made: it lies within a tensor whose bytes are countable.
  return packed_bytes(piece.box.elements(), piece.dtype).value();
}

}  // namespace

std::vector<FilePiece> cut_piece(const FilePiece& piece, uint64_t bytes_max) {
  std::vector<FilePiece> pieces;
  std::vector<FilePiece> todo{piece};
  while (!todo.empty()) {
    FilePiece next = std::move(todo.back());
    todo.pop_back();
    const uint64_t bytes = bytes_of(next);
    if (bytes == 0) continue;
    int dim = 0;
    while (dim < next.box.rank && next.box.extent[dim] == 1) ++dim;
    if (bytes <= bytes_max || dim == next.box.rank) {
      pieces.push_back(std::move(next));
      continue;
    }
    // Rows of a sub-byte type may share a byte; eight of them never do.
    const uint64_t extent = next.box.extent[dim];
    const uint64_t row_elements = next.box.elements() / extent;
    const uint64_t unit = row_elements * next.dtype.bits % 8 == 0 ? 1 : 8;
    uint64_t rows = std::max<uint64_t>(1, bytes_max / std::max<uint64_t>(1, bytes / extent));
    rows = std::max(unit, rows / unit * unit);
    if (rows >= extent) {
      pieces.push_back(std::move(next));
      continue;
    }
    FilePiece head = next;
    head.box.extent[dim] = rows;
    FilePiece rest = next;
    rest.box.offset[dim] += rows;
    rest.box.extent[dim] -= rows;
    rest.offset += bytes_of(head);
    todo.push_back(std::move(rest));
    todo.push_back(std::move(head));  // taken first: pieces stay in order
  }
  return pieces;
}

Status write_pieces(Store& store, const std::string& checkpoint, std::span<const FilePiece> pieces,
                    NewFile& file, FileProgress& progress) {
  std::vector<FilePiece> cut;
  for (const FilePiece& piece : pieces) {
    std::vector<FilePiece> parts = cut_piece(piece, kBatchBytesMax);
    cut.insert(cut.end(), std::make_move_iterator(parts.begin()),
               std::make_move_iterator(parts.end()));
  }
  ByteVector buffer;
  for (size_t first = 0; first < cut.size();) {
    uint64_t bytes = 0;
    size_t last = first;
    while (last < cut.size() && (last == first || bytes + bytes_of(cut[last]) <= kBatchBytesMax)) {
      bytes += bytes_of(cut[last++]);
    }
    if (buffer.size() < bytes) buffer.resize(bytes);
    std::vector<TensorTarget> targets;
    uint64_t at = 0;
    for (size_t i = first; i < last; ++i) {
      targets.push_back({.name = cut[i].tensor,
                         .box = cut[i].box,
                         .data = buffer.data() + at,
                         .strides_bytes = {}});
      at += bytes_of(cut[i]);
    }
    RestoreOptions options;
    options.stop = progress.stop;
    if (progress.report) {
      options.progress = [&progress](const Progress& now) {
        progress.report({.bytes_done = std::min(progress.total, progress.done + now.bytes_done),
                         .bytes_total = progress.total});
      };
    }
    CAISSON_RETURN_IF_ERROR(store.restore(checkpoint, targets, options));
    at = 0;
    for (size_t i = first; i < last; ++i) {
      const uint64_t length = bytes_of(cut[i]);
      CAISSON_RETURN_IF_ERROR(file.write(cut[i].offset, Bytes(buffer).subspan(at, length)));
      at += length;
    }
    progress.done += bytes;
    first = last;
  }
  return ok_status();
}

}  // namespace caisson

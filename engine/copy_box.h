// Strided copies between a caller's memory and a packed piece: stage "gather" of save and stage
// "place" of restore. Pure.
#pragma once

#include "caisson/tensor.h"
#include "io/base/bytes.h"

namespace caisson {

// Memory that holds `box` of a tensor with these strides (bytes, one per dimension).
struct BoxMemory {
  Box box;
  std::byte* data = nullptr;
  std::vector<int64_t> strides_bytes;  // size == box.rank
};

// Packs `piece` (REQUIRES: within from.box) row-major into `to`, whose size is the piece's bytes.
void gather(const BoxMemory& from, const Box& piece, DType dtype, MutableBytes to);
// Copies the overlap of `piece` (packed row-major in `from`) with `to.box` to its place.
void scatter(Bytes from, const Box& piece, DType dtype, const BoxMemory& to);
// Where `piece` already lies packed and contiguous in `from`: its bytes, else an empty span.
Bytes contiguous_piece(const BoxMemory& from, const Box& piece, DType dtype);

}  // namespace caisson

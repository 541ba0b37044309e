// Strided copies between a caller's memory and a packed piece: stage "gather" of save and stage
// "place" of restore. Pure.
#pragma once

#include <optional>
#include <span>

#include "caisson/tensor.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson {

// Memory that holds `box` of a tensor with these strides (bytes, one per dimension).
struct BoxMemory {
  Box box;
  std::byte* data = nullptr;
  std::vector<int64_t> strides_bytes;  // size == box.rank
};

// Packs `piece` (REQUIRES: within from.box) row-major into `to`, whose size is the piece's bytes.
void gather(const BoxMemory& from, const Box& piece, DType dtype, MutableBytes to);
// gather, and the digest of what was packed. Tiles made of runs long enough are copied and hashed
// in one pass over the memory; `stores` then says how they are written.
Digest gather_hashed(const BoxMemory& from, const Box& piece, DType dtype, MutableBytes to,
                     CopyStores stores);
// The digest of `piece` as gather would pack it, without a copy; nothing when its runs are too
// short for that to be worthwhile.
std::optional<Digest> digest_in_place(const BoxMemory& from, const Box& piece, DType dtype);
// How many of `pieces`, from the first on, lie side by side: where a run of one ends the next one's
// begins, so that one sweep reads all of them. 1 where that gains nothing.
size_t count_side_by_side(const BoxMemory& from, std::span<const Box> pieces, DType dtype);
// gather_hashed of such pieces in one sweep, packed one behind the other into `to`, or only hashed
// where `to` is empty. Taken alone each would be read in runs far apart, at less than half the
// memory's rate. REQUIRES: count_side_by_side says that all of them do.
void gather_side_by_side(const BoxMemory& from, std::span<const Box> pieces, DType dtype,
                         MutableBytes to, CopyStores stores, std::span<Digest> digests);
// A hash of a few bytes here and there in `piece`, always the same ones: equal unless the memory
// changed, and almost surely different when much of it did. Costs some microseconds a MiB.
uint64_t sample_of(const BoxMemory& from, const Box& piece, DType dtype);
// Copies the overlap of `piece` (packed row-major in `from`) with `to.box` to its place.
void scatter(Bytes from, const Box& piece, DType dtype, const BoxMemory& to);
// scatter, and the digest of `from` from the same loads. Nothing, and nothing done, when to.box
// lacks part of the piece or its runs are too short for that to be worthwhile.
std::optional<Digest> scatter_hashed(Bytes from, const Box& piece, DType dtype,
                                     const BoxMemory& to);
// Where `piece` already lies packed and contiguous in `from`: its bytes, else an empty span.
Bytes contiguous_piece(const BoxMemory& from, const Box& piece, DType dtype);
// From the first to the last byte that `memory` means, gaps between its runs included.
MutableBytes memory_range(const BoxMemory& memory, DType dtype);
// Where all of `piece` goes in `to`, packed; null where that is strided or a part of it only.
std::byte* contiguous_place(const BoxMemory& to, const Box& piece, DType dtype);

}  // namespace caisson

// Which codec a chunk is encoded with when the caller leaves it to us. Pure and deterministic: the
// same bytes get the same answer on every machine with the same libzstd.
#pragma once

#include "compression/codec.h"

namespace caisson {

// kRaw where a look at a few samples of the chunk says that nothing worth the time is gained;
// kBitPlanes for floats, in whose place kEntropyPlanes is as right; kSparse for floats with rows of
// zeros; kZstd for what is not floats, and for floats of which many bytes are zero all the same.
// Never fails: without an answer, raw. A look costs some microseconds, and encoding the same bytes
// next spares as many.
CodecId choose_codec(CodecContext& context, ElementFormat format, Bytes raw);

// About what a chunk of floats takes as planes, without its rows of zeros where it has many, from
// the same look; raw.size() for what would be stored raw, and for what is not floats.
uint64_t bytes_alone(ElementFormat format, Bytes raw);

// The share of the chunk's bytes, 0 to 1, that entropy codes of a chunk of floats save beyond
// planes.
double entropy_gain(CodecContext& context, ElementFormat format, Bytes raw);

}  // namespace caisson

// Which codec a chunk is encoded with when the caller leaves it to us. Pure and deterministic: the
// same bytes get the same answer on every machine with the same libzstd.
#pragma once

#include "compression/codec.h"

namespace caisson {

// True for element kinds of which a byte codec gains next to nothing: floats of every width and
// complex numbers. Bytes, integers and bools are worth a look.
bool is_float(ElementFormat format);

// kRaw or kZstd, from a look at a few samples of the chunk. Never fails: without an answer, raw.
CodecId choose_codec(CodecContext& context, ElementFormat format, Bytes raw);

}  // namespace caisson

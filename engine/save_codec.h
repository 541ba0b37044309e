// Stage 4's decision: which codec a piece is encoded with, from SaveOptions::codec, the tensor and
// a look at the bytes. Policy only; what was chosen stands in each chunk's entry. Pure.
#pragma once

#include <string>

#include "compression/codec.h"
#include "engine/format/directory.h"

namespace caisson {

ElementFormat element_format(DType dtype);
// kInvalidArgument unless `policy` is "auto" or the name of a codec that needs no base.
Status check_codec_policy(const std::string& policy);
// True when the pieces of this tensor are stored raw whatever their bytes are: they are then
// gathered straight into the segment.
bool is_stored_raw(const std::string& policy, const TensorRecord& tensor);
// REQUIRES: check_codec_policy(policy).ok().
Result<const Codec*> choose_piece_codec(const std::string& policy, DType dtype,
                                        CodecContext& context, Bytes raw);

}  // namespace caisson

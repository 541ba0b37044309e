#include "engine/save_codec.h"

namespace caisson {

Status check_codec_policy(const std::string& policy) {
  if (policy == "auto") return ok_status();
  auto codec = find_codec(policy);
  if (!codec.ok()) return codec.status().with_context("option codec, besides \"auto\"");
  if (!(*codec)->needs_base()) return ok_status();
  return invalid_argument("codec \"" + policy + "\" needs a base and cannot be asked for by name");
}

bool is_stored_raw(const std::string& policy, const TensorRecord& tensor) {
  if (policy == "raw") return true;
  if (policy != "auto" || tensor.kind == TensorKind::kBlob) return false;
  switch (tensor.spec.dtype.code) {
    case DTypeCode::kInt:
    case DTypeCode::kUInt:
    case DTypeCode::kBool:
      return false;
    default:
      return true;  // floats: a byte codec gains next to nothing on them
  }
}

Result<const Codec*> choose_piece_codec(const std::string& policy, const TensorRecord& /*tensor*/,
                                        CodecContext& /*context*/, Bytes /*raw*/) {
  return find_codec(policy == "auto" ? std::string_view("zstd") : std::string_view(policy));
}

}  // namespace caisson

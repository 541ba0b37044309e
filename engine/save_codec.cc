#include "engine/save_codec.h"

#include "compression/choose.h"

namespace caisson {

ElementFormat element_format(DType dtype) {
  return {.code = static_cast<uint8_t>(dtype.code), .bits = dtype.bits};
}

Status check_codec_policy(const std::string& policy) {
  if (policy == "auto") return ok_status();
  auto codec = find_codec(std::string_view(policy));
  if (!codec.ok()) return codec.status().with_context("option codec, besides \"auto\"");
  if (!(*codec)->needs_base()) return ok_status();
  return invalid_argument("codec \"" + policy + "\" needs a base and cannot be asked for by name");
}

bool is_stored_raw(const std::string& policy, const TensorRecord& tensor) {
  if (policy == "raw") return true;
  if (policy != "auto" || tensor.kind == TensorKind::kBlob) return false;
  return is_float(element_format(tensor.spec.dtype));
}

Result<const Codec*> choose_piece_codec(const std::string& policy, DType dtype,
                                        CodecContext& context, Bytes raw) {
  if (policy != "auto") return find_codec(std::string_view(policy));
  return find_codec(static_cast<uint8_t>(choose_codec(context, element_format(dtype), raw)));
}

}  // namespace caisson

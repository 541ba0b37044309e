// One zstd frame: SPEC.md, "1 zstd". The only user of libzstd.
#include <zstd.h>
#include <zstd_errors.h>

#include <string>

#include "compression/codecs.h"

namespace caisson {
namespace {

// Checkpoints are written at device speed: level 1 costs about a nanosecond a byte, and higher
// levels gain little on what is not text.
constexpr int kLevel = 1;

ZSTD_CCtx* encoder_of(CodecContext& context) {
  void*& encoder = context.state().zstd_encoder;
  if (encoder == nullptr) encoder = ZSTD_createCCtx();
  return static_cast<ZSTD_CCtx*>(encoder);
}

ZSTD_DCtx* decoder_of(CodecContext& context) {
  void*& decoder = context.state().zstd_decoder;
  if (decoder == nullptr) decoder = ZSTD_createDCtx();
  return static_cast<ZSTD_DCtx*>(decoder);
}

class ZstdCodec final : public Codec {
 public:
  CodecId id() const override { return CodecId::kZstd; }
  std::string_view name() const override { return "zstd"; }

  Result<size_t> encode(CodecContext& context, ElementFormat, Bytes raw, Bytes,
                        MutableBytes stored) const override {
    ZSTD_CCtx* const encoder = encoder_of(context);
    if (encoder == nullptr) return out_of_memory("zstd: no memory for an encoder");
    const size_t size =
        ZSTD_compressCCtx(encoder, stored.data(), stored.size(), raw.data(), raw.size(), kLevel);
    if (!ZSTD_isError(size)) return size < stored.size() ? size : 0;
    if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) return size_t{0};
    return out_of_memory(std::string("zstd: ") + ZSTD_getErrorName(size));
  }

  Status decode(CodecContext& context, ElementFormat, Bytes stored, Bytes,
                MutableBytes raw) const override {
    // Exactly one frame that says the size: no second frame, no skippable one, no streaming window.
    const unsigned long long says = ZSTD_getFrameContentSize(stored.data(), stored.size());
    if (says != raw.size()) {
      return corruption("zstd: not a frame of " + std::to_string(raw.size()) + " bytes");
    }
    if (ZSTD_findFrameCompressedSize(stored.data(), stored.size()) != stored.size()) {
      return corruption("zstd: the frame does not end where the stored bytes do");
    }
    ZSTD_DCtx* const decoder = decoder_of(context);
    if (decoder == nullptr) return out_of_memory("zstd: no memory for a decoder");
    const size_t size =
        ZSTD_decompressDCtx(decoder, raw.data(), raw.size(), stored.data(), stored.size());
    if (size == raw.size()) return ok_status();
    return corruption(std::string("zstd: ") +
                      (ZSTD_isError(size) ? ZSTD_getErrorName(size) : "the frame is too short"));
  }
};

}  // namespace

CodecContext::State::~State() {
  ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(zstd_encoder));
  ZSTD_freeDCtx(static_cast<ZSTD_DCtx*>(zstd_decoder));
}

const Codec& zstd_codec() {
  static const ZstdCodec codec;
  return codec;
}

}  // namespace caisson

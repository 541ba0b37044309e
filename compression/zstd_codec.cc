// One zstd frame: SPEC.md, "1 zstd"; and the entropy coder of the float codecs, which is libzstd
// told to do nothing else. The only user of libzstd.
#define ZSTD_STATIC_LINKING_ONLY  // ZSTD_c_literalCompressionMode
#include <zstd.h>
#include <zstd_errors.h>

#include <string>

#include "compression/codecs.h"
#include "compression/huffman_frame.h"

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

// Neither long matches nor a search for short ones, but Huffman codes all the same: the negative
// levels leave these out unless told otherwise. Where libzstd does not know the parameter, frames
// come out stored, and the caller sees that nothing is gained.
constexpr int kEntropyLevel = -(1 << 17);

ZSTD_CCtx* entropy_encoder_of(CodecContext& context) {
  void*& kept = context.state().entropy_encoder;
  if (kept != nullptr) return static_cast<ZSTD_CCtx*>(kept);
  ZSTD_CCtx* const encoder = ZSTD_createCCtx();
  if (encoder == nullptr) return nullptr;
  kept = encoder;
  (void)ZSTD_CCtx_setParameter(encoder, ZSTD_c_compressionLevel, kEntropyLevel);
  (void)ZSTD_CCtx_setParameter(encoder, ZSTD_c_windowLog, 17);
  (void)ZSTD_CCtx_setParameter(encoder, ZSTD_c_hashLog, 6);
  (void)ZSTD_CCtx_setParameter(encoder, ZSTD_c_literalCompressionMode, ZSTD_ps_enable);
  return encoder;
}

ZSTD_DCtx* decoder_of(CodecContext& context) {
  void*& decoder = context.state().zstd_decoder;
  if (decoder == nullptr) decoder = ZSTD_createDCtx();
  return static_cast<ZSTD_DCtx*>(decoder);
}

Result<size_t> encoded_size(size_t size, size_t room) {
  if (!ZSTD_isError(size)) return size < room ? size : 0;
  if (ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) return size_t{0};
  return out_of_memory(std::string("zstd: ") + ZSTD_getErrorName(size));
}

Status decode_frame(CodecContext& context, Bytes stored, MutableBytes raw) {
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
    return encoded_size(size, stored.size());
  }

  Status decode(CodecContext& context, ElementFormat, Bytes stored, Bytes,
                MutableBytes raw) const override {
    return decode_frame(context, stored, raw);
  }
};

}  // namespace

CodecContext::State::~State() {
  ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(zstd_encoder));
  ZSTD_freeCCtx(static_cast<ZSTD_CCtx*>(entropy_encoder));
  ZSTD_freeDCtx(static_cast<ZSTD_DCtx*>(zstd_decoder));
}

const Codec& zstd_codec() {
  static const ZstdCodec codec;
  return codec;
}

Result<size_t> entropy_encode(CodecContext& context, Bytes symbols, MutableBytes to) {
  // In half the time where it does; what it leaves alone, few symbols for one, libzstd may shrink.
  if (const size_t frame = encode_huffman_frame(symbols, to); frame != 0) return frame;
  ZSTD_CCtx* const encoder = entropy_encoder_of(context);
  if (encoder == nullptr) return out_of_memory("zstd: no memory for an encoder");
  return encoded_size(ZSTD_compress2(encoder, to.data(), to.size(), symbols.data(), symbols.size()),
                      to.size());
}

Status entropy_decode(CodecContext& context, Bytes frame, MutableBytes symbols) {
  return decode_frame(context, frame, symbols);
}

}  // namespace caisson

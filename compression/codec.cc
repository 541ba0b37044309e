// The registry of codecs and the scratch of a thread. Called by save and restore.
#include "compression/codec.h"

#include <array>
#include <string>

#include "compression/codecs.h"

namespace caisson {

CodecContext::CodecContext() : state_(std::make_unique<State>()) {}
CodecContext::~CodecContext() = default;
CodecContext::CodecContext(CodecContext&&) noexcept = default;
CodecContext& CodecContext::operator=(CodecContext&&) noexcept = default;

Result<const Codec*> find_codec(uint8_t id) {
  switch (static_cast<CodecId>(id)) {
    case CodecId::kRaw:
      return &raw_codec();
    case CodecId::kZstd:
      return &zstd_codec();
    case CodecId::kBitPlanes:
      return &bit_planes_codec();
    case CodecId::kEntropyPlanes:
      return &entropy_planes_codec();
    case CodecId::kTwin:
      return &twin_codec();
    case CodecId::kDelta:
      return &delta_codec();
    case CodecId::kSparse:
      return &sparse_codec();
  }
  return unsupported("chunk codec " + std::to_string(id) +
                     " is not in this build, which knows 0 to 6; use a newer caisson");
}

Result<const Codec*> find_codec(std::string_view name) {
  const std::array<const Codec*, 5> codecs = {&raw_codec(), &zstd_codec(), &bit_planes_codec(),
                                              &entropy_planes_codec(), &sparse_codec()};
  std::string names;
  for (const Codec* codec : codecs) {
    if (codec->name() == name) return codec;
    names += (names.empty() ? "\"" : ", \"") + std::string(codec->name()) + "\"";
  }
  return invalid_argument("no codec is named \"" + std::string(name.substr(0, 32)) +
                          "\"; there are " + names);
}

}  // namespace caisson

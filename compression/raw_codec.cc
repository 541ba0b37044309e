// Stored as it is: SPEC.md, "0 raw".
#include <algorithm>
#include <string>

#include "compression/codecs.h"

namespace caisson {
namespace {

class RawCodec final : public Codec {
 public:
  CodecId id() const override { return CodecId::kRaw; }
  std::string_view name() const override { return "raw"; }

  Result<size_t> encode(CodecContext&, ElementFormat, Bytes raw, Bytes,
                        MutableBytes stored) const override {
    if (raw.size() >= stored.size()) return size_t{0};
    std::copy(raw.begin(), raw.end(), stored.begin());
    return raw.size();
  }

  Status decode(CodecContext&, ElementFormat, Bytes stored, Bytes,
                MutableBytes raw) const override {
    if (stored.size() != raw.size()) {
      return corruption("raw: " + std::to_string(stored.size()) + " stored bytes for a chunk of " +
                        std::to_string(raw.size()));
    }
    std::copy(stored.begin(), stored.end(), raw.begin());
    return ok_status();
  }
};

}  // namespace

const Codec& raw_codec() {
  static const RawCodec codec;
  return codec;
}

}  // namespace caisson

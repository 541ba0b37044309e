// Codecs 2 and 3, "planes" and "entropy": SPEC.md. Exponents apart from mantissas; the first stores
// them as a cascade of bit planes, at the speed of memory, the second as Huffman codes, smaller and
// slower.
#include <optional>

#include "compression/choose.h"
#include "compression/codecs.h"
#include "compression/plane_section.h"

namespace caisson {
namespace {

// Below it headers and planning eat the gain.
constexpr size_t kElementsMin = 1024;
// Encoding must promise to save this part of the chunk.
constexpr double kGainMin = 0.03;

// What encoding goes by; nothing where it does not pay.
std::optional<PlanePlan> plan_worthwhile(ElementFormat format, Bytes raw) {
  const auto layout = float_layout_of(format);
  if (!layout) return std::nullopt;
  const size_t width = element_bytes(*layout);
  if (raw.size() / width < kElementsMin) return std::nullopt;
  const PlanePlan plan = plan_planes(*layout, raw);
  if (plan.bits_an_element > 8.0 * static_cast<double>(width) * (1 - kGainMin)) return std::nullopt;
  return plan;
}

class PlaneCodec final : public Codec {
 public:
  PlaneCodec(CodecId id, std::string_view name, SymbolCoder coder)
      : id_(id), name_(name), coder_(coder) {}

  CodecId id() const override { return id_; }
  std::string_view name() const override { return name_; }

  Result<size_t> encode(CodecContext& context, ElementFormat format, Bytes raw, Bytes,
                        MutableBytes stored) const override {
    const std::optional<PlanePlan> plan = plan_of(context, format, raw);
    forget_look(context);
    return plan ? encode_sections(context, coder_, *plan, raw, stored) : Result<size_t>(size_t{0});
  }

  Status decode(CodecContext& context, ElementFormat, Bytes stored, Bytes,
                MutableBytes raw) const override {
    return decode_sections(context, coder_, stored, raw);
  }

 private:
  const CodecId id_;
  const std::string_view name_;
  const SymbolCoder coder_;
};

}  // namespace

const std::optional<PlanePlan>& plan_of(CodecContext& context, ElementFormat format, Bytes raw) {
  LookedAt& looked = context.state().looked_at;
  const bool known = looked.raw == raw.data() && looked.bytes == raw.size() &&
                     looked.format.code == format.code && looked.format.bits == format.bits;
  if (!known) looked = {raw.data(), raw.size(), format, plan_worthwhile(format, raw)};
  return looked.plan;
}

void forget_look(CodecContext& context) { context.state().looked_at = {}; }

uint64_t planes_bytes(ElementFormat format, Bytes raw) {
  const auto plan = plan_worthwhile(format, raw);
  if (!plan) return raw.size();
  const uint64_t elements = raw.size() / element_bytes(plan->layout);
  return static_cast<uint64_t>(static_cast<double>(elements) * plan->bits_an_element / 8);
}

double entropy_gain(CodecContext& context, ElementFormat format, Bytes raw) {
  const std::optional<PlanePlan>& plan = plan_of(context, format, raw);
  if (!plan) return 0;
  const double saved = plan->cascade.bits_a_symbol - plan->entropy_bits_a_symbol;
  return saved / (8.0 * static_cast<double>(element_bytes(plan->layout)));
}

const Codec& bit_planes_codec() {
  static const PlaneCodec codec(CodecId::kBitPlanes, "planes", SymbolCoder::kCascade);
  return codec;
}

const Codec& entropy_planes_codec() {
  static const PlaneCodec codec(CodecId::kEntropyPlanes, "entropy", SymbolCoder::kEntropy);
  return codec;
}

}  // namespace caisson

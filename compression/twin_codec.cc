// Codec 4, "twin": SPEC.md. An fp32 tensor whose rounding is a bf16 tensor that is stored anyway,
// as the master of a weight is: 16 bits an element, at the speed of memory.
#include <algorithm>
#include <array>
#include <optional>

#include "compression/codecs.h"
#include "compression/twin_kernels.h"

namespace caisson {
namespace {

constexpr uint8_t kCodeFloat = 2;      // DLPack's code, which this layer does not see
constexpr size_t kElementsMin = 1024;  // below it the headers eat the gain

// With the 80 bytes of the base reference before it the low halves start at a multiple of 64.
constexpr size_t kHeaderBytes = 48;
constexpr size_t kExceptionsAt = 4;
constexpr size_t kZerosAt = 8;
constexpr size_t kExceptionBytes = 6;

constexpr std::array kThresholds = {kToNearestEven, kToNearestUp, kTowardZero};

// A sample in runs; more than one in kWrongMax that is not predicted: no twins.
constexpr size_t kRuns = 16;
constexpr size_t kRunElements = 256;
constexpr size_t kWrongMax = 16;

// The threshold that predicts most; nothing when none does.
std::optional<uint16_t> find_threshold(Bytes raw, Bytes base) {
  const size_t n = base.size() / 2;
  const size_t run = std::min(n, kRunElements);
  const size_t runs = std::clamp<size_t>(n / kRunElements, 1, kRuns);
  const size_t step = runs == 1 ? 0 : (n - run) / (runs - 1);
  std::array<std::byte, 2 * kRunElements> low;
  std::array<uint16_t, kRunElements> wrong;
  size_t fewest = runs * run / kWrongMax;
  std::optional<uint16_t> best;
  for (const uint16_t threshold : kThresholds) {
    size_t count = 0;
    for (size_t i = 0; i < runs; ++i) {
      count += twin_kernels().split(threshold, raw.data() + 4 * i * step,
                                    base.data() + 2 * i * step, run, low.data(), wrong.data());
    }
    if (count >= fewest) continue;
    fewest = count;
    best = threshold;
  }
  return best;
}

class TwinCodec final : public Codec {
 public:
  CodecId id() const override { return CodecId::kTwin; }
  std::string_view name() const override { return "twin"; }
  bool needs_base() const override { return true; }

  Result<size_t> encode(CodecContext&, ElementFormat format, Bytes raw, Bytes base,
                        MutableBytes stored) const override {
    if (format.code != kCodeFloat || format.bits != 32) return size_t{0};
    const size_t n = raw.size() / 4;
    if (n < kElementsMin || raw.size() != 4 * n || base.size() != 2 * n) return size_t{0};
    if (kHeaderBytes + 2 * n >= stored.size()) return size_t{0};
    const auto threshold = find_threshold(raw, base);
    if (!threshold) return size_t{0};
    std::byte* const lows = stored.data() + kHeaderBytes;
    size_t end = kHeaderBytes + 2 * n;
    uint32_t exceptions = 0;
    std::array<uint16_t, kTwinBlock> wrong;
    for (size_t i = 0; i < n; i += kTwinBlock) {
      const size_t count =
          twin_kernels().split(*threshold, raw.data() + 4 * i, base.data() + 2 * i,
                               std::min(kTwinBlock, n - i), lows + 2 * i, wrong.data());
      if (count * kExceptionBytes >= stored.size() - end) return size_t{0};
      for (size_t j = 0; j < count; ++j, end += kExceptionBytes) {
        const size_t index = i + wrong[j];
        store_le(stored.data() + end, static_cast<uint32_t>(index));
        store_le(stored.data() + end + 4, load_le<uint16_t>(raw.data() + 4 * index + 2));
      }
      exceptions += static_cast<uint32_t>(count);
    }
    std::fill_n(stored.data(), kHeaderBytes, std::byte{0});
    store_le(stored.data(), *threshold);
    store_le(stored.data() + kExceptionsAt, exceptions);
    return end;
  }

  Status decode(CodecContext&, ElementFormat, Bytes stored, Bytes base,
                MutableBytes raw) const override {
    const size_t n = raw.size() / 4;
    if (raw.size() != 4 * n) return corruption("twin: the raw bytes are not whole elements");
    if (base.size() != 2 * n) return corruption("twin: the base has another number of elements");
    if (stored.size() < kHeaderBytes + 2 * n) return corruption("twin: cut off");
    const Bytes zeros = stored.subspan(kZerosAt, kHeaderBytes - kZerosAt);
    if (load_le<uint16_t>(stored.data() + 2) != 0 ||
        std::any_of(zeros.begin(), zeros.end(), [](std::byte b) { return b != std::byte{0}; })) {
      return corruption("twin: a header says what cannot be");
    }
    const auto threshold = load_le<uint16_t>(stored.data());
    const Bytes exceptions = stored.subspan(kHeaderBytes + 2 * n);
    const uint64_t count = load_le<uint32_t>(stored.data() + kExceptionsAt);
    if (exceptions.size() != count * kExceptionBytes) {
      return corruption("twin: the stored form does not end with its exceptions");
    }
    const std::byte* const lows = stored.data() + kHeaderBytes;
    for (size_t i = 0; i < n; i += kTwinBlock) {
      twin_kernels().join(threshold, base.data() + 2 * i, lows + 2 * i, std::min(kTwinBlock, n - i),
                          raw.data() + 4 * i);
    }
    uint64_t from = 0;  // indices ascend
    for (size_t at = 0; at < exceptions.size(); at += kExceptionBytes) {
      const auto index = load_le<uint32_t>(exceptions.data() + at);
      if (index < from || index >= n) return corruption("twin: an exception is out of place");
      from = uint64_t{index} + 1;
      store_le(raw.data() + 4 * uint64_t{index} + 2, load_le<uint16_t>(exceptions.data() + at + 4));
    }
    return ok_status();
  }
};

}  // namespace

const Codec& twin_codec() {
  static const TwinCodec codec;
  return codec;
}

}  // namespace caisson

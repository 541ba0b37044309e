#include "compression/choose.h"

#include <algorithm>
#include <array>

#include "compression/codecs.h"

namespace caisson {
namespace {

// DLPack type codes (engine/include/caisson/tensor.h), which this layer does not see.
constexpr uint8_t kCodeInt = 0;
constexpr uint8_t kCodeUInt = 1;
constexpr uint8_t kCodeBool = 6;

constexpr size_t kSampleBytes = 4096;
constexpr size_t kSamples = 4;
constexpr size_t kRawBytesMin = 256;  // below it a frame's header eats what is gained
// Encoding pays when it saves at least one byte in ten.
constexpr size_t kGainDivisor = 10;

}  // namespace

bool is_float(ElementFormat format) {
  return format.code != kCodeInt && format.code != kCodeUInt && format.code != kCodeBool;
}

CodecId choose_codec(CodecContext& context, ElementFormat format, Bytes raw) {
  if (is_float(format) || raw.size() < kRawBytesMin) return CodecId::kRaw;
  const size_t sample_bytes = std::min(kSampleBytes, raw.size());
  const size_t samples = std::clamp<size_t>(raw.size() / kSampleBytes, 1, kSamples);
  // From the first byte to the last, in even steps.
  const size_t step = samples == 1 ? 0 : (raw.size() - sample_bytes) / (samples - 1);
  std::array<std::byte, kSampleBytes> scratch;
  size_t stored = 0;
  for (size_t i = 0; i < samples; ++i) {
    const Bytes sample = raw.subspan(i * step, sample_bytes);
    const Result<size_t> size =
        zstd_codec().encode(context, format, sample, {}, MutableBytes(scratch).first(sample_bytes));
    if (!size.ok()) return CodecId::kRaw;
    stored += *size == 0 ? sample_bytes : *size;
  }
  const size_t sampled = samples * sample_bytes;
  return sampled - stored >= sampled / kGainDivisor ? CodecId::kZstd : CodecId::kRaw;
}

}  // namespace caisson

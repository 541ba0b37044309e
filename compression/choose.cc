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

// Bytes of floats are looked at in short runs all over the chunk. From this share of zeros on, rows
// that were never touched and numbers of few bits, a byte codec gains more than planes do.
constexpr size_t kZeroRunBytes = 64;
constexpr size_t kZeroRuns = 32;
constexpr size_t kManyZerosDivisor = 4;

bool is_float(ElementFormat format) {
  return format.code != kCodeInt && format.code != kCodeUInt && format.code != kCodeBool;
}

bool has_many_zeros(Bytes raw) {
  const size_t runs = std::min(kZeroRuns, raw.size() / kZeroRunBytes);
  const size_t step = runs < 2 ? 0 : (raw.size() - kZeroRunBytes) / (runs - 1);
  size_t zeros = 0;
  for (size_t i = 0; i < runs; ++i) {
    const Bytes run = raw.subspan(i * step, kZeroRunBytes);
    zeros += static_cast<size_t>(std::ranges::count(run, std::byte{0}));
  }
  return runs > 0 && zeros >= runs * kZeroRunBytes / kManyZerosDivisor;
}

// Whether zstd makes samples of the chunk, from its first byte to its last in even steps, smaller.
bool zstd_gains(CodecContext& context, ElementFormat format, Bytes raw) {
  const size_t sample_bytes = std::min(kSampleBytes, raw.size());
  const size_t samples = std::clamp<size_t>(raw.size() / kSampleBytes, 1, kSamples);
  const size_t step = samples == 1 ? 0 : (raw.size() - sample_bytes) / (samples - 1);
  std::array<std::byte, kSampleBytes> scratch;
  size_t stored = 0;
  for (size_t i = 0; i < samples; ++i) {
    const Bytes sample = raw.subspan(i * step, sample_bytes);
    const Result<size_t> size =
        zstd_codec().encode(context, format, sample, {}, MutableBytes(scratch).first(sample_bytes));
    if (!size.ok()) return false;
    stored += *size == 0 ? sample_bytes : *size;
  }
  const size_t sampled = samples * sample_bytes;
  return sampled - stored >= sampled / kGainDivisor;
}

}  // namespace

CodecId choose_codec(CodecContext& context, ElementFormat format, Bytes raw) {
  forget_look(context);
  if (raw.size() < kRawBytesMin) return CodecId::kRaw;
  if (!is_float(format) || has_many_zeros(raw)) {
    if (zstd_gains(context, format, raw)) return CodecId::kZstd;
  }
  return plan_of(context, format, raw) ? CodecId::kBitPlanes : CodecId::kRaw;
}

}  // namespace caisson

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

// Blocks of floats are looked at all over the chunk, each a block of codec 6.
constexpr size_t kBlockBytes = 64;
constexpr size_t kBlocksLooked = 128;
constexpr uint32_t kScatter = 2654435761;  // the golden ratio of 2^32
// From this share of zero blocks on, rows that were never touched, leaving them out is worth the
// time: encoding takes twice as long as that of planes, decoding half as long again.
constexpr size_t kZeroBlocksDivisor = 16;
// From this share of zeros in the other blocks on, numbers of few bits, a byte codec gains more
// than planes do.
constexpr size_t kManyZerosDivisor = 4;

bool is_float(ElementFormat format) {
  return format.code != kCodeInt && format.code != kCodeUInt && format.code != kCodeBool;
}

// What was seen of zeros.
struct Zeros {
  size_t looked = 0;   // blocks
  size_t blocks = 0;   // of these, of zeros alone
  size_t further = 0;  // bytes, in the other ones

  bool in_rows() const { return blocks > 0 && blocks >= looked / kZeroBlocksDivisor; }
  bool in_numbers() const {
    return blocks < looked && further >= (looked - blocks) * kBlockBytes / kManyZerosDivisor;
  }
  double kept() const {
    return 1 - static_cast<double>(blocks) / static_cast<double>(std::max<size_t>(looked, 1));
  }
};

// In a byte, of which a vector adds as many at once as it has.
uint8_t zeros_of(const std::byte* block) {
  uint8_t zeros = 0;
  for (size_t i = 0; i < kBlockBytes; ++i) {
    zeros = static_cast<uint8_t>(zeros + (block[i] == std::byte{0} ? 1 : 0));
  }
  return zeros;
}

Zeros look_for_zeros(Bytes raw) {
  const size_t blocks = raw.size() / kBlockBytes;
  Zeros zeros{.looked = std::min(kBlocksLooked, blocks)};
  for (size_t i = 0; i < zeros.looked; ++i) {
    // One of each of so many stretches, not in even steps, which rows might keep up with: it moves
    // on in each by the golden ratio of its length.
    const size_t begin = i * blocks / zeros.looked;
    const size_t stretch = (i + 1) * blocks / zeros.looked - begin;
    const uint64_t place = static_cast<uint32_t>(i) * kScatter;
    const size_t block = begin + (place * stretch >> 32);
    const size_t count = zeros_of(raw.data() + block * kBlockBytes);
    const bool all = count == kBlockBytes;
    zeros.blocks += all ? 1 : 0;
    zeros.further += all ? 0 : count;
  }
  return zeros;
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
  if (!is_float(format)) return zstd_gains(context, format, raw) ? CodecId::kZstd : CodecId::kRaw;
  const Zeros zeros = look_for_zeros(raw);
  if (zeros.in_numbers() && zstd_gains(context, format, raw)) return CodecId::kZstd;
  if (zeros.in_rows()) return CodecId::kSparse;
  return plan_of(context, format, raw) ? CodecId::kBitPlanes : CodecId::kRaw;
}

uint64_t bytes_alone(ElementFormat format, Bytes raw) {
  const uint64_t planes = planes_bytes(format, raw);
  const Zeros zeros = is_float(format) ? look_for_zeros(raw) : Zeros{};
  if (!zeros.in_rows()) return planes;
  return static_cast<uint64_t>(static_cast<double>(planes) * zeros.kept());
}

}  // namespace caisson

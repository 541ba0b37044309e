#include "engine/save_codec.h"

#include <algorithm>

#include "compression/choose.h"

namespace caisson {

namespace {

constexpr double kKnownBytes = 32u << 20;  // a rate over fewer says little
constexpr double kKnownOfDevice = 256u << 20;
constexpr uint64_t kBurstBytes = 1u << 30;  // of a device, that its cache may take faster than it
constexpr double kClearly = 1.1;
constexpr double kQueueHalfEmpty = 0.5;
constexpr uint64_t kIdlePieces = 128;
constexpr uint64_t kUnseenPieces = 15;
// Entropy codes take four times as long as planes. They must save this share of the raw bytes.
constexpr double kEntropyGainMin = 0.01;

}  // namespace

ElementFormat element_format(DType dtype) {
  return {.code = static_cast<uint8_t>(dtype.code), .bits = dtype.bits};
}

Status check_codec_policy(const std::string& policy) {
  if (policy == "auto") return ok_status();
  const auto codec = find_codec(std::string_view(policy));
  if (codec.ok()) return ok_status();
  return codec.status().with_context("option codec, besides \"auto\"");
}

void MeasuredRate::add(double bytes, double cost) {
  bytes_ += bytes;
  cost_ += cost;
  if (bytes_ < remembered_bytes_) return;
  bytes_ /= 2;
  cost_ /= 2;
}

std::optional<CodecChoice> CodecPolicy::choose(const TensorSpec& tensor, CodecContext& context,
                                               Bytes raw) {
  if (options_.codec != "auto") {
    const Codec* const codec = find_codec(std::string_view(options_.codec)).value();
    return CodecChoice{codec->id(), CodecReason::kAsked};
  }
  if (!may_spend()) return CodecChoice{CodecId::kRaw, CodecReason::kCpuSpent};
  if (idles_ && idle_pieces_ < kIdlePieces) {
    ++idle_pieces_;
    return CodecChoice{CodecId::kRaw, CodecReason::kDeviceIdles};
  }
  if (raw_tensor_ == &tensor && raw_left_ > 0) {
    --raw_left_;
    return CodecChoice{CodecId::kRaw, CodecReason::kLook};
  }
  if (raw.empty()) return std::nullopt;
  idle_pieces_ = 0;
  const CodecChoice choice = look(tensor, context, raw);
  raw_tensor_ = choice.codec == CodecId::kRaw && !options_.deterministic ? &tensor : nullptr;
  raw_left_ = kUnseenPieces;
  coded_last_ = choice.codec != CodecId::kRaw;
  return choice;
}

CodecChoice CodecPolicy::look(const TensorSpec& tensor, CodecContext& context, Bytes raw) const {
  const ElementFormat element = element_format(tensor.dtype);
  const CodecId looked = choose_codec(context, element, raw);
  if (looked != CodecId::kBitPlanes || options_.deterministic) return {looked, CodecReason::kLook};
  if (busy_ && entropy_gain(context, element, raw) >= kEntropyGainMin) {
    return {CodecId::kEntropyPlanes, CodecReason::kDeviceBusy};
  }
  return {CodecId::kBitPlanes, CodecReason::kDevicePaces};
}

uint64_t CodecPolicy::raw_in_a_row(const TensorSpec& tensor) const {
  if (options_.codec != "auto") return options_.codec == "raw" ? UINT64_MAX : 0;
  if (!may_spend()) return kUnseenPieces;
  if (idles_) return kIdlePieces - idle_pieces_;
  return raw_tensor_ == &tensor ? raw_left_ : 0;
}

void CodecPolicy::on_device(const DeviceUse& use) {
  if (use.waits > device_seen_.waits) {
    busy_ = true;
  } else if (use.queue_level < kQueueHalfEmpty) {
    busy_ = false;
  }
  if (device_seen_.written_bytes >= kBurstBytes / options_.workers &&
      use.written_bytes > device_seen_.written_bytes) {
    device_.add(static_cast<double>(use.written_bytes - device_seen_.written_bytes),
                use.busy_seconds - device_seen_.busy_seconds);
    idles_ = !options_.deterministic && raw_is_faster();
  }
  device_seen_ = use;
}

void CodecPolicy::on_gathered(uint64_t raw_bytes, double seconds) {
  gathering_.add(static_cast<double>(raw_bytes), seconds);
}

void CodecPolicy::on_coded(uint64_t raw_bytes, uint64_t stored_bytes, double seconds) {
  coding_.add(static_cast<double>(raw_bytes), seconds);
  stored_.add(static_cast<double>(raw_bytes), static_cast<double>(stored_bytes));
}

void CodecPolicy::on_cpu(double cpu_seconds, double elapsed_seconds) {
  cpu_seconds_ += cpu_seconds;
  cpu_spent_ = options_.cpu >= 0 && cpu_seconds_ > options_.cpu * elapsed_seconds;
}

bool CodecPolicy::raw_is_faster() const {
  if (device_.bytes() < kKnownOfDevice || coding_.bytes() < kKnownBytes) return false;
  const double gather = gathering_.per_byte();
  const double device = device_.per_byte();
  const double raw_seconds = std::max(gather, device);
  const double coded_seconds = std::max(gather + coding_.per_byte(), device * stored_.per_byte());
  return idles_ ? raw_seconds < coded_seconds * kClearly : raw_seconds * kClearly < coded_seconds;
}

void CodecTally::add(CodecChoice choice, uint64_t raw_bytes, uint64_t stored_bytes) {
  Count& count = counts_[static_cast<size_t>(choice.codec)][static_cast<size_t>(choice.reason)];
  ++count.chunks;
  count.raw_bytes += raw_bytes;
  count.stored_bytes += stored_bytes;
}

void CodecTally::add(const CodecTally& other) {
  for (size_t codec = 0; codec < counts_.size(); ++codec) {
    for (size_t reason = 0; reason < kCodecReasons; ++reason) {
      Count& to = counts_[codec][reason];
      const Count& from = other.counts_[codec][reason];
      to.chunks += from.chunks;
      to.raw_bytes += from.raw_bytes;
      to.stored_bytes += from.stored_bytes;
    }
  }
}

std::vector<CodecUse> CodecTally::uses() const {
  std::vector<CodecUse> uses;
  for (size_t codec = 0; codec < counts_.size(); ++codec) {
    for (size_t reason = 0; reason < kCodecReasons; ++reason) {
      const Count& count = counts_[codec][reason];
      if (count.chunks == 0) continue;
      uses.push_back({.codec = std::string(find_codec(static_cast<uint8_t>(codec)).value()->name()),
                      .reason = std::string(to_string(static_cast<CodecReason>(reason))),
                      .chunks = count.chunks,
                      .raw_bytes = count.raw_bytes,
                      .stored_bytes = count.stored_bytes});
    }
  }
  return uses;
}

}  // namespace caisson

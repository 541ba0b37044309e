#include "engine/save_codec.h"

#include <algorithm>

#include "compression/choose.h"

namespace caisson {

ElementFormat element_format(DType dtype) {
  return {.code = static_cast<uint8_t>(dtype.code), .bits = dtype.bits};
}

Status check_codec_policy(const std::string& policy) {
  if (policy == "auto") return ok_status();
  const auto codec = find_codec(std::string_view(policy));
  if (codec.ok()) return ok_status();
  return codec.status().with_context("option codec, besides \"auto\"");
}

std::string_view to_string(CodecReason reason) {
  constexpr std::array<std::string_view, kCodecReasons> kNames = {
      "asked for",    "look at the bytes", "device paces", "device busy",
      "device idles", "codec_cpu spent",   "base beside",  "not smaller"};
  return kNames[static_cast<size_t>(reason)];
}

std::optional<CodecChoice> CodecPolicy::choose(const TensorRecord& tensor, CodecContext& context,
                                               Bytes raw) {
  if (options_.codec != "auto") {
    const Codec* const codec = find_codec(std::string_view(options_.codec)).value();
    return CodecChoice{codec->id(), CodecReason::kAsked};
  }
  if (!may_code()) return CodecChoice{CodecId::kRaw, CodecReason::kCpuSpent};
  if (raw.empty()) return std::nullopt;
  const CodecId looked = choose_codec(context, element_format(tensor.spec.dtype), raw);
  if (looked == CodecId::kRaw || options_.deterministic) {
    return CodecChoice{looked, CodecReason::kLook};
  }
  if (pressure_ <= -kIdleMin) return CodecChoice{CodecId::kRaw, CodecReason::kDeviceIdles};
  if (looked != CodecId::kBitPlanes) return CodecChoice{looked, CodecReason::kLook};
  if (pressure_ > 0) return CodecChoice{CodecId::kEntropyPlanes, CodecReason::kDeviceBusy};
  return CodecChoice{CodecId::kBitPlanes, CodecReason::kDevicePaces};
}

void CodecPolicy::on_buffer(bool waited) {
  pressure_ = waited ? std::max(pressure_ + 1, 1) : std::max(pressure_ - 1, -kIdleMin);
  pressure_ = std::min(pressure_, 1);
}

void CodecPolicy::on_coded(double cpu_seconds, double elapsed_seconds) {
  cpu_seconds_ += cpu_seconds;
  cpu_spent_ = options_.cpu >= 0 && cpu_seconds_ > options_.cpu * elapsed_seconds;
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

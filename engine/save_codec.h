// Stage 4's decision: which codec a piece is encoded with, from SaveOptions, the tensor, a look at
// the bytes, and how busy the device is. Policy only; what was chosen stands in each chunk's entry.
// Used by save_worker.cc; the names of codecs by whoever checks options.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "compression/codec.h"
#include "engine/format/directory.h"
#include "engine/save_pipeline.h"

namespace caisson {

ElementFormat element_format(DType dtype);
// kInvalidArgument unless `policy` is "auto" or the name of a codec that needs no base.
Status check_codec_policy(const std::string& policy);

// For reports and traces, never stored.
enum class CodecReason : uint8_t {
  kAsked,        // SaveOptions::codec names it
  kLook,         // a look at the bytes decided alone
  kDevicePaces,  // neither device nor processor waits much for the other
  kDeviceBusy,   // the device's queue is full: there is time for a smaller form
  kDeviceIdles,  // the device's queue runs empty: coding would slow the save
  kCpuSpent,     // SaveOptions::codec_cpu is used up
  kBase,         // it is nearly told by another chunk
  kNotSmaller,   // it was encoded, and did not get smaller
};
constexpr size_t kCodecReasons = 8;
std::string_view to_string(CodecReason reason);

struct CodecChoice {
  CodecId codec = CodecId::kRaw;
  CodecReason reason = CodecReason::kLook;
};

// One worker's choices. Thread-compatible.
//
// Processor time and the device's time are exchanged for each other piece by piece. The sign is
// whether the worker, when it needed a buffer, had to wait for the device: after such a wait the
// queue is as full as it can be, and floats get the smaller, slower form until a buffer comes
// without waiting; when many in a row came without, the device is the faster one, and pieces are
// stored raw until it is not. So the mix settles where both are busy.
class CodecPolicy {
 public:
  struct Options {
    std::string codec = "auto";
    double cpu = -1;  // cores, of this worker; negative: no bound
    bool deterministic = false;
  };
  // REQUIRES: check_codec_policy(options.codec).ok().
  explicit CodecPolicy(Options options) : options_(std::move(options)) {}

  // The codec for a piece of these bytes. Nothing when it depends on them and `raw` is empty: ask
  // again when they have been gathered.
  std::optional<CodecChoice> choose(const TensorRecord& tensor, CodecContext& context, Bytes raw);

  // Whether there is time for coding at all.
  bool may_code() const { return options_.cpu != 0 && !cpu_spent_; }

  // A buffer was needed; `waited`: the device had to give one back first.
  void on_buffer(bool waited);
  // So many seconds of a processor went into coding; the worker began so many seconds ago.
  void on_coded(double cpu_seconds, double elapsed_seconds);

 private:
  // Buffers in a row that came without waiting, from which on the device is taken to idle.
  static constexpr int kIdleMin = 32;

  const Options options_;
  int pressure_ = 0;  // 1 after a wait; falls by one with each buffer that came without
  double cpu_seconds_ = 0;
  bool cpu_spent_ = false;
};

// What became of the chunks that a save newly stored, by codec and reason. Thread-compatible.
class CodecTally {
 public:
  void add(CodecChoice choice, uint64_t raw_bytes, uint64_t stored_bytes);
  void add(const CodecTally& other);
  std::vector<CodecUse> uses() const;  // those that occurred

 private:
  struct Count {
    uint64_t chunks = 0, raw_bytes = 0, stored_bytes = 0;
  };
  std::array<std::array<Count, kCodecReasons>, kCodecs> counts_{};  // by codec, then reason
};

}  // namespace caisson

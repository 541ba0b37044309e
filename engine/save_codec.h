// Stage 4's decision: which codec a piece is encoded with, from SaveOptions, the tensor, a look at
// the bytes, and how busy the device is. Policy only; what was chosen and why stands in each
// chunk's entry. Used by save_worker.cc; the names of codecs by whoever checks options.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "compression/codec.h"
#include "engine/format/chunk.h"
#include "engine/format/directory.h"
#include "engine/pack_writer.h"
#include "engine/save_pipeline.h"

namespace caisson {

ElementFormat element_format(DType dtype);
// kInvalidArgument unless `policy` is "auto" or the name of a codec that needs no base.
Status check_codec_policy(const std::string& policy);

using format::CodecReason;
using format::kCodecReasons;

struct CodecChoice {
  CodecId codec = CodecId::kRaw;
  CodecReason reason = CodecReason::kLook;
};

// What so many bytes cost, in seconds or in bytes stored: a mean that forgets what is older than so
// many.
class MeasuredRate {
 public:
  explicit MeasuredRate(double remembered_bytes) : remembered_bytes_(remembered_bytes) {}
  void add(double bytes, double cost);
  double bytes() const { return bytes_; }
  double per_byte() const { return bytes_ > 0 ? cost_ / bytes_ : 0; }

 private:
  const double remembered_bytes_;
  double bytes_ = 0, cost_ = 0;
};

// One worker's choices. Thread-compatible.
//
// Whether floats are coded at all follows from four rates that the worker measures as it goes: of
// gathering and hashing, of coding, of the device while it has something to do, and by how much
// coding makes pieces smaller. The slower one of processor and device paces a save, so it is known
// which would be faster, raw or coded; the answer changes only where the other one is clearly so,
// and before all rates are known it is coded. What the device does is known only after more than
// a GiB: the first one often ends in a cache that takes it at several times the lasting rate, and
// what was spared then is spared when it matters. Where the device's queue is full none the less,
// the worker would wait: floats then get the smaller, slower form, if it is worth that, until the
// queue is half empty.
class CodecPolicy {
 public:
  struct Options {
    std::string codec = "auto";
    double cpu = -1;  // cores, of this worker; negative: no bound
    bool deterministic = false;
    uint32_t workers = 1;  // of the save: each sees its own part of what the device takes
  };
  // REQUIRES: check_codec_policy(options.codec).ok().
  explicit CodecPolicy(Options options) : options_(std::move(options)) {}

  // The codec for a piece of these bytes. Nothing when it depends on them and `raw` is empty: ask
  // again when they have been gathered.
  std::optional<CodecChoice> choose(const TensorSpec& tensor, CodecContext& context, Bytes raw);

  // What was found out of a tensor is of no other one that comes to lie in its place.
  void begin_put() { raw_tensor_ = nullptr; }

  // Whether codec_cpu leaves time for coding, and whether the device does, too.
  bool may_spend() const { return options_.cpu != 0 && !cpu_spent_; }
  bool may_code() const { return may_spend() && !idles_; }
  // Whether the last piece that was looked at was coded: the next one most often is, too.
  bool expects_coding() const { return coded_last_; }
  // How many pieces of the tensor, from the next on, choose() says raw to without a look, as far as
  // is known now.
  uint64_t raw_in_a_row(const TensorSpec& tensor) const;

  void on_device(const DeviceUse& use);
  void on_gathered(uint64_t raw_bytes, double seconds);
  void on_coded(uint64_t raw_bytes, uint64_t stored_bytes, double seconds);
  // So many seconds of a processor went into coding; the worker began so many seconds ago.
  void on_cpu(double cpu_seconds, double elapsed_seconds);

 private:
  CodecChoice look(const TensorSpec& tensor, CodecContext& context, Bytes raw) const;
  bool raw_is_faster() const;

  const Options options_;
  static constexpr double kRememberedBytes = 256u << 20;
  static constexpr double kRememberedOfDevice = 4096.0 * (1u << 20);
  MeasuredRate gathering_{kRememberedBytes}, coding_{kRememberedBytes};
  MeasuredRate stored_{kRememberedBytes};  // of what was coded: stored for raw bytes
  MeasuredRate device_{kRememberedOfDevice};
  DeviceUse device_seen_;
  bool idles_ = false;
  uint64_t idle_pieces_ = 0;  // since one was coded all the same, so that coding's rate stays known
  bool busy_ = false;
  bool coded_last_ = false;
  const TensorSpec* raw_tensor_ = nullptr;  // whose last look said raw
  uint64_t raw_left_ = 0;                   // of its pieces, that are not looked at
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

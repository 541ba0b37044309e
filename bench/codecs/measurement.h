// Codecs on one sample, on one core, from memory to memory: every round copies the same bytes
// first, with one memcpy from end to end, and hashes them; then each codec encodes and decodes
// them. Single-threaded.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "bench/codecs/samples.h"
#include "io/base/buffer.h"

namespace caisson::bench {

// One codec on one sample; speeds are raw bytes a second of processor time, one for each round.
struct Track {
  const Codec* codec = nullptr;  // null: what a look at each chunk chooses, the look included
  std::string_view name() const { return codec == nullptr ? "auto" : codec->name(); }
  uint64_t stored_bytes = 0;
  std::vector<double> encode, decode;
};

class Measurement {
 public:
  // REQUIRES: the sample outlives it.
  static Result<Measurement> make(const Sample& sample, const std::vector<const Codec*>& codecs);

  // One more round, which warms up, and is not counted. kCorruption where a codec does not give
  // back what it was given.
  Status run(unsigned rounds);

  const std::vector<Track>& tracks() const { return tracks_; }
  const Track* find(std::string_view name) const;
  const std::vector<double>& copy() const { return copy_; }
  const std::vector<double>& hash() const { return hash_; }

 private:
  struct Place {
    uint64_t at = 0;
    uint64_t bytes = 0;  // 0: stored raw, which costs a copy
    const Codec* codec = nullptr;
  };

  template <typename Work>
  Status time(std::vector<double>& into, unsigned round, Work&& work);
  Status hash_chunks();
  Status encode(Track& track);
  Status decode();  // what was encoded last

  const Sample* sample_ = nullptr;
  AlignedBuffer stored_, out_;
  CodecContext context_;
  std::vector<Place> places_;
  std::vector<Track> tracks_;
  std::vector<double> copy_, hash_;
  std::byte last_byte_{};  // so that hashes are not left out
};

}  // namespace caisson::bench

// The codecs of this build, for the registry alone. Each is stateless and lives as long as the
// program. Thread-safe.
#pragma once

#include "compression/codec.h"

namespace caisson {

const Codec& raw_codec();
const Codec& zstd_codec();

// What a CodecContext holds. zstd_codec.cc knows the pointers' types; another codec with scratch
// adds its own member.
struct CodecContext::State {
  State() = default;
  ~State();
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  void* zstd_encoder = nullptr;
  void* zstd_decoder = nullptr;
};

}  // namespace caisson

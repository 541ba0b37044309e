// Codecs turn the raw bytes of one chunk into its stored form and back. Pure: no files, no threads,
// no allocation beyond a codec's own context. A codec is immutable and thread-safe; its scratch
// lives in the CodecContext that the caller keeps per thread. SPEC.md describes every decoder.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "caisson/result.h"
#include "io/base/bytes.h"

namespace caisson {

// Stored in every chunk entry; never renumber. A reader that lacks one answers kUnsupported, never
// wrong bytes.
enum class CodecId : uint8_t {
  kRaw = 0,
  kZstd = 1,
  kBitPlanes = 2,      // floats: exponents as bit planes, at the speed of memory
  kEntropyPlanes = 3,  // floats: exponents as Huffman codes, smaller and slower
  kTwin = 4,           // fp32 master beside its bf16 weight; has a base
  kDelta = 5,          // against the same tile of an anchor checkpoint; has a base
  kSparse = 6,         // without its blocks of zeros; what is left as planes
};
inline constexpr size_t kCodecs = 7;

// What a codec may know of the raw bytes: the element's kind and width. DLPack codes (tensor.h).
struct ElementFormat {
  uint8_t code = 0;
  uint8_t bits = 8;
};

// Scratch of one thread (zstd contexts and the like), made once and reused.
class CodecContext {
 public:
  CodecContext();
  ~CodecContext();
  CodecContext(CodecContext&&) noexcept;
  CodecContext& operator=(CodecContext&&) noexcept;
  CodecContext(const CodecContext&) = delete;
  CodecContext& operator=(const CodecContext&) = delete;
  struct State;
  State& state() { return *state_; }

 private:
  std::unique_ptr<State> state_;
};

class Codec {
 public:
  virtual ~Codec() = default;
  virtual CodecId id() const = 0;
  virtual std::string_view name() const = 0;
  virtual bool needs_base() const { return false; }
  // Encodes `raw` into `stored` and gives the stored size, or 0 when the result would not be
  // smaller than `stored.size()`: the caller then stores raw. `base` is empty unless needs_base().
  virtual Result<size_t> encode(CodecContext& context, ElementFormat format, Bytes raw, Bytes base,
                                MutableBytes stored) const = 0;
  // Fills `raw` exactly. kCorruption for any input that is not this codec's encoding of raw.size()
  // bytes; never reads or writes outside the spans, never allocates by a length from `stored`.
  virtual Status decode(CodecContext& context, ElementFormat format, Bytes stored, Bytes base,
                        MutableBytes raw) const = 0;
};

// The codec of a stored id; kUnsupported for one that this build does not know (the message says
// which version to use), never null.
Result<const Codec*> find_codec(uint8_t id);
// By name, for options and the CLI, of those without a base: "raw", "zstd", "planes", "entropy",
// "sparse". kInvalidArgument lists the names.
Result<const Codec*> find_codec(std::string_view name);

}  // namespace caisson

// Codec 6, "sparse": SPEC.md. Blocks of 64 bytes that are all zero are left out, as the moments of
// embedding rows that no token has touched; what is kept is stored as planes.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <string>

#include "compression/codecs.h"
#include "io/base/zeros.h"

namespace caisson {
namespace {

constexpr size_t kBlockBytes = 64;
constexpr size_t kHeaderBytes = 16;
constexpr size_t kRawBytesAt = 0;
constexpr size_t kKeptAt = 4;
constexpr size_t kInnerAt = 8;
constexpr size_t kZerosAt = 9;
constexpr size_t kWordBits = 64;
constexpr size_t kWordBytes = 8;
// As sections of planes want it.
constexpr size_t kInnerAlignment = 64;

size_t blocks_of(size_t raw_bytes) { return (raw_bytes + kBlockBytes - 1) / kBlockBytes; }
size_t words_of(size_t blocks) { return (blocks + kWordBits - 1) / kWordBits; }
size_t inner_begin(size_t blocks) {
  return align_up(kHeaderBytes + kWordBytes * words_of(blocks), kInnerAlignment);
}

// One bit for each block of so many raw bytes, set where it is kept. A view of words.
class KeptBlocks {
 public:
  KeptBlocks(const std::byte* words, size_t raw_bytes)
      : words_(words), raw_bytes_(raw_bytes), blocks_(blocks_of(raw_bytes)) {}

  size_t count() const {
    size_t kept = 0;
    for (size_t i = 0; i < words_of(blocks_); ++i) kept += static_cast<size_t>(popcount(i));
    return kept;
  }
  // Of all kept blocks; the last block of a chunk may be shorter than the others.
  size_t bytes() const {
    const bool last = blocks_ != 0 && next(blocks_ - 1, 0) < blocks_;
    return kBlockBytes * count() - (last ? kBlockBytes * blocks_ - raw_bytes_ : 0);
  }
  // Calls each(begin, bytes) for every run of kept blocks, in rising order.
  template <typename Each>
  void for_each_run(Each&& each) const {
    for (size_t at = next(0, 0); at < blocks_;) {
      const size_t end = next(at, ~uint64_t{0});
      const size_t begin = kBlockBytes * at;
      each(begin, std::min(kBlockBytes * end, raw_bytes_) - begin);
      at = next(end, 0);
    }
  }

 private:
  int popcount(size_t i) const { return std::popcount(load_le<uint64_t>(words_ + kWordBytes * i)); }
  // The first block from `at` on whose bit differs from those of `other`; blocks_ without any.
  size_t next(size_t at, uint64_t other) const {
    while (at < blocks_) {
      const auto word = load_le<uint64_t>(words_ + at / kWordBits * kWordBytes);
      const uint64_t bits = (word ^ other) >> (at % kWordBits);
      if (bits != 0) return std::min(at + static_cast<size_t>(std::countr_zero(bits)), blocks_);
      at = (at / kWordBits + 1) * kWordBits;
    }
    return blocks_;
  }

  const std::byte* const words_;
  const size_t raw_bytes_;
  const size_t blocks_;
};

void mark_kept(Bytes raw, std::byte* words) {
  const size_t word_bytes = kBlockBytes * kWordBits;
  for (size_t begin = 0; begin < raw.size(); begin += word_bytes, words += kWordBytes) {
    const Bytes of_word = raw.subspan(begin, std::min(word_bytes, raw.size() - begin));
    const size_t whole = of_word.size() / kBlockBytes;
    uint64_t word = 0;
    for (size_t i = 0; i < whole; ++i) {
      word |= uint64_t{!is_zero(Bytes(of_word.data() + kBlockBytes * i, kBlockBytes))} << i;
    }
    const Bytes rest = of_word.subspan(kBlockBytes * whole);
    if (!is_zero(rest)) word |= uint64_t{1} << whole;
    store_le(words, word);
  }
}

// The kept blocks one behind the other, in the context's scratch.
Bytes gather(CodecContext& context, const KeptBlocks& kept, Bytes raw) {
  std::vector<std::byte>& scratch = context.state().kept;
  const size_t bytes = kept.bytes();
  if (scratch.size() < bytes) scratch.resize(bytes);
  std::byte* to = scratch.data();
  kept.for_each_run([&](size_t begin, size_t run) {
    std::memcpy(to, raw.data() + begin, run);
    to += run;
  });
  return Bytes(scratch).first(bytes);
}

// The inverse, where the kept blocks are the last bytes of `raw`. As many follow a block here as
// there, or more: it only ever moves forward in memory, over what was moved before.
void spread(const KeptBlocks& kept, size_t kept_bytes, MutableBytes raw) {
  const std::byte* from = raw.data() + raw.size() - kept_bytes;
  size_t done = 0;
  kept.for_each_run([&](size_t begin, size_t run) {
    std::fill_n(raw.data() + done, begin - done, std::byte{0});
    std::memmove(raw.data() + begin, from, run);
    from += run;
    done = begin + run;
  });
  std::fill_n(raw.data() + done, raw.size() - done, std::byte{0});
}

class SparseCodec final : public Codec {
 public:
  CodecId id() const override { return CodecId::kSparse; }
  std::string_view name() const override { return "sparse"; }

  Result<size_t> encode(CodecContext& context, ElementFormat format, Bytes raw, Bytes,
                        MutableBytes stored) const override {
    const size_t at = inner_begin(blocks_of(raw.size()));
    if (at >= stored.size()) return size_t{0};
    std::fill_n(stored.data(), at, std::byte{0});
    mark_kept(raw, stored.data() + kHeaderBytes);
    const KeptBlocks kept(stored.data() + kHeaderBytes, raw.size());
    const Bytes gathered = gather(context, kept, raw);
    const MutableBytes to = stored.subspan(at);
    CAISSON_ASSIGN_OR_RETURN(const size_t planes,
                             bit_planes_codec().encode(context, format, gathered, {}, to));
    const CodecId inner = planes == 0 ? CodecId::kRaw : CodecId::kBitPlanes;
    if (planes == 0) {
      if (gathered.size() >= to.size()) return size_t{0};
      std::copy(gathered.begin(), gathered.end(), to.begin());
    }
    store_le(stored.data() + kRawBytesAt, static_cast<uint32_t>(raw.size()));
    store_le(stored.data() + kKeptAt, static_cast<uint32_t>(kept.count()));
    stored[kInnerAt] = static_cast<std::byte>(inner);
    return at + (planes == 0 ? gathered.size() : planes);
  }

  Status decode(CodecContext& context, ElementFormat format, Bytes stored, Bytes,
                MutableBytes raw) const override {
    const size_t blocks = blocks_of(raw.size());
    const size_t at = inner_begin(blocks);
    if (at > stored.size()) return corruption("sparse: the stored form is cut off");
    if (load_le<uint32_t>(stored.data() + kRawBytesAt) != raw.size()) {
      return corruption("sparse: the form of another number of bytes");
    }
    const auto inner = static_cast<CodecId>(stored[kInnerAt]);
    if (inner != CodecId::kRaw && inner != CodecId::kBitPlanes &&
        inner != CodecId::kEntropyPlanes) {
      return corruption("sparse: blocks are not kept by codec " +
                        std::to_string(static_cast<int>(inner)));
    }
    const size_t words_end = kHeaderBytes + kWordBytes * words_of(blocks);
    const auto last_word = load_le<uint64_t>(stored.data() + words_end - kWordBytes);
    const bool beyond = blocks % kWordBits != 0 && last_word >> (blocks % kWordBits) != 0;
    if (beyond || !is_zero(stored.subspan(kZerosAt, kHeaderBytes - kZerosAt)) ||
        !is_zero(stored.subspan(words_end, at - words_end))) {
      return corruption("sparse: a bit is set where all are zero");
    }
    const KeptBlocks kept(stored.data() + kHeaderBytes, raw.size());
    if (kept.count() != load_le<uint32_t>(stored.data() + kKeptAt)) {
      return corruption("sparse: another number of blocks than the header says");
    }
    const size_t kept_bytes = kept.bytes();
    CAISSON_ASSIGN_OR_RETURN(const Codec* const codec, find_codec(static_cast<uint8_t>(inner)));
    CAISSON_RETURN_IF_ERROR(
        codec->decode(context, format, stored.subspan(at), {}, raw.last(kept_bytes)));
    spread(kept, kept_bytes, raw);
    return ok_status();
  }
};

}  // namespace

const Codec& sparse_codec() {
  static const SparseCodec codec;
  return codec;
}

}  // namespace caisson

#include "compression/plane_section.h"

#include <algorithm>
#include <bit>
#include <string>

#include "compression/codecs.h"

namespace caisson {
namespace {

constexpr uint8_t kAllBits = 0xff;

Status cut_off() { return corruption("planes: a section is cut off"); }

// The fixed part of a section, at the offsets below.
struct Header {
  FloatLayout layout = FloatLayout::kBf16;
  SymbolCoder coder = SymbolCoder::kCascade;
  unsigned levels = 0;  // of the cascade
  std::array<Level, kLevelsMax> level{};
  uint8_t varying = kAllBits;  // bits of top that change, which are stored
  uint8_t constant = 0;        // the values of those that do not
  // Cascade: symbols that each level leaves to the next, the last ones stored as bytes. Entropy:
  // the first is the size of the frame, 0 when the symbols are stored as bytes.
  std::array<uint32_t, kLevelsMax> counts{};
};

constexpr size_t kLayoutAt = 0;
constexpr size_t kCoderAt = 1;
constexpr size_t kLevelsAt = 2;
constexpr size_t kVaryingAt = 3;
constexpr size_t kConstantAt = 4;
constexpr size_t kLevelAt = 8;
constexpr size_t kCountsAt = kLevelAt + 2 * kLevelsMax;
constexpr size_t kZerosAt = kCountsAt + 4 * kLevelsMax;
static_assert(kZerosAt <= kSectionHeaderBytes);

void write_header(const Header& header, std::byte* to) {
  std::fill_n(to, kSectionHeaderBytes, std::byte{0});
  to[kLayoutAt] = static_cast<std::byte>(header.layout);
  to[kCoderAt] = static_cast<std::byte>(header.coder);
  to[kLevelsAt] = static_cast<std::byte>(header.levels);
  to[kVaryingAt] = static_cast<std::byte>(header.varying);
  to[kConstantAt] = static_cast<std::byte>(header.constant);
  for (size_t i = 0; i < header.levels; ++i) {
    to[kLevelAt + 2 * i] = static_cast<std::byte>(header.level[i].bits);
    to[kLevelAt + 2 * i + 1] = static_cast<std::byte>(header.level[i].low);
  }
  for (size_t i = 0; i < kLevelsMax; ++i) store_le(to + kCountsAt + 4 * i, header.counts[i]);
}

// Checks everything but that the areas fit.
Result<Header> read_header(Bytes from, FloatLayout layout, SymbolCoder coder, size_t n) {
  if (from.size() < kSectionHeaderBytes) return cut_off();
  const auto u8 = [&](size_t at) { return static_cast<uint8_t>(from[at]); };
  if (u8(kLayoutAt) != static_cast<uint8_t>(layout)) {
    return corruption("planes: sections of different layouts");
  }
  if (u8(kCoderAt) != static_cast<uint8_t>(coder)) {
    return corruption("planes: a section of another codec");
  }
  Header header{.layout = layout,
                .coder = coder,
                .levels = u8(kLevelsAt),
                .varying = u8(kVaryingAt),
                .constant = u8(kConstantAt)};
  const unsigned levels_max = coder == SymbolCoder::kCascade ? kLevelsMax : 0;
  if (header.levels > levels_max || (header.constant & header.varying) != 0) {
    return corruption("planes: a section header says what cannot be");
  }
  size_t symbols = n;
  for (size_t i = 0; i < kLevelsMax; ++i) {
    header.counts[i] = load_le<uint32_t>(from.data() + kCountsAt + 4 * i);
    if (header.counts[i] > symbols) return corruption("planes: more escapes than symbols");
    if (i >= header.levels) continue;
    header.level[i] = {.bits = u8(kLevelAt + 2 * i), .low = u8(kLevelAt + 2 * i + 1)};
    const Level level = header.level[i];
    if (level.bits == 0 || level.bits > kLevelBitsMax || level.low + (1u << level.bits) - 1 > 256) {
      return corruption("planes: the window of level " + std::to_string(i) + " is out of bounds");
    }
    symbols = header.counts[i];
  }
  return header;
}

size_t top_bytes(uint8_t varying, size_t n) {
  if (varying == kAllBits) return n;
  return plane_bytes(n, static_cast<unsigned>(std::popcount(varying)));
}

// Where the parts of a section of n elements lie.
struct Areas {
  size_t top = kSectionHeaderBytes;
  size_t low = 0;
  size_t symbols = 0;
  Areas(FloatLayout layout, uint8_t varying, size_t n)
      : low(top + top_bytes(varying, n)), symbols(low + n * low_bytes(layout)) {}
};

std::byte* bytes_of(uint8_t* from) { return reinterpret_cast<std::byte*>(from); }
const uint8_t* octets_of(const std::byte* from) { return reinterpret_cast<const uint8_t*>(from); }

class SectionEncoder {
 public:
  SectionEncoder(CodecContext& context, PlaneScratch& scratch, SymbolCoder coder,
                 const PlanePlan& plan)
      : context_(context), scratch_(scratch), kernels_(plane_kernels()), plan_(plan) {
    header_.layout = plan.layout;
    header_.coder = coder;
    if (coder == SymbolCoder::kCascade) {
      header_.levels = plan.cascade.count;
      header_.level = plan.cascade.levels;
    }
  }

  // Gives the bytes used, 0 when they are more than there are.
  Result<size_t> encode(Bytes raw, MutableBytes to) {
    const size_t n = raw.size() / element_bytes(plan_.layout);
    header_.counts = {};
    header_.varying = plan_.varying;
    if (fixed_bytes(n) > to.size()) return size_t{0};
    TopBits seen = encode_elements(raw, n, to.data());
    const auto varying = static_cast<uint8_t>(seen.any & ~seen.all);
    if ((varying & ~header_.varying) != 0) {  // the sample missed a bit that changes
      header_.varying = varying;
      if (fixed_bytes(n) > to.size()) return size_t{0};
      seen = encode_elements(raw, n, to.data());
    }
    header_.constant = static_cast<uint8_t>(seen.all & ~header_.varying);
    const size_t at = fixed_bytes(n);
    size_t end = at;
    if (header_.coder == SymbolCoder::kEntropy) {
      CAISSON_ASSIGN_OR_RETURN(end, encode_entropy(n, at, to));
    } else if (header_.levels != 0) {
      end = encode_escapes(at, to);
    }
    if (end != 0) write_header(header_, to.data());
    return end;
  }

 private:
  // What is known before the symbols are: all but the entropy coder's frame and the escapes.
  size_t fixed_bytes(size_t n) const {
    const size_t at = Areas(plan_.layout, header_.varying, n).symbols;
    if (header_.coder == SymbolCoder::kEntropy) return at;
    return at + (header_.levels == 0 ? n : plane_bytes(n, header_.level[0].bits));
  }

  Coding coding() const {
    return {.layout = header_.layout, .level = header_.level[0], .varying = header_.varying};
  }

  // All parts to their place, symbols through the first level.
  TopBits encode_elements(Bytes raw, size_t n, std::byte* to) {
    const Areas areas(plan_.layout, header_.varying, n);
    std::byte* const symbols = header_.coder == SymbolCoder::kEntropy
                                   ? bytes_of(scratch_.symbols.data())
                                   : to + areas.symbols;
    TopBits seen;
    header_.counts[0] = static_cast<uint32_t>(
        kernels_.encode_elements(coding(), raw.data(), n, {to + areas.top, to + areas.low, symbols},
                                 scratch_.escapes[0].data(), &seen));
    return seen;
  }

  // The levels behind the first, then the escapes that are left. Gives the end, 0 when it is
  // beyond.
  size_t encode_escapes(size_t at, MutableBytes to) {
    for (size_t i = 1; i < header_.levels; ++i) {
      const size_t n = header_.counts[i - 1];
      const size_t bytes = plane_bytes(n, header_.level[i].bits);
      if (bytes > to.size() - at) return 0;
      header_.counts[i] = static_cast<uint32_t>(
          kernels_.encode_level(header_.level[i], scratch_.escapes[(i - 1) % 2].data(), n,
                                to.data() + at, scratch_.escapes[i % 2].data()));
      at += bytes;
    }
    const size_t left = header_.counts[header_.levels - 1];
    if (left > to.size() - at) return 0;
    std::copy_n(bytes_of(scratch_.escapes[(header_.levels - 1) % 2].data()), left, to.data() + at);
    return at + left;
  }

  Result<size_t> encode_entropy(size_t n, size_t at, MutableBytes to) {
    const Bytes symbols(bytes_of(scratch_.symbols.data()), n);
    const size_t room = std::min(n, to.size() - at);
    CAISSON_ASSIGN_OR_RETURN(const size_t frame,
                             entropy_encode(context_, symbols, to.subspan(at, room)));
    header_.counts[0] = static_cast<uint32_t>(frame);
    if (frame != 0) return at + frame;
    if (n > to.size() - at) return size_t{0};
    std::copy(symbols.begin(), symbols.end(), to.begin() + static_cast<ptrdiff_t>(at));
    return at + n;
  }

  CodecContext& context_;
  PlaneScratch& scratch_;
  const PlaneKernels& kernels_;
  const PlanePlan& plan_;
  Header header_;
};

class SectionDecoder {
 public:
  SectionDecoder(CodecContext& context, PlaneScratch& scratch, SymbolCoder coder,
                 FloatLayout layout)
      : context_(context),
        scratch_(scratch),
        kernels_(plane_kernels()),
        coder_(coder),
        layout_(layout) {}

  // Decodes the section at the start of `from` into `raw`. Gives the bytes that it has.
  Result<size_t> decode(Bytes from, MutableBytes raw) {
    const size_t n = raw.size() / element_bytes(layout_);
    CAISSON_ASSIGN_OR_RETURN(const Header header, read_header(from, layout_, coder_, n));
    const Areas areas(layout_, header.varying, n);
    if (areas.symbols > from.size()) return cut_off();
    size_t end = 0;
    if (coder_ == SymbolCoder::kEntropy) {
      CAISSON_ASSIGN_OR_RETURN(end, decode_entropy(header, from, areas.symbols, n));
    } else {
      CAISSON_ASSIGN_OR_RETURN(end, decode_escapes(header, from, areas.symbols, n));
    }
    CAISSON_RETURN_IF_ERROR(decode_elements(header, from.data(), areas, n, raw.data()));
    return end;
  }

 private:
  static Status mismatch() { return corruption("planes: the escapes do not match the planes"); }

  // All symbols to scratch_.symbols.
  Result<size_t> decode_entropy(const Header& header, Bytes from, size_t at, size_t n) {
    const size_t frame = header.counts[0];
    const size_t bytes = frame == 0 ? n : frame;
    if (bytes > from.size() - at) return cut_off();
    const MutableBytes symbols(reinterpret_cast<std::byte*>(scratch_.symbols.data()), n);
    if (frame == 0) {
      std::copy_n(from.data() + at, n, symbols.data());
    } else {
      CAISSON_RETURN_IF_ERROR(entropy_decode(context_, from.subspan(at, frame), symbols));
    }
    return at + bytes;
  }

  // The symbols that the first level left, to scratch_.escapes[0].
  Result<size_t> decode_escapes(const Header& header, Bytes from, size_t at, size_t n) {
    std::array<size_t, kLevelsMax + 1> planes_at{at};
    size_t symbols = n;
    for (size_t i = 0; i < header.levels; ++i) {
      planes_at[i + 1] = planes_at[i] + plane_bytes(symbols, header.level[i].bits);
      symbols = header.counts[i];
    }
    const size_t levels = header.levels;
    const size_t end = planes_at[levels] + symbols;
    if (end > from.size()) return cut_off();
    if (levels == 0) return end;
    std::copy_n(octets_of(from.data()) + planes_at[levels], symbols,
                scratch_.escapes[(levels - 1) % 2].begin());
    for (size_t i = levels; i-- > 1;) {
      const size_t used = kernels_.decode_level(
          header.level[i], from.data() + planes_at[i], header.counts[i - 1],
          scratch_.escapes[i % 2].data(), header.counts[i], scratch_.escapes[(i - 1) % 2].data());
      if (used != header.counts[i]) return mismatch();
    }
    return end;
  }

  Status decode_elements(const Header& header, const std::byte* from, const Areas& areas, size_t n,
                         std::byte* raw) {
    const Coding coding{.layout = layout_,
                        .level = header.level[0],
                        .varying = header.varying,
                        .constant = header.constant};
    const std::byte* const symbols =
        coder_ == SymbolCoder::kEntropy ? bytes_of(scratch_.symbols.data()) : from + areas.symbols;
    const size_t escapes = header.levels == 0 ? 0 : header.counts[0];
    const size_t used =
        kernels_.decode_elements(coding, {from + areas.top, from + areas.low, symbols}, n,
                                 scratch_.escapes[0].data(), escapes, raw);
    return used == escapes ? ok_status() : mismatch();
  }

  CodecContext& context_;
  PlaneScratch& scratch_;
  const PlaneKernels& kernels_;
  const SymbolCoder coder_;
  const FloatLayout layout_;
};

PlaneScratch& scratch_of(CodecContext& context) {
  auto& scratch = context.state().planes;
  if (!scratch) scratch = std::make_unique_for_overwrite<PlaneScratch>();
  return *scratch;
}

}  // namespace

PlanePlan plan_planes(FloatLayout layout, Bytes raw) {
  // Runs of a group, spread over the chunk: enough symbols to know the common ones to a percent.
  constexpr size_t kRuns = 64;
  const size_t elements = raw.size() / element_bytes(layout);
  const size_t run = std::min(kGroup, elements);
  const size_t runs = std::clamp<size_t>(elements / kGroup, 1, kRuns);
  const size_t step = runs == 1 ? 0 : (elements - run) / (runs - 1);
  std::array<uint8_t, kGroup + kSlack> symbols;
  std::array<uint8_t, kGroup> top;
  std::array<std::byte, kGroup * sizeof(double)> low;
  SymbolCounts counts{};
  TopBits seen;
  for (size_t i = 0; i < runs; ++i) {
    plane_kernels().split(layout, raw.data() + i * step * element_bytes(layout), run,
                          symbols.data(), top.data(), low.data(), &seen);
    for (size_t j = 0; j < run; ++j) ++counts[symbols[j]];
  }
  PlanePlan plan{.layout = layout, .cascade = plan_cascade(counts)};
  plan.entropy_bits_a_symbol = entropy_bits(counts);
  plan.varying = static_cast<uint8_t>(seen.any & ~seen.all);
  plan.bits_an_element = plan.cascade.bits_a_symbol + std::popcount(plan.varying) +
                         8.0 * static_cast<double>(low_bytes(layout));
  return plan;
}

Result<size_t> encode_sections(CodecContext& context, SymbolCoder coder, const PlanePlan& plan,
                               Bytes raw, MutableBytes stored) {
  const size_t width = element_bytes(plan.layout);
  const size_t tail = raw.size() % width;
  SectionEncoder encoder(context, scratch_of(context), coder, plan);
  size_t at = 0;
  for (size_t done = 0; done + width <= raw.size();) {
    const size_t aligned = align_up(at, kSectionAlignment);
    if (aligned >= stored.size()) return size_t{0};
    std::fill_n(stored.data() + at, aligned - at, std::byte{0});
    const size_t bytes = std::min(kSectionElements * width, raw.size() - tail - done);
    CAISSON_ASSIGN_OR_RETURN(const size_t used,
                             encoder.encode(raw.subspan(done, bytes), stored.subspan(aligned)));
    if (used == 0) return size_t{0};
    at = aligned + used;
    done += bytes;
  }
  if (tail >= stored.size() - at) return size_t{0};
  std::copy_n(raw.data() + raw.size() - tail, tail, stored.data() + at);
  return at + tail;
}

Status decode_sections(CodecContext& context, SymbolCoder coder, Bytes stored, MutableBytes raw) {
  // The element kind that the caller names may be another one of the same bytes: the stored form
  // says what it was.
  const auto layout =
      stored.empty() ? std::nullopt : float_layout_of(static_cast<uint8_t>(stored[kLayoutAt]));
  if (!layout) return corruption("planes: no section of a known layout");
  const size_t width = element_bytes(*layout);
  const size_t tail = raw.size() % width;
  SectionDecoder decoder(context, scratch_of(context), coder, *layout);
  size_t at = 0;
  for (size_t done = 0; done + width <= raw.size();) {
    const size_t aligned = align_up(at, kSectionAlignment);
    if (aligned > stored.size()) return cut_off();
    const size_t bytes = std::min(kSectionElements * width, raw.size() - tail - done);
    CAISSON_ASSIGN_OR_RETURN(const size_t used,
                             decoder.decode(stored.subspan(aligned), raw.subspan(done, bytes)));
    at = aligned + used;
    done += bytes;
  }
  if (stored.size() - at != tail) {
    return corruption("planes: the stored form does not end with its last section");
  }
  std::copy_n(stored.data() + at, tail, raw.data() + raw.size() - tail);
  return ok_status();
}

}  // namespace caisson

// The inner loops of the float codecs: dividing elements into planes, and coding a stream of
// symbols as bit planes with escapes, or in Huffman codes. One table of functions per instruction
// set; every table computes the same bytes, and a test holds each against the scalar one. Pure: no
// allocation, no state.
//
// A level codes n symbols as groups of 64. With w = 2^bits - 1, a symbol in [low, low + w) has the
// code symbol - low; every other one escapes: its code is w (all ones), and the symbol, less w when
// it lies above the window, goes to the escapes, which the next level codes. A group is `bits`
// words of 64 bits, bit i of word j is bit j of the code of symbol i; missing symbols of the last
// group have the code 0.
//
// Slack: buffers of symbols and escapes may be read and written up to kSlack bytes past their end.
// Streams of `top`, `low`, planes and raw elements are exact, and so are all areas of
// encode_elements and decode_elements.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

#include "compression/float_layout.h"

namespace caisson {

inline constexpr size_t kSlack = 64;
inline constexpr size_t kGroup = 64;  // symbols in a group of planes
inline constexpr unsigned kLevelBitsMax = 7;

struct Level {
  uint8_t bits = 0;  // 1 .. kLevelBitsMax
  uint8_t low = 0;   // low + 2^bits - 1 <= 256
};

constexpr size_t groups_of(size_t symbols) { return (symbols + kGroup - 1) / kGroup; }
constexpr size_t plane_bytes(size_t symbols, unsigned bits) {
  return groups_of(symbols) * bits * sizeof(uint64_t);
}

// Which bits of `top` were ever one, and which were always one.
struct TopBits {
  uint8_t any = 0;
  uint8_t all = 0xff;
};

// A Huffman code: its highest bit is what a reader sees first.
inline constexpr unsigned kHuffmanLengthMax = 11;
struct HuffmanCode {
  uint16_t bits = 0;
  uint16_t length = 0;  // 0: a symbol that does not occur
};
using HuffmanCodes = std::array<HuffmanCode, 256>;

// How the elements of a section are stored.
struct Coding {
  FloatLayout layout = FloatLayout::kBf16;
  Level level;             // the first; with 0 bits symbols stand as they are, a byte each
  uint8_t varying = 0xff;  // bits of top that are stored: all, a byte each, or planes of some
  uint8_t constant = 0;    // decoding: the values of the others
};

// Where the parts of elements lie: what `Byte` points to is their first.
template <typename Byte>
struct AreasOf {
  Byte* top;
  Byte* low;
  Byte* symbols;  // the planes of the first level

  // Of what follows n elements; n is a multiple of kGroup.
  AreasOf behind(const Coding& coding, size_t n) const {
    const auto bits = static_cast<unsigned>(std::popcount(coding.varying));
    return {top + (coding.varying == 0xff ? n : plane_bytes(n, bits)),
            low + n * low_bytes(coding.layout),
            symbols + (coding.level.bits == 0 ? n : plane_bytes(n, coding.level.bits))};
  }
};
using ElementAreas = AreasOf<std::byte>;
using ConstElementAreas = AreasOf<const std::byte>;

struct PlaneKernels {
  const char* name;

  // Divides n elements. `symbols` has slack; `low` gets n * low_bytes(layout).
  void (*split)(FloatLayout layout, const std::byte* raw, size_t n, uint8_t* symbols, uint8_t* top,
                std::byte* low, TopBits* seen);
  // The inverse.
  void (*join)(FloatLayout layout, const uint8_t* symbols, const uint8_t* top, const std::byte* low,
               size_t n, std::byte* raw);

  // Codes n symbols; `planes` gets plane_bytes(n, level.bits). Gives the number of escapes.
  size_t (*encode_level)(Level level, const uint8_t* symbols, size_t n, std::byte* planes,
                         uint8_t* escapes);
  // The inverse. Gives the number of escapes used, or more than `escape_count` when they run out:
  // then `symbols` holds nothing of use.
  size_t (*decode_level)(Level level, const std::byte* planes, size_t n, const uint8_t* escapes,
                         size_t escape_count, uint8_t* symbols);

  // The bits of `top` that `mask` names, lowest first, as planes of groups; and back, the others
  // taken from `constant`. `top` has slack in unpack_bits.
  void (*pack_bits)(uint8_t mask, const uint8_t* top, size_t n, std::byte* planes);
  void (*unpack_bits)(uint8_t mask, uint8_t constant, const std::byte* planes, size_t n,
                      uint8_t* top);

  // All of the above for n elements. Gives the number of escapes.
  size_t (*encode_elements)(const Coding& coding, const std::byte* raw, size_t n, ElementAreas to,
                            uint8_t* escapes, TopBits* seen);
  // The inverse. Gives the number of escapes used, more than `escape_count` when they run out.
  size_t (*decode_elements)(const Coding& coding, ConstElementAreas from, size_t n,
                            const uint8_t* escapes, size_t escape_count, std::byte* raw);

  // The codes of n symbols as a stream that is read from its end, where a bit marks it. Gives the
  // end; writes up to eight bytes beyond.
  std::byte* (*write_codes)(const HuffmanCodes& codes, const uint8_t* symbols, size_t n,
                            std::byte* to);
};

const PlaneKernels& scalar_plane_kernels();
// The fastest table that this machine can run, asked once.
const PlaneKernels& plane_kernels();
// Every table that this machine can run, the scalar one first: for tests and measurements.
std::span<const PlaneKernels* const> runnable_plane_kernels();

}  // namespace caisson

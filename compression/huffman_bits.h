// Huffman codes and how they become bits: RFC 8878, 4.1 and 4.2. Internal linkage on purpose, as in
// plane_kernels_impl.h: sources of several instruction sets include it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "compression/plane_kernels.h"
#include "io/base/bytes.h"

namespace caisson {
namespace {  // NOLINT(google-build-namespaces): see above

// Bits, lowest first. A reader starts at the end.
class BitWriter {
 public:
  explicit BitWriter(std::byte* to) : at_(to) {}
  // At most 56 bits between two flushes.
  void add(uint64_t bits, unsigned count) {
    bits_ |= bits << filled_;
    filled_ += count;
  }
  // Writes whole bytes, and up to eight bytes beyond them.
  void flush() {
    store_le(at_, bits_);
    at_ += filled_ / 8;
    bits_ >>= filled_ & ~7u;
    filled_ &= 7;
  }
  // Fills the last byte; gives the end.
  std::byte* finish() {
    flush();
    if (filled_ > 0) *at_++ = static_cast<std::byte>(bits_);
    return at_;
  }

 private:
  std::byte* at_;
  uint64_t bits_ = 0;
  unsigned filled_ = 0;
};

// The symbols in front of `end`, the last one first, down to a multiple of `step` behind `symbols`.
// Gives what is left.
[[maybe_unused]] size_t add_codes(const HuffmanCodes& codes, const uint8_t* symbols, size_t n,
                                  size_t step, BitWriter& to) {
  for (; n % step != 0; --n) {
    const HuffmanCode code = codes[symbols[n - 1]];
    to.add(code.bits, code.length);
    to.flush();
  }
  return n;
}

[[maybe_unused]] std::byte* write_codes_in_turn(const HuffmanCodes& codes, const uint8_t* symbols,
                                                size_t n, std::byte* to) {
  constexpr size_t kAtOnce = 4;
  static_assert(kAtOnce * kHuffmanLengthMax <= 56);
  BitWriter bits(to);
  for (size_t i = add_codes(codes, symbols, n, kAtOnce, bits); i != 0; i -= kAtOnce) {
    const auto four = load_le<uint32_t>(reinterpret_cast<const std::byte*>(symbols) + i - kAtOnce);
    const HuffmanCode a = codes[four >> 24];
    const HuffmanCode b = codes[four >> 16 & 0xff];
    const HuffmanCode c = codes[four >> 8 & 0xff];
    const HuffmanCode d = codes[four & 0xff];
    // Two and two, so that not each waits for the one before.
    bits.add(a.bits | (uint64_t{b.bits} << a.length), a.length + b.length);
    bits.add(c.bits | (uint64_t{d.bits} << c.length), c.length + d.length);
    bits.flush();
  }
  bits.add(1, 1);
  return bits.finish();
}

}  // namespace
}  // namespace caisson

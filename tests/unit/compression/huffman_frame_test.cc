// Frames of Huffman codes: what libzstd reads back, whatever the symbols, and the same bytes from
// every table of kernels.
#include "compression/huffman_frame.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>
#include <string>
#include <vector>

#include "compression/codecs.h"
#include "compression/plane_kernels.h"

namespace caisson {
namespace {

ByteVector symbols_of(std::mt19937_64& random, size_t n, unsigned kind) {
  std::geometric_distribution<int> distance(0.02 + 0.9 * static_cast<double>(random() % 100) / 100);
  const uint64_t centre = random() % 256;
  const uint64_t different = 1 + random() % 256;
  ByteVector symbols(n);
  for (std::byte& symbol : symbols) {
    uint64_t s = random();                                                // 0: any
    if (kind == 1) s %= different;                                        // the first few
    if (kind == 2) s = centre + static_cast<unsigned>(distance(random));  // as exponents are
    if (kind == 3) s = s % 100 == 0 ? random() : centre;                  // one common, others rare
    if (kind == 4)
      s = centre ^ static_cast<unsigned>(std::countr_zero(s | 1ull << 40));  // deep trees
    if (kind == 5) s = s % 3 == 0 ? centre : 255;                            // two
    if (kind == 6) s = centre;                                               // one
    symbol = static_cast<std::byte>(s);
  }
  return symbols;
}

TEST(HuffmanFrame, IsReadBackWhateverTheSymbols) {
  std::mt19937_64 random(1);
  CodecContext context;
  size_t frames = 0;
  for (unsigned turn = 0; turn < 1500; ++turn) {
    size_t n = random() % 6000;
    if (turn % 50 == 0) n = 65536;
    if (turn % 199 == 0) n = kHuffmanSymbolsMax - random() % 9;
    SCOPED_TRACE("turn " + std::to_string(turn) + ", " + std::to_string(n) + " symbols");
    const ByteVector symbols = symbols_of(random, n, turn % 7);
    ByteVector to(n);
    const size_t bytes = encode_huffman_frame(symbols, to);
    if (bytes == 0) continue;
    ++frames;
    ASSERT_LT(bytes, n);
    to.resize(bytes);
    to.shrink_to_fit();
    ByteVector back(n);
    ASSERT_TRUE(entropy_decode(context, to, back).ok());
    ASSERT_EQ(back, symbols);
  }
  EXPECT_GT(frames, 500u);
}

TEST(HuffmanFrame, GivesUpWhereThereIsNoRoomOrNothingToGain) {
  std::mt19937_64 random(2);
  const ByteVector symbols = symbols_of(random, 4096, 2);
  ByteVector to(symbols.size());
  const size_t bytes = encode_huffman_frame(symbols, to);
  ASSERT_GT(bytes, 0u);
  for (const size_t room : {size_t{0}, size_t{1}, bytes / 2, bytes - 1, bytes}) {
    ByteVector less(room);
    EXPECT_EQ(encode_huffman_frame(symbols, less), 0u) << room;
  }
  EXPECT_EQ(encode_huffman_frame(symbols_of(random, 4096, 0), to), 0u);  // noise
  EXPECT_EQ(encode_huffman_frame(symbols_of(random, 4096, 6), to), 0u);  // one symbol
  EXPECT_EQ(encode_huffman_frame(Bytes(symbols).first(100), to), 0u);
  EXPECT_EQ(encode_huffman_frame(ByteVector(kHuffmanSymbolsMax + 1), to), 0u);
}

TEST(HuffmanFrame, CodesAreTheScalarOnesFromEveryTable) {
  std::mt19937_64 random(3);
  HuffmanCodes codes;
  for (HuffmanCode& code : codes) {
    code.length = static_cast<uint16_t>(1 + random() % kHuffmanLengthMax);
    code.bits = static_cast<uint16_t>(random() & ((1u << code.length) - 1));
  }
  constexpr size_t kBeyond = 8;
  for (const PlaneKernels* kernels : runnable_plane_kernels()) {
    for (const size_t n : {0, 1, 3, 4, 63, 64, 65, 127, 128, 1000, 4096, 4099}) {
      SCOPED_TRACE(std::string(kernels->name) + ", " + std::to_string(n));
      std::vector<uint8_t> symbols(n);
      for (uint8_t& symbol : symbols) symbol = static_cast<uint8_t>(random());
      ByteVector want(2 * n + 1 + kBeyond), got(want.size());
      const auto* const want_end =
          scalar_plane_kernels().write_codes(codes, symbols.data(), n, want.data());
      const auto* const got_end = kernels->write_codes(codes, symbols.data(), n, got.data());
      ASSERT_EQ(got_end - got.data(), want_end - want.data());
      want.resize(static_cast<size_t>(want_end - want.data()));
      got.resize(want.size());
      EXPECT_EQ(got, want);
    }
  }
}

}  // namespace
}  // namespace caisson

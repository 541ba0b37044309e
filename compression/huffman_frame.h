// A zstd frame (RFC 8878) of one block of literals in Huffman codes, without matches: what libzstd
// makes when it is told to look for none, in less time. Any zstd decoder reads it. Pure: no
// allocation, no state.
#pragma once

#include <cstddef>

#include "io/base/bytes.h"

namespace caisson {

// Symbols of a frame: what a block holds.
inline constexpr size_t kHuffmanSymbolsMax = 128 * 1024;

// Gives the size of the frame; 0 where it would not be smaller than `to`, or where Huffman codes
// are not the means: fewer than two different symbols, or more than kHuffmanSymbolsMax.
size_t encode_huffman_frame(Bytes symbols, MutableBytes to);

}  // namespace caisson

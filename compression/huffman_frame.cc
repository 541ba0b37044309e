// 1 count the symbols, 2 lengths of their codes, 3 the codes, 4 frame and block headers, 5 the tree
// as an FSE stream of weights, 6 four streams of codes. Sections named here are those of RFC 8878.
#include "compression/huffman_frame.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <optional>

#include "compression/huffman_bits.h"
#include "io/base/check.h"

namespace caisson {
namespace {

constexpr size_t kSymbols = 256;
constexpr size_t kSymbolsMin = 256;  // below it headers eat the gain

using Counts = std::array<uint32_t, kSymbols>;
using Lengths = std::array<uint8_t, kSymbols>;

// A table for each part, because to count what was just counted is to wait for that.
Counts count(Bytes symbols) {
  constexpr size_t kParts = 8;
  std::array<Counts, kParts> counts{};
  const size_t part = symbols.size() / kParts / 4 * 4;
  for (size_t i = 0; i < part; i += 4) {
    std::array<uint32_t, kParts> fours;
    for (size_t k = 0; k < kParts; ++k) {
      fours[k] = load_le<uint32_t>(symbols.data() + k * part + i);
    }
    for (unsigned j = 0; j < 32; j += 8) {
      for (size_t k = 0; k < kParts; ++k) ++counts[k][fours[k] >> j & 0xff];
    }
  }
  for (const std::byte s : symbols.subspan(kParts * part)) ++counts[0][static_cast<uint8_t>(s)];
  for (size_t k = 1; k < kParts; ++k) {
    for (size_t s = 0; s < kSymbols; ++s) counts[0][s] += counts[k][s];
  }
  return counts[0];
}

// ---- 2 lengths

struct Leaf {
  uint32_t count;
  uint8_t symbol;
};

// Lengths of the codes of an optimal tree over leaves in ascending order; gives the longest one.
unsigned tree_lengths(const std::array<Leaf, kSymbols>& leaves, size_t n, Lengths& lengths) {
  // Nodes: the leaves, then the inner ones in the order in which they are made, which is ascending.
  std::array<uint32_t, 2 * kSymbols> weight;
  std::array<uint16_t, 2 * kSymbols> parent;
  for (size_t i = 0; i < n; ++i) weight[i] = leaves[i].count;
  size_t leaf = 0;
  size_t inner = n;
  const size_t root = 2 * n - 2;
  for (size_t made = n; made <= root; ++made) {
    weight[made] = 0;
    for (unsigned child = 0; child < 2; ++child) {
      const bool from_leaves = leaf < n && (inner == made || weight[leaf] <= weight[inner]);
      const size_t least = from_leaves ? leaf++ : inner++;
      weight[made] += weight[least];
      parent[least] = static_cast<uint16_t>(made);
    }
  }
  std::array<uint8_t, 2 * kSymbols> depth;
  depth[root] = 0;
  unsigned longest = 0;
  for (size_t i = root; i-- > 0;) {
    depth[i] = static_cast<uint8_t>(depth[parent[i]] + 1);
    if (i >= n) continue;
    lengths[leaves[i].symbol] = depth[i];
    longest = std::max<unsigned>(longest, depth[i]);
  }
  return longest;
}

// Lengths of at most kHuffmanLengthMax; gives the longest one, 0 for fewer than two symbols. Where
// the tree is too deep the rarest symbols are taken for more frequent than they are.
unsigned code_lengths(const Counts& counts, uint32_t total, Lengths& lengths) {
  std::array<Leaf, kSymbols> leaves;
  size_t n = 0;
  for (size_t s = 0; s < kSymbols; ++s) {
    if (counts[s] != 0) leaves[n++] = {counts[s], static_cast<uint8_t>(s)};
  }
  if (n < 2) return 0;
  std::sort(leaves.begin(), leaves.begin() + n, [](const Leaf& a, const Leaf& b) {
    return a.count != b.count ? a.count < b.count : a.symbol < b.symbol;
  });
  lengths = {};
  for (uint32_t least = std::max(total >> (kHuffmanLengthMax + 1), 1u);; least *= 2) {
    const unsigned longest = tree_lengths(leaves, n, lengths);
    if (longest <= kHuffmanLengthMax) return longest;
    for (size_t i = 0; i < n && leaves[i].count < least; ++i) leaves[i].count = least;
  }
}

// ---- 3 codes

// 4.2.1.3: longest first, equally long ones in the order of their symbols.
HuffmanCodes codes_of(const Lengths& lengths, unsigned longest) {
  HuffmanCodes codes{};
  uint16_t next = 0;
  for (unsigned length = longest; length > 0; --length) {
    for (size_t s = 0; s < kSymbols; ++s) {
      if (lengths[s] == length) codes[s] = {next++, static_cast<uint16_t>(length)};
    }
    next = static_cast<uint16_t>(next >> 1);
  }
  return codes;
}

// ---- 5 the tree

constexpr unsigned kAccuracy = 6;  // 4.2.1.2: the most for weights
constexpr unsigned kStates = 1u << kAccuracy;
constexpr size_t kWeights = kHuffmanLengthMax + 1;
constexpr size_t kTreeBytesMax = 127;

using Shares = std::array<unsigned, kWeights>;  // of kStates, at least one for each weight in use

// `used`: how many weights there are, from 0 on.
Shares shares_of(const std::array<unsigned, kWeights>& counts, size_t used, size_t total) {
  Shares shares{};
  unsigned left = kStates;
  for (size_t w = 0; w < used; ++w) {
    shares[w] = std::max(1u, static_cast<unsigned>(counts[w] * kStates / total));
    left -= shares[w];  // wraps where too much is given
  }
  // What is missing, or too much, is made up for by the largest.
  while (left != 0) {
    unsigned& largest = *std::max_element(shares.begin(), shares.begin() + used);
    const bool more = left <= kStates;
    largest += more ? left : 0u - 1u;
    left = more ? 0 : left + 1;
  }
  return shares;
}

// 4.1.1: the shares, each in as few bits as what is left of the states calls for.
void write_shares(const Shares& shares, size_t used, BitWriter& to) {
  to.add(kAccuracy - 5, 4);
  unsigned left = kStates + 1;
  for (size_t w = 0; w < used; ++w) {
    CAISSON_CHECK(left > 0);  // the shares add up to one less
    const unsigned bits = static_cast<unsigned>(std::bit_width(left));
    const unsigned half = 1u << (bits - 1);
    // Values below it have a bit less.
    const unsigned shorter = 2 * half - 1 - left;
    const unsigned value = shares[w] + 1;
    if (value < shorter) {
      to.add(value, bits - 1);
    } else {
      to.add(value < half ? value : value + shorter, bits);
    }
    left -= shares[w];
    to.flush();
  }
}

// Where the states of a weight lie, in ascending order.
struct States {
  std::array<std::array<uint8_t, kStates>, kWeights> at;
  explicit States(const Shares& shares) {
    std::array<uint8_t, kStates> weight_at;
    constexpr unsigned kStep = (kStates >> 1) + (kStates >> 3) + 3;
    unsigned position = 0;
    for (size_t w = 0; w < kWeights; ++w) {
      for (unsigned i = 0; i < shares[w]; ++i) {
        weight_at[position] = static_cast<uint8_t>(w);
        position = (position + kStep) % kStates;
      }
    }
    std::array<unsigned, kWeights> filled{};
    for (unsigned state = 0; state < kStates; ++state) {
      const uint8_t w = weight_at[state];
      at[w][filled[w]++] = static_cast<uint8_t>(state);
    }
  }
};

// One of the two encoders that take turns.
class WeightEncoder {
 public:
  WeightEncoder(const Shares& shares, const States& states) : shares_(shares), states_(states) {}

  void encode(uint8_t weight, BitWriter& to) {
    const unsigned share = shares_[weight];
    // The first weight costs nothing: any state of it will do.
    if (state_) {
      const unsigned from = kStates + *state_;
      unsigned bits = 0;
      while (from >> bits >= 2 * share) ++bits;
      to.add(from & ((1u << bits) - 1), bits);
      to.flush();
      state_ = states_.at[weight][(from >> bits) - share];
    } else {
      state_ = states_.at[weight][0];
    }
  }
  void finish(BitWriter& to) const {
    to.add(*state_, kAccuracy);
    to.flush();
  }

 private:
  const Shares& shares_;
  const States& states_;
  std::optional<unsigned> state_;
};

// 4.2.1.1 and 4.2.1.2. Gives the bytes of the tree; 0 when it does not fit, or says too little.
size_t write_tree(const Lengths& lengths, unsigned longest, std::byte* to) {
  size_t last = kSymbols - 1;  // its weight follows from the others
  while (lengths[last] == 0) --last;
  if (last < 2) return 0;
  std::array<uint8_t, kSymbols> weights;
  std::array<unsigned, kWeights> counts{};
  size_t used = 0;
  for (size_t s = 0; s < last; ++s) {
    weights[s] = static_cast<uint8_t>(lengths[s] == 0 ? 0 : longest + 1 - lengths[s]);
    ++counts[weights[s]];
    used = std::max<size_t>(used, weights[s] + 1u);
  }
  const Shares shares = shares_of(counts, used, last);
  BitWriter head(to + 1);
  write_shares(shares, used, head);
  BitWriter bits(head.finish());
  const States states(shares);
  std::array<WeightEncoder, 2> encoders = {WeightEncoder(shares, states),
                                           WeightEncoder(shares, states)};
  for (size_t s = last; s-- > 0;) encoders[s % 2].encode(weights[s], bits);
  encoders[1].finish(bits);
  encoders[0].finish(bits);
  bits.add(1, 1);  // where the stream ends
  const auto bytes = static_cast<size_t>(bits.finish() - to) - 1;
  if (bytes > kTreeBytesMax) return 0;
  to[0] = static_cast<std::byte>(bytes);
  return bytes + 1;
}

// ---- 4 headers

constexpr size_t kFrameHead = 4 + 1 + 4;
constexpr size_t kBlockHead = 3;
constexpr size_t kLiteralsHead = 5;
constexpr size_t kTreeAt = kFrameHead + kBlockHead + kLiteralsHead;
// A tree is known to be too large only when it is written, and writers go eight bytes beyond.
constexpr size_t kTreeRoom = 512;
constexpr size_t kStreams = 4;
constexpr size_t kJumps = 2 * (kStreams - 1);

// `literals`: the bytes of tree, jump table and streams.
void write_heads(size_t symbols, size_t literals, std::byte* to) {
  store_le(to, uint32_t{0xfd2fb528});
  to[4] = std::byte{0xa0};  // 3.1.1.1: the content's size in four bytes, one segment, no checksum
  store_le(to + 5, static_cast<uint32_t>(symbols));
  const auto block = static_cast<uint32_t>(kLiteralsHead + literals + 1);
  const uint64_t block_head = 1 | 2u << 1 | uint64_t{block} << 3;  // 3.1.1.2: the last, compressed
  // 3.1.1.3.1.1: with a tree, four streams, sizes of 18 bits.
  const uint64_t literals_head = 2 | 3u << 2 | uint64_t{symbols} << 4 | uint64_t{literals} << 22;
  // Eight bytes together.
  store_le(to + kFrameHead, block_head | literals_head << (8 * kBlockHead));
}

}  // namespace

size_t encode_huffman_frame(Bytes symbols, MutableBytes to) {
  const size_t n = symbols.size();
  if (n < kSymbolsMin || n > kHuffmanSymbolsMax) return 0;
  const Counts counts = count(symbols);
  Lengths lengths;
  const unsigned longest = code_lengths(counts, static_cast<uint32_t>(n), lengths);
  if (longest == 0) return 0;
  uint64_t bits = 0;
  for (size_t s = 0; s < kSymbols; ++s) bits += uint64_t{counts[s]} * lengths[s];
  if (bits / 8 + kTreeAt + kTreeRoom + kJumps >= std::min(n, to.size())) return 0;
  std::byte* const tree = to.data() + kTreeAt;
  const size_t tree_bytes = write_tree(lengths, longest, tree);
  if (tree_bytes == 0) return 0;
  const HuffmanCodes codes = codes_of(lengths, longest);
  std::byte* const jumps = tree + tree_bytes;
  std::byte* end = jumps + kJumps;
  // 6: all streams but the last have as many symbols.
  const size_t quarter = (n + kStreams - 1) / kStreams;
  for (size_t k = 0; k < kStreams; ++k) {
    const auto* const from = reinterpret_cast<const uint8_t*>(symbols.data()) + k * quarter;
    std::byte* const start = end;
    end = plane_kernels().write_codes(codes, from, std::min(quarter, n - k * quarter), start);
    if (k + 1 < kStreams) store_le(jumps + 2 * k, static_cast<uint16_t>(end - start));
  }
  *end++ = std::byte{0};  // no sequences
  write_heads(n, static_cast<size_t>(end - tree) - 1, to.data());
  return static_cast<size_t>(end - to.data());
}

}  // namespace caisson

// A cascade: up to four levels (plane_kernels.h) that code a stream of symbols, each the escapes of
// the one before. Two bits for the three commonest exponents, two more for the next three, and so
// on: a prefix code of groups, within a few percent of the entropy and free of bit-serial loops.
// Pure; deterministic.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "compression/plane_kernels.h"

namespace caisson {

inline constexpr unsigned kLevelsMax = 4;

struct Cascade {
  std::array<Level, kLevelsMax> levels{};
  unsigned count = 0;        // 0: every symbol is stored as a byte
  double bits_a_symbol = 8;  // what the sample would have cost
  std::span<const Level> used() const { return std::span(levels).first(count); }
};

using SymbolCounts = std::array<uint32_t, 256>;

// The cascade that codes symbols of these counts in the fewest bits.
Cascade plan_cascade(const SymbolCounts& counts);
// Bits a symbol that no code of single symbols goes below; 0 without any.
double entropy_bits(const SymbolCounts& counts);

}  // namespace caisson

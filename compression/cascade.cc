#include "compression/cascade.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace caisson {
namespace {

// The first level's windows may have up to 15 symbols, later ones up to 7: beyond that another
// level is always cheaper.
constexpr unsigned kFirstBitsMax = 4;
constexpr unsigned kLaterBitsMax = 3;
constexpr unsigned kWindowMax = 1u << kFirstBitsMax;
// A level costs time on every symbol that reaches it. It must save this many bits on each of them.
constexpr double kLevelCost = 0.03;
constexpr double kBitsOfByte = 8;

// Counts of the symbols that are left, those of the windows so far cut out: its own little axis.
// A plan makes a hundred of them, so counts are there from a window before `first` to one behind
// `last` only.
struct Axis {
  std::array<uint32_t, 256 + kWindowMax> counts;
  unsigned size = 256;  // symbols on the axis
  unsigned first = 0;   // the range outside of which every count is zero
  unsigned last = 0;
  uint64_t total = 0;
};

struct Best {
  double bits = 0;  // of all symbols together
  std::array<Level, kLevelsMax> levels{};
  unsigned count = 0;
};

struct Window {
  unsigned low = 0;
  uint64_t covered = 0;
};

Window best_window(const Axis& axis, unsigned width) {
  // A window that would start before the first symbol in use gains nothing by it.
  const unsigned from = std::min(axis.first, axis.size - width);
  uint64_t sum = 0;
  for (unsigned i = 0; i < width; ++i) sum += axis.counts[from + i];
  Window best{.low = from, .covered = sum};
  for (unsigned low = from + 1; low + width <= axis.size && low <= axis.last; ++low) {
    sum += axis.counts[low + width - 1];
    sum -= axis.counts[low - 1];
    if (sum > best.covered) best = {.low = low, .covered = sum};
  }
  return best;
}

Axis without(const Axis& axis, Window window, unsigned width) {
  Axis rest;
  rest.size = axis.size - width;
  rest.total = axis.total - window.covered;
  rest.first = std::min(axis.first, window.low);
  const unsigned end = window.low + width;
  const unsigned last = axis.last >= end ? axis.last - width : std::min(axis.last, window.low);
  rest.last = std::min(last, rest.size - 1);
  std::fill(rest.counts.begin() + rest.first - std::min(rest.first, kWindowMax),
            rest.counts.begin() + rest.first, 0u);
  // Up to the window; then what lies behind it, moved down; then nothing.
  const auto below = std::copy(axis.counts.begin() + rest.first, axis.counts.begin() + window.low,
                               rest.counts.begin() + rest.first);
  const auto above = axis.last < end ? below
                                     : std::copy(axis.counts.begin() + end,
                                                 axis.counts.begin() + axis.last + 1, below);
  std::fill(above, rest.counts.begin() + rest.last + 1 + kWindowMax, 0u);
  return rest;
}

Best best_of(const Axis& axis, unsigned depth) {
  Best best{.bits = kBitsOfByte * static_cast<double>(axis.total)};
  if (depth == kLevelsMax || axis.total == 0) return best;
  const unsigned bits_max = depth == 0 ? kFirstBitsMax : kLaterBitsMax;
  for (unsigned bits = 1; bits <= bits_max; ++bits) {
    const unsigned width = (1u << bits) - 1;
    const double here = (bits + kLevelCost) * static_cast<double>(axis.total);
    if (here >= best.bits) break;
    const Window window = best_window(axis, width);
    // What is left costs a bit each at the very least, bytes behind the last level.
    const double least = depth + 1 == kLevelsMax ? kBitsOfByte : 1 + kLevelCost;
    if (here + least * static_cast<double>(axis.total - window.covered) >= best.bits) continue;
    const Best rest = best_of(without(axis, window, width), depth + 1);
    if (here + rest.bits >= best.bits) continue;
    best.bits = here + rest.bits;
    best.count = rest.count + 1;
    best.levels[0] = {.bits = static_cast<uint8_t>(bits), .low = static_cast<uint8_t>(window.low)};
    std::copy_n(rest.levels.begin(), rest.count, best.levels.begin() + 1);
  }
  return best;
}

}  // namespace

Cascade plan_cascade(const SymbolCounts& counts) {
  Axis axis{};
  std::copy(counts.begin(), counts.end(), axis.counts.begin());
  axis.total = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
  if (axis.total == 0) return {};
  while (counts[axis.first] == 0) ++axis.first;
  axis.last = 255;
  while (counts[axis.last] == 0) --axis.last;
  const Best best = best_of(axis, 0);
  return {.levels = best.levels,
          .count = best.count,
          .bits_a_symbol = best.bits / static_cast<double>(axis.total)};
}

double entropy_bits(const SymbolCounts& counts) {
  double total = 0, weighted = 0;
  for (const uint32_t count : counts) {
    if (count == 0) continue;
    total += count;
    weighted += count * std::log2(static_cast<double>(count));
  }
  return total == 0 ? 0 : std::log2(total) - weighted / total;
}

}  // namespace caisson

// Strided copies between tensor memory and packed pieces: stage 1 of save (gather) and stage 6 of
// restore (place), called by the pipelines' workers for pieces that are not contiguous already.
// Pure, hence thread-safe. A sub-byte element has no address, so such boxes are turned into boxes
// of bytes first (byte_cut says along which axis) and their memory must be contiguous.
#include "engine/copy_box.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "engine/tiling.h"
#include "io/base/check.h"

namespace caisson {
namespace {

// One loop of a copy: how often, and how far each side moves a turn.
struct Axis {
  uint64_t extent = 0;
  int64_t from = 0;
  int64_t to = 0;
};

// Nested loops, outermost first, around a contiguous run of `run` bytes.
struct Loops {
  std::array<Axis, kRankMax> axes;
  size_t rank = 0;
  size_t run = 0;

  uint64_t bytes() const {
    uint64_t bytes = run;
    for (size_t i = 0; i < rank; ++i) bytes *= axes[i].extent;
    return bytes;
  }
  // Joins the axis to the one outside it where both sides just continue.
  void push(const Axis& axis) {
    if (axis.extent == 1) return;
    const auto whole = [&](int64_t stride) { return stride * static_cast<int64_t>(axis.extent); };
    if (rank > 0 && axes[rank - 1].from == whole(axis.from) &&
        axes[rank - 1].to == whole(axis.to)) {
      axes[rank - 1] = {axes[rank - 1].extent * axis.extent, axis.from, axis.to};
    } else {
      axes[rank++] = axis;
    }
  }
  // After the last push: an innermost axis that is contiguous on both sides is the run.
  void take_run() {
    if (rank == 0) return;
    const Axis& inner = axes[rank - 1];
    if (inner.from != static_cast<int64_t>(run) || inner.to != static_cast<int64_t>(run)) return;
    run *= inner.extent;
    --rank;
  }
};

template <size_t kRun>
void copy_fixed_runs(const Axis& axis, const std::byte* from, std::byte* to) {
  for (uint64_t i = 0; i < axis.extent; ++i, from += axis.from, to += axis.to) {
    std::memcpy(to, from, kRun);
  }
}

// A call of memcpy costs more than a small run, so these get loops that compile to moves.
void copy_runs(const Axis& axis, size_t run, const std::byte* from, std::byte* to) {
  switch (run) {
    case 1:
      return copy_fixed_runs<1>(axis, from, to);
    case 2:
      return copy_fixed_runs<2>(axis, from, to);
    case 4:
      return copy_fixed_runs<4>(axis, from, to);
    case 8:
      return copy_fixed_runs<8>(axis, from, to);
    case 16:
      return copy_fixed_runs<16>(axis, from, to);
    case 32:
      return copy_fixed_runs<32>(axis, from, to);
    default:
      break;
  }
  for (uint64_t i = 0; i < axis.extent; ++i, from += axis.from, to += axis.to) {
    std::memcpy(to, from, run);
  }
}

// Two loops that run against each other (a transposed tensor): in blocks, so that each side's cache
// lines are used up while they are there.
void copy_blocks(const Axis& outer, const Axis& inner, size_t run, const std::byte* from,
                 std::byte* to) {
  constexpr uint64_t kBlock = 32;
  for (uint64_t i = 0; i < outer.extent; i += kBlock) {
    const uint64_t rows = std::min(kBlock, outer.extent - i);
    for (uint64_t j = 0; j < inner.extent; j += kBlock) {
      const Axis part{std::min(kBlock, inner.extent - j), inner.from, inner.to};
      for (uint64_t row = i; row < i + rows; ++row) {
        const auto at = [&](int64_t outer_stride, int64_t inner_stride) {
          return static_cast<int64_t>(row) * outer_stride + static_cast<int64_t>(j) * inner_stride;
        };
        copy_runs(part, run, from + at(outer.from, inner.from), to + at(outer.to, inner.to));
      }
    }
  }
}

bool runs_against(const Axis& outer, const Axis& inner) {
  return std::abs(inner.from) > std::abs(outer.from) || std::abs(inner.to) > std::abs(outer.to);
}

void copy_loops(const Loops& loops, size_t depth, const std::byte* from, std::byte* to) {
  const size_t left = loops.rank - depth;
  if (left == 0) {
    std::memcpy(to, from, loops.run);
  } else if (left == 1) {
    copy_runs(loops.axes[depth], loops.run, from, to);
  } else if (left == 2 && loops.run <= 16 &&
             runs_against(loops.axes[depth], loops.axes[depth + 1])) {
    copy_blocks(loops.axes[depth], loops.axes[depth + 1], loops.run, from, to);
  } else {
    const Axis& axis = loops.axes[depth];
    for (uint64_t i = 0; i < axis.extent; ++i, from += axis.from, to += axis.to) {
      copy_loops(loops, depth + 1, from, to);
    }
  }
}

// How boxes of elements are addressed: as they are, or, of sub-byte types, as boxes of bytes.
class Addressing {
 public:
  // `memory_box`: what the caller's memory holds; all other boxes lie within it.
  Addressing(const Box& memory_box, DType dtype) {
    bytes_ = dtype.bits / 8;
    rank_ = memory_box.rank;
    if (dtype.bits % 8 == 0) return;
    const std::optional<ByteCut> cut =
        byte_cut({memory_box.extent.data(), static_cast<size_t>(memory_box.rank)}, dtype);
    CAISSON_CHECK(cut.has_value());
    bytes_ = 1;
    rank_ = cut->axis + 1;
    bits_ = dtype.bits;
    for (int i = rank_; i < memory_box.rank; ++i)
      bits_ *= memory_box.extent[static_cast<size_t>(i)];
  }

  size_t element_bytes() const { return bytes_; }
  // The same box in addressable units.
  Box units(const Box& box) const {
    if (bits_ == 0) return box;
    Box units = box;
    units.rank = rank_;
    const size_t last = static_cast<size_t>(rank_ - 1);
    units.offset[last] = box.offset[last] * bits_ / 8;
    units.extent[last] = box.extent[last] * bits_ / 8;
    return units;
  }
  std::array<int64_t, kRankMax> strides(const BoxMemory& memory) const {
    if (bits_ != 0) return packed_strides(units(memory.box));
    CAISSON_CHECK(memory.strides_bytes.size() == static_cast<size_t>(memory.box.rank));
    std::array<int64_t, kRankMax> strides{};
    std::copy(memory.strides_bytes.begin(), memory.strides_bytes.end(), strides.begin());
    return strides;
  }
  // Of a row-major box without gaps, in bytes.
  std::array<int64_t, kRankMax> packed_strides(const Box& units) const {
    std::array<int64_t, kRankMax> strides{};
    uint64_t stride = bytes_;
    for (size_t i = static_cast<size_t>(units.rank); i-- > 0;) {
      strides[i] = static_cast<int64_t>(stride);
      stride *= units.extent[i];
    }
    return strides;
  }

 private:
  size_t bytes_ = 1;
  int rank_ = 0;
  uint64_t bits_ = 0;  // of one step along the last axis of the unit boxes; 0: elements have bytes
};

// Where `inner` starts in memory that holds `outer`.
int64_t offset_within(const Box& outer, const Box& inner,
                      const std::array<int64_t, kRankMax>& strides) {
  int64_t offset = 0;
  for (size_t i = 0; i < static_cast<size_t>(inner.rank); ++i) {
    offset += static_cast<int64_t>(inner.offset[i] - outer.offset[i]) * strides[i];
  }
  return offset;
}

Loops make_loops(const Box& units, size_t element_bytes, const std::array<int64_t, kRankMax>& from,
                 const std::array<int64_t, kRankMax>& to) {
  Loops loops;
  loops.run = element_bytes;
  for (size_t i = 0; i < static_cast<size_t>(units.rank); ++i) {
    loops.push({units.extent[i], from[i], to[i]});
  }
  loops.take_run();
  return loops;
}

// Runs from this on are worth a call each; shorter ones are packed first and hashed from the cache.
constexpr size_t kHashedRunBytesMin = 256;
constexpr size_t kAheadBytes = 1024;  // asked for before they are needed
constexpr size_t kLineBytes = 64;

// A piece as loops over runs of the caller's memory, in the order in which gather packs them.
struct Runs {
  Loops loops;
  const std::byte* first = nullptr;
};

Runs runs_of(const BoxMemory& from, const Box& piece, DType dtype) {
  CAISSON_CHECK(contains(from.box, piece));
  const Addressing addressing(from.box, dtype);
  const Box inner = addressing.units(piece);
  const auto strides = addressing.strides(from);
  return {.loops = make_loops(inner, addressing.element_bytes(), strides,
                              addressing.packed_strides(inner)),
          .first = from.data + offset_within(addressing.units(from.box), inner, strides)};
}

// Runs are short and far apart, so the processor's own prefetching starts anew with each: asking
// for the runs to come made strided tiles as fast as contiguous ones.
void add_runs(const Loops& loops, size_t depth, const std::byte* from, DigestStream& stream) {
  if (depth == loops.rank) return stream.add({from, loops.run});
  const Axis& axis = loops.axes[depth];
  const bool innermost = depth + 1 == loops.rank;
  const uint64_t runs_ahead = std::max<uint64_t>(1, kAheadBytes / loops.run);
  for (uint64_t i = 0; i < axis.extent; ++i, from += axis.from) {
    if (innermost && i + runs_ahead < axis.extent) {
      const std::byte* const ahead = from + static_cast<int64_t>(runs_ahead) * axis.from;
      for (size_t at = 0; at < std::min(loops.run, kAheadBytes); at += kLineBytes) {
        __builtin_prefetch(ahead + at);
      }
    }
    add_runs(loops, depth + 1, from, stream);
  }
}

// Whether each run of `left` ends where that of `right` begins.
bool lie_side_by_side(const Runs& left, const Runs& right) {
  const auto same = [](const Axis& a, const Axis& b) {
    return a.extent == b.extent && a.from == b.from;
  };
  const auto& axes = left.loops.axes;
  return left.loops.run == right.loops.run && left.loops.rank == right.loops.rank &&
         std::equal(axes.begin(), axes.begin() + left.loops.rank, right.loops.axes.begin(), same) &&
         left.first + left.loops.run == right.first;
}

void add_side_by_side(const Loops& loops, size_t depth, const std::byte* from,
                      std::span<DigestStream> streams) {
  if (depth == loops.rank) {
    for (DigestStream& stream : streams) {
      stream.add({from, loops.run});
      from += loops.run;
    }
    return;
  }
  const Axis& axis = loops.axes[depth];
  for (uint64_t i = 0; i < axis.extent; ++i, from += axis.from) {
    add_side_by_side(loops, depth + 1, from, streams);
  }
}

// The part `common` of a packed piece on its way to memory that holds all of it.
struct Placing {
  Loops loops;
  const std::byte* from = nullptr;
  std::byte* to = nullptr;
};

Placing placing_of(Bytes from, const Box& piece, const Box& common, DType dtype,
                   const BoxMemory& to) {
  const Addressing addressing(to.box, dtype);
  const Box source = addressing.units(piece);
  const Box wanted = addressing.units(common);
  CAISSON_CHECK(from.size() == source.elements() * addressing.element_bytes());
  const auto from_strides = addressing.packed_strides(source);
  const auto to_strides = addressing.strides(to);
  return {.loops = make_loops(wanted, addressing.element_bytes(), from_strides, to_strides),
          .from = from.data() + offset_within(source, wanted, from_strides),
          .to = to.data + offset_within(addressing.units(to.box), wanted, to_strides)};
}

void place_runs(const Loops& loops, size_t depth, const std::byte* from, std::byte* to,
                DigestStream& stream) {
  if (depth == loops.rank) return stream.add_copied({from, loops.run}, to);
  const Axis& axis = loops.axes[depth];
  for (uint64_t i = 0; i < axis.extent; ++i, from += axis.from, to += axis.to) {
    place_runs(loops, depth + 1, from, to, stream);
  }
}

}  // namespace

void gather(const BoxMemory& from, const Box& piece, DType dtype, MutableBytes to) {
  if (to.empty()) return;
  CAISSON_CHECK(contains(from.box, piece));
  const Runs runs = runs_of(from, piece, dtype);
  CAISSON_CHECK(to.size() == runs.loops.bytes());
  copy_loops(runs.loops, 0, runs.first, to.data());
}

Digest gather_hashed(const BoxMemory& from, const Box& piece, DType dtype, MutableBytes to,
                     CopyStores stores) {
  if (to.empty()) return digest_of(to);
  const Runs runs = runs_of(from, piece, dtype);
  CAISSON_CHECK(to.size() == runs.loops.bytes());
  if (runs.loops.run < kHashedRunBytesMin && runs.loops.rank > 0) {
    copy_loops(runs.loops, 0, runs.first, to.data());
    return digest_of(to);
  }
  DigestStream stream(to.size(), to.data(), stores);
  add_runs(runs.loops, 0, runs.first, stream);
  return stream.finish();
}

std::optional<Digest> digest_in_place(const BoxMemory& from, const Box& piece, DType dtype) {
  const Runs runs = runs_of(from, piece, dtype);
  if (runs.loops.rank == 0) return digest_of({runs.first, runs.loops.run});
  if (runs.loops.run < kHashedRunBytesMin) return std::nullopt;
  DigestStream stream(runs.loops.bytes(), nullptr, CopyStores::kCached);
  add_runs(runs.loops, 0, runs.first, stream);
  return stream.finish();
}

size_t count_side_by_side(const BoxMemory& from, std::span<const Box> pieces, DType dtype) {
  if (pieces.empty()) return 0;
  Runs last = runs_of(from, pieces.front(), dtype);
  size_t count = 1;
  if (last.loops.rank == 0 || last.loops.run < kHashedRunBytesMin) return count;
  for (; count < pieces.size(); ++count) {
    const Runs next = runs_of(from, pieces[count], dtype);
    if (!lie_side_by_side(last, next)) break;
    last = next;
  }
  return count;
}

void gather_side_by_side(const BoxMemory& from, std::span<const Box> pieces, DType dtype,
                         MutableBytes to, CopyStores stores, std::span<Digest> digests) {
  CAISSON_CHECK(!pieces.empty() && digests.size() == pieces.size());
  const Runs runs = runs_of(from, pieces.front(), dtype);
  const uint64_t bytes = runs.loops.bytes();
  CAISSON_CHECK(to.empty() || to.size() == bytes * pieces.size());
  std::vector<DigestStream> streams;
  streams.reserve(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) {
    streams.emplace_back(bytes, to.empty() ? nullptr : to.data() + i * bytes, stores);
  }
  add_side_by_side(runs.loops, 0, runs.first, streams);
  for (size_t i = 0; i < pieces.size(); ++i) digests[i] = streams[i].finish();
}

uint64_t sample_of(const BoxMemory& from, const Box& piece, DType dtype) {
  constexpr uint64_t kSampleBytes = 64;  // a cache line
  constexpr uint64_t kApartBytes = 16 << 10;
  constexpr uint64_t kSamplesMax = 64;
  const Runs runs = runs_of(from, piece, dtype);
  const Loops& loops = runs.loops;
  const uint64_t bytes = loops.bytes();
  if (bytes == 0) return 0;
  const uint64_t samples = std::clamp<uint64_t>(bytes / kApartBytes, 4, kSamplesMax);
  const uint64_t length = std::min<uint64_t>(loops.run, kSampleBytes);
  std::array<const std::byte*, kSamplesMax> places{};
  for (uint64_t i = 0; i < samples; ++i) {
    // Evenly over the packed bytes, first and last included; then back to where those lie.
    const uint64_t packed = (bytes - length) / (samples - 1) * i;
    const uint64_t in_run = std::min<uint64_t>(packed % loops.run, loops.run - length);
    uint64_t run = packed / loops.run;
    const std::byte* at = runs.first + in_run;
    for (size_t axis = loops.rank; axis-- > 0;) {
      at += loops.axes[axis].from * static_cast<int64_t>(run % loops.axes[axis].extent);
      run /= loops.axes[axis].extent;
    }
    __builtin_prefetch(at);  // all of them on their way before the first is needed
    places[i] = at;
  }
  uint64_t hash = 0;
  for (uint64_t i = 0; i < samples; ++i) hash = checksum64({places[i], length}, hash);
  return hash;
}

void scatter(Bytes from, const Box& piece, DType dtype, const BoxMemory& to) {
  const Box overlap = intersect(piece, to.box);
  if (overlap.elements() == 0) return;
  const Placing placing = placing_of(from, piece, overlap, dtype, to);
  copy_loops(placing.loops, 0, placing.from, placing.to);
}

std::optional<Digest> scatter_hashed(Bytes from, const Box& piece, DType dtype,
                                     const BoxMemory& to) {
  if (from.empty() || !contains(to.box, piece)) return std::nullopt;
  const Placing placing = placing_of(from, piece, piece, dtype, to);
  if (placing.loops.run < kHashedRunBytesMin && placing.loops.rank > 0) return std::nullopt;
  DigestStream stream(from.size(), nullptr, CopyStores::kPastCaches);
  place_runs(placing.loops, 0, placing.from, placing.to, stream);
  return stream.finish();
}

Bytes contiguous_piece(const BoxMemory& from, const Box& piece, DType dtype) {
  CAISSON_CHECK(contains(from.box, piece));
  if (piece.elements() == 0) return {};
  const Addressing addressing(from.box, dtype);
  const Box outer = addressing.units(from.box);
  const Box inner = addressing.units(piece);
  const auto strides = addressing.strides(from);
  const auto packed = addressing.packed_strides(inner);
  for (size_t i = 0; i < static_cast<size_t>(inner.rank); ++i) {
    if (inner.extent[i] > 1 && strides[i] != packed[i]) return {};
  }
  return {from.data + offset_within(outer, inner, strides),
          static_cast<size_t>(inner.elements()) * addressing.element_bytes()};
}

MutableBytes memory_range(const BoxMemory& memory, DType dtype) {
  if (memory.box.elements() == 0) return {};
  const Addressing addressing(memory.box, dtype);
  const Box units = addressing.units(memory.box);
  const auto strides = addressing.strides(memory);
  int64_t first = 0, last = 0;
  for (size_t i = 0; i < static_cast<size_t>(units.rank); ++i) {
    const int64_t span = static_cast<int64_t>(units.extent[i] - 1) * strides[i];
    (span < 0 ? first : last) += span;
  }
  return {memory.data + first, static_cast<size_t>(last - first) + addressing.element_bytes()};
}

std::byte* contiguous_place(const BoxMemory& to, const Box& piece, DType dtype) {
  if (!contains(to.box, piece)) return nullptr;
  return const_cast<std::byte*>(contiguous_piece(to, piece, dtype).data());
}

}  // namespace caisson

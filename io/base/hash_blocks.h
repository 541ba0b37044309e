// XXH3's inner loop over whole blocks of 1 KiB, with the bytes copied on the way: a tile that is
// hashed and moved is read from memory once. Called by DigestStream alone (hash.cc), which owns
// everything around the blocks. Pure.
//
// Why not xxHash's own loop: it cannot copy, and it is compiled for the oldest processor. This one
// is chosen at run time: AVX-512 (copies and hashes 23 GB/s from memory where AVX2 does 18.5),
// AVX2, or plain C++.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace caisson {

inline constexpr size_t kHashStripeBytes = 64;
inline constexpr size_t kHashBlockBytes = 1024;  // 16 stripes, of a secret of 192 bytes
inline constexpr size_t kHashSecretBytes = 192;

// How copies are stored. kPastCaches (non-temporal: the old content is not read first, and nothing
// else is evicted) takes destinations at multiples of 64, others are stored as kCached.
enum class CopyStores : uint8_t { kCached, kPastCaches };
inline constexpr size_t kPastCachesAlignment = 64;

struct alignas(64) HashLanes {
  std::array<uint64_t, 8> lanes;
};

// Takes `blocks` whole blocks at `from` in, and copies them to `to` unless that is null. Stores
// that went past the caches are ordered by finish_copies().
using HashBlocksFn = void (*)(HashLanes& lanes, const std::byte* from, std::byte* to,
                              CopyStores stores, size_t blocks, const std::byte* secret);

// One stripe, against `secret` and the 56 bytes after it.
void hash_stripe(HashLanes& lanes, const std::byte* from, const std::byte* secret);
// The best loop for this processor.
HashBlocksFn hash_blocks();
// Every loop that this processor can run, for tests: they all do the same.
std::span<const HashBlocksFn> all_hash_blocks();
// Makes what was written past the caches visible to devices and other cores.
void finish_copies();

}  // namespace caisson

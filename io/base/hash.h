// Content ids and checksums, both XXH3. Pure; the only user of xxHash is hash.cc.
//
// XXH3 finds accidents, not adversaries: within one trust domain 10^10 chunks collide with
// probability 1.5e-19, but whoever may choose the bytes can make two chunks collide.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

#include "caisson/result.h"
#include "io/base/bytes.h"
#include "io/base/hash_blocks.h"

namespace caisson {

// 128 bits in xxHash's canonical (big-endian) order: a content id or an object digest.
struct Digest {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const Digest&) const = default;
};

// 16 random bytes that name a store, a save, a part or a log record's writer.
struct Uuid {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
  bool is_zero() const { return *this == Uuid{}; }
};

// XXH3-128, seed 0: digests of whole objects, and of chunks.
Digest digest_of(Bytes bytes);
// The id of a chunk whose raw bytes have this digest, and the checksum of one whose stored bytes
// have it (docs/format.md, "Content id" and "Chunk entry"). A chunk that is stored raw has one
// digest, so one pass over its bytes gives both, at a save and at a restore.
Digest content_id(const Digest& raw, uint32_t element_bits);
uint64_t chunk_checksum(const Digest& stored, uint64_t salt);
inline Digest content_id(Bytes raw, uint32_t element_bits) {
  return content_id(digest_of(raw), element_bits);
}
inline uint64_t chunk_checksum(Bytes stored, uint64_t salt) {
  return chunk_checksum(digest_of(stored), salt);
}
// XXH3-64 seeded with `salt`: checksums of blocks and frames. Salts come from salt_of, so that a
// stale sector of another object or another place never passes.
uint64_t checksum64(Bytes bytes, uint64_t salt);
// The salt for bytes that stand at `offset` of the object named `uuid`.
uint64_t salt_of(const Uuid& uuid, uint64_t offset);

// digest_of over the concatenation of what was added, for bytes that do not lie together or that
// are to be copied anyway. Thread-compatible.
class DigestStream {
 public:
  // With `copy_to`, everything added is also written there, one piece behind the other. All of it
  // is there after finish().
  explicit DigestStream(std::byte* copy_to = nullptr, CopyStores stores = CopyStores::kCached)
      : DigestStream(0, copy_to, stores) {}
  // The same for exactly `expected` bytes, which spares holding every last block back. `copy_to`
  // may be null: `stores` is then for add_copied().
  DigestStream(uint64_t expected, std::byte* copy_to, CopyStores stores);
  void add(Bytes bytes);
  // Copies these bytes to a place of their own. REQUIRES: made without `copy_to`.
  void add_copied(Bytes bytes, std::byte* to);
  Digest finish();  // once, last

 private:
  void take_blocks(const std::byte* from, size_t blocks);

  HashLanes lanes_;
  CopyStores stores_;
  std::byte* copy_to_;  // where the first byte of pending_ goes; null: nowhere
  uint64_t expected_;   // 0: not known
  uint64_t bytes_ = 0;  // added so far
  size_t pending_ = 0;  // bytes of the last, unfinished block
  // The last stripe before the pending bytes, then those: XXH3 ends with the last 64 bytes.
  alignas(64) std::array<std::byte, kHashStripeBytes + kHashBlockBytes> tail_;
};

std::string to_hex(Bytes bytes);
inline std::string to_hex(const Digest& digest) { return to_hex(Bytes(digest.bytes)); }
inline std::string to_hex(const Uuid& uuid) { return to_hex(Bytes(uuid.bytes)); }
// 32 lower-case hex digits; anything else is invalid_argument.
Result<Uuid> uuid_from_hex(std::string_view text);

// Where fresh uuids come from; injected so that tests and golden files are deterministic.
// Thread-safe implementations only.
class UuidSource {
 public:
  virtual ~UuidSource() = default;
  virtual Uuid next() = 0;
};
// getrandom(2).
UuidSource& system_uuids();

// For unordered containers: the first eight bytes, already uniform. Never stored.
struct DigestHash {
  size_t operator()(const Digest& digest) const { return load_le<uint64_t>(digest.bytes.data()); }
};
struct UuidHash {
  size_t operator()(const Uuid& uuid) const { return load_le<uint64_t>(uuid.bytes.data()); }
};

}  // namespace caisson

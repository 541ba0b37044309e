#include "io/base/hash.h"

#include <sys/random.h>

#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "io/base/check.h"

namespace caisson {

namespace {

Digest canonical(XXH128_hash_t hash) {
  XXH128_canonical_t raw;
  XXH128_canonicalFromHash(&raw, hash);
  Digest digest;
  std::memcpy(digest.bytes.data(), raw.digest, digest.bytes.size());
  return digest;
}

static_assert(XXH_SECRET_DEFAULT_SIZE == kHashSecretBytes);
static_assert(XXH_STRIPE_LEN == kHashStripeBytes);
constexpr HashLanes kFirstLanes{{XXH3_INIT_ACC}};

const std::byte* secret() { return reinterpret_cast<const std::byte*>(XXH3_kSecret); }

// The end of XXH3_hashLong_128b, for `bytes` in all: `rest` is the last block, 1 to 1024 bytes, and
// the 64 bytes before `end` are the last ones of the input.
Digest finish_long(HashLanes lanes, Bytes rest, const std::byte* end, uint64_t bytes) {
  const size_t stripes = (rest.size() - 1) / kHashStripeBytes;
  for (size_t i = 0; i < stripes; ++i) {
    hash_stripe(lanes, rest.data() + i * kHashStripeBytes, secret() + i * XXH_SECRET_CONSUME_RATE);
  }
  hash_stripe(lanes, end - kHashStripeBytes,
              secret() + kHashSecretBytes - kHashStripeBytes - XXH_SECRET_LASTACC_START);
  const uint64_t* const acc = lanes.lanes.data();
  const size_t merge_end = kHashSecretBytes - kHashStripeBytes - XXH_SECRET_MERGEACCS_START;
  return canonical(
      {.low64 =
           XXH3_mergeAccs(acc, XXH3_kSecret + XXH_SECRET_MERGEACCS_START, bytes * XXH_PRIME64_1),
       .high64 = XXH3_mergeAccs(acc, XXH3_kSecret + merge_end, ~(bytes * XXH_PRIME64_2))});
}

class SystemUuids final : public UuidSource {
 public:
  Uuid next() override {
    Uuid uuid;
    // Requests of up to 256 bytes are never cut short once the pool is initialised.
    CAISSON_CHECK(::getrandom(uuid.bytes.data(), uuid.bytes.size(), 0) == 16);
    return uuid;
  }
};

}  // namespace

Digest digest_of(Bytes bytes) {
  if (bytes.size() <= XXH3_MIDSIZE_MAX) return canonical(XXH3_128bits(bytes.data(), bytes.size()));
  HashLanes lanes = kFirstLanes;
  const size_t blocks = (bytes.size() - 1) / kHashBlockBytes;
  hash_blocks()(lanes, bytes.data(), nullptr, CopyStores::kCached, blocks, secret());
  return finish_long(lanes, bytes.subspan(blocks * kHashBlockBytes), bytes.data() + bytes.size(),
                     bytes.size());
}

Digest content_id(const Digest& raw, uint32_t element_bits) {
  Digest id = raw;
  id.bytes.back() ^= static_cast<std::byte>(element_bits);
  return id;
}

uint64_t chunk_checksum(const Digest& stored, uint64_t salt) {
  return checksum64(stored.bytes, salt);
}

uint64_t checksum64(Bytes bytes, uint64_t salt) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), salt);
}

uint64_t salt_of(const Uuid& uuid, uint64_t offset) {
  return XXH3_64bits_withSeed(uuid.bytes.data(), uuid.bytes.size(), offset);
}

DigestStream::DigestStream(uint64_t expected, std::byte* copy_to, CopyStores stores)
    : lanes_(kFirstLanes), stores_(stores), copy_to_(copy_to), expected_(expected) {}

void DigestStream::take_blocks(const std::byte* from, size_t blocks) {
  hash_blocks()(lanes_, from, copy_to_, stores_, blocks, secret());
  const size_t bytes = blocks * kHashBlockBytes;
  if (copy_to_ != nullptr) copy_to_ += bytes;
  std::memcpy(tail_.data(), from + bytes - kHashStripeBytes, kHashStripeBytes);
}

// What may be the last block is held back until more comes: XXH3 ends it differently.
void DigestStream::add(Bytes bytes) {
  bytes_ += bytes.size();
  const size_t held_back = bytes_ < expected_ ? 0 : 1;
  std::byte* const pending = tail_.data() + kHashStripeBytes;
  if (pending_ + bytes.size() >= kHashBlockBytes + held_back) {
    if (pending_ > 0) {
      const size_t missing = kHashBlockBytes - pending_;
      std::memcpy(pending + pending_, bytes.data(), missing);
      bytes = bytes.subspan(missing);
      take_blocks(pending, 1);
      pending_ = 0;
    }
    const size_t blocks = bytes.empty() ? 0 : (bytes.size() - held_back) / kHashBlockBytes;
    if (blocks > 0) take_blocks(bytes.data(), blocks);
    bytes = bytes.subspan(blocks * kHashBlockBytes);
  }
  if (bytes.empty()) return;
  std::memcpy(pending + pending_, bytes.data(), bytes.size());
  pending_ += bytes.size();
}

// Whole blocks are copied by the loop that hashes them, what belongs to a block that began or ends
// elsewhere apart: it is in the cache then.
void DigestStream::add_copied(Bytes bytes, std::byte* to) {
  copy_to_ = pending_ == 0 ? to : nullptr;
  add(bytes);
  const auto copied = copy_to_ == nullptr ? size_t{0} : static_cast<size_t>(copy_to_ - to);
  copy_to_ = nullptr;
  std::ranges::copy(bytes.subspan(copied), to + copied);
}

Digest DigestStream::finish() {
  const Bytes pending = Bytes(tail_).subspan(kHashStripeBytes, pending_);
  if (copy_to_ != nullptr && pending_ > 0) std::memcpy(copy_to_, pending.data(), pending_);
  if (stores_ == CopyStores::kPastCaches) finish_copies();
  if (bytes_ <= XXH3_MIDSIZE_MAX) return canonical(XXH3_128bits(pending.data(), pending_));
  return finish_long(lanes_, pending, pending.data() + pending_, bytes_);
}

std::string to_hex(Bytes bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(bytes.size() * 2);
  for (const std::byte byte : bytes) {
    const auto value = std::to_integer<unsigned>(byte);
    text.push_back(kDigits[value >> 4]);
    text.push_back(kDigits[value & 15]);
  }
  return text;
}

Result<Uuid> uuid_from_hex(std::string_view text) {
  Uuid uuid;
  if (text.size() != uuid.bytes.size() * 2) {
    return invalid_argument("not a uuid: expected 32 hex digits");
  }
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    unsigned value = 0;
    if (c >= '0' && c <= '9') {
      value = static_cast<unsigned>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = static_cast<unsigned>(c - 'a') + 10;
    } else {
      return invalid_argument("not a uuid: expected lower-case hex digits");
    }
    uuid.bytes[i / 2] |= static_cast<std::byte>(i % 2 == 0 ? value << 4 : value);
  }
  return uuid;
}

UuidSource& system_uuids() {
  static SystemUuids source;
  return source;
}

}  // namespace caisson

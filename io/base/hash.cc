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

Digest content_id(Bytes raw, uint32_t element_bits) {
  return canonical(XXH3_128bits_withSeed(raw.data(), raw.size(), element_bits));
}

Digest digest_of(Bytes bytes) { return canonical(XXH3_128bits(bytes.data(), bytes.size())); }

uint64_t checksum64(Bytes bytes, uint64_t salt) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), salt);
}

uint64_t salt_of(const Uuid& uuid, uint64_t offset) {
  return XXH3_64bits_withSeed(uuid.bytes.data(), uuid.bytes.size(), offset);
}

DigestStream::DigestStream() : state_(XXH3_createState()) {
  CAISSON_CHECK(state_ != nullptr);
  XXH3_128bits_reset(static_cast<XXH3_state_t*>(state_));
}
DigestStream::~DigestStream() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }
DigestStream::DigestStream(DigestStream&& other) noexcept
    : state_(std::exchange(other.state_, nullptr)) {}
DigestStream& DigestStream::operator=(DigestStream&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}
void DigestStream::add(Bytes bytes) {
  XXH3_128bits_update(static_cast<XXH3_state_t*>(state_), bytes.data(), bytes.size());
}
Digest DigestStream::finish() const {
  return canonical(XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_)));
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

// The envelope, field by field. Offsets are from the start of the envelope:
//
//    0  8  magic
//    8  2  version
//   10  2  bytes of this header, 64
//   12  4  compatible features
//   16  4  read-only-compatible features
//   20  4  incompatible features
//   24  8  payload bytes
//   32 16  salt: the object's uuid
//   48  8  payload checksum, salted with (salt, 64)
//   56  8  header checksum: of bytes 0 to 55, salted with (salt, 0)
//
// The header keeps its size, its places and its checksum in every version, so that an old reader
// can tell a newer object from a damaged one.
#include "engine/format/record.h"

#include <string>

#include "io/base/check.h"
#include "io/base/mutant.h"
#include "io/base/zeros.h"

namespace caisson::format {
namespace {

constexpr size_t kMagicBytes = 8;
constexpr size_t kVersionAt = 8;
constexpr size_t kHeaderBytesAt = 10;
constexpr size_t kFeaturesAt = 12;
constexpr size_t kLengthAt = 24;
constexpr size_t kSaltAt = 32;
constexpr size_t kPayloadChecksumAt = 48;
constexpr size_t kHeaderChecksumAt = 56;
static_assert(kHeaderChecksumAt + sizeof(uint64_t) == kEnvelopeBytes);
static_assert(sizeof(Uuid) == 16 && kSaltAt + sizeof(Uuid) == kPayloadChecksumAt);

// The header of an envelope, checked; `payload_bytes` is what it says, not yet compared.
struct Header {
  Envelope envelope;
  uint64_t payload_bytes = 0;
  uint64_t payload_checksum = 0;
};

Result<Header> decode_header(std::string_view magic, Bytes bytes, std::string_view what,
                             const Features& features = {}) {
  CAISSON_CHECK(magic.size() == kMagicBytes);
  if (bytes.size() < kEnvelopeBytes) {
    return corrupt_at(what, 0, std::to_string(bytes.size()) + " bytes are too short for a header");
  }
  const std::byte* const from = bytes.data();
  if (as_text(bytes.first(kMagicBytes)) != magic) {
    return corrupt_at(what, 0, "does not start with \"" + std::string(magic) + "\"");
  }
  Header header;
  Envelope& envelope = header.envelope;
  std::memcpy(envelope.salt.bytes.data(), from + kSaltAt, envelope.salt.bytes.size());
  const uint64_t checksum = checksum64(bytes.first(kHeaderChecksumAt), salt_of(envelope.salt, 0));
  if (load_le<uint64_t>(from + kHeaderChecksumAt) != checksum && !CAISSON_MUTANT(header_checksum)) {
    return corrupt_at(what, 0, "the header does not have its checksum");
  }
  envelope.version = load_le<uint16_t>(from + kVersionAt);
  envelope.features = {.compatible = load_le<uint32_t>(from + kFeaturesAt),
                       .read_only_compatible = load_le<uint32_t>(from + kFeaturesAt + 4),
                       .incompatible = load_le<uint32_t>(from + kFeaturesAt + 8)};
  if (envelope.version > kFormatVersion) {
    return unsupported(std::string(what) + ": format version " + std::to_string(envelope.version) +
                       ", but this build reads up to " + std::to_string(kFormatVersion) +
                       "; use a newer caisson");
  }
  if (envelope.version == 0 || load_le<uint16_t>(from + kHeaderBytesAt) != kEnvelopeBytes) {
    return corrupt_at(what, kVersionAt, "no such version or header size was ever written");
  }
  const uint32_t unknown =
      envelope.features.incompatible & ~(kKnownFeatures.incompatible | features.incompatible);
  if (unknown != 0) {
    return unsupported(std::string(what) + ": uses features " + std::to_string(unknown) +
                       " that this build does not know; use a newer caisson");
  }
  header.payload_bytes = load_le<uint64_t>(from + kLengthAt);
  header.payload_checksum = load_le<uint64_t>(from + kPayloadChecksumAt);
  return header;
}

// REQUIRES: header.payload_bytes fit behind the header in `bytes`.
Result<Envelope> check_payload(Header header, Bytes bytes, std::string_view what) {
  Envelope& envelope = header.envelope;
  envelope.payload = bytes.subspan(kEnvelopeBytes, static_cast<size_t>(header.payload_bytes));
  if (checksum64(envelope.payload, salt_of(envelope.salt, kEnvelopeBytes)) !=
          header.payload_checksum &&
      !CAISSON_MUTANT(payload_checksum)) {
    return corrupt_at(what, kEnvelopeBytes, "the content does not have its checksum");
  }
  return envelope;
}

}  // namespace

Status corrupt_at(std::string_view what, uint64_t offset, std::string_view why) {
  return corruption(std::string(what) + " at offset " + std::to_string(offset) + ": " +
                    std::string(why));
}

ByteVector encode_envelope(std::string_view magic, const Uuid& salt, Bytes payload,
                           const Features& features) {
  CAISSON_CHECK(magic.size() == kMagicBytes);
  ByteWriter out;
  out.put_bytes(as_bytes(magic));
  out.put<uint16_t>(kFormatVersion);
  out.put<uint16_t>(kEnvelopeBytes);
  out.put<uint32_t>(features.compatible);
  out.put<uint32_t>(features.read_only_compatible);
  out.put<uint32_t>(features.incompatible);
  out.put<uint64_t>(payload.size());
  out.put_bytes(salt.bytes);
  out.put<uint64_t>(checksum64(payload, salt_of(salt, kEnvelopeBytes)));
  CAISSON_CHECK(out.size() == kHeaderChecksumAt);
  out.put<uint64_t>(checksum64(out.bytes(), salt_of(salt, 0)));
  out.put_bytes(payload);
  return out.take();
}

Result<Envelope> decode_envelope(std::string_view magic, Bytes bytes, std::string_view what,
                                 const Features& features) {
  CAISSON_ASSIGN_OR_RETURN(const Header header, decode_header(magic, bytes, what, features));
  if (header.payload_bytes != bytes.size() - kEnvelopeBytes) {
    return corrupt_at(what, kLengthAt,
                      "says " + std::to_string(header.payload_bytes) + " bytes of content, has " +
                          std::to_string(bytes.size() - kEnvelopeBytes));
  }
  return check_payload(header, bytes, what);
}

Result<uint64_t> envelope_bytes(std::string_view magic, Bytes start, std::string_view what) {
  CAISSON_ASSIGN_OR_RETURN(const Header header, decode_header(magic, start, what));
  if (header.payload_bytes > UINT64_MAX - kEnvelopeBytes) {
    return corrupt_at(what, kLengthAt, "says more content than there can be");
  }
  return kEnvelopeBytes + header.payload_bytes;
}

ByteVector encode_envelope_block(std::string_view magic, const Uuid& salt, Bytes payload,
                                 size_t block_bytes) {
  ByteVector block = encode_envelope(magic, salt, payload);
  CAISSON_CHECK(block.size() <= block_bytes);
  block.resize(block_bytes);
  return block;
}

Result<Envelope> decode_envelope_block(std::string_view magic, Bytes block, std::string_view what) {
  CAISSON_ASSIGN_OR_RETURN(const Header header, decode_header(magic, block, what));
  if (header.payload_bytes > block.size() - kEnvelopeBytes) {
    return corrupt_at(what, kLengthAt, "says more content than its block holds");
  }
  const size_t end = kEnvelopeBytes + static_cast<size_t>(header.payload_bytes);
  if (!is_zero(block.subspan(end))) {
    return corrupt_at(what, end, "the rest of the block is not zero");
  }
  return check_payload(header, block, what);
}

}  // namespace caisson::format

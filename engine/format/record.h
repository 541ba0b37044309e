// The envelope of every small object and trailer: magic, version, feature bits, length, salted
// checksums. docs/format.md, "Envelope". Pure; decoders treat bytes as hostile.
#pragma once

#include <cstdint>
#include <string_view>

#include "caisson/result.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson::format {

inline constexpr uint16_t kFormatVersion = 1;

// Three kinds of feature bits, as in ext4: an unknown bit of `compatible` is ignored, of
// `read_only_compatible` forbids writing to the store, of `incompatible` forbids reading.
struct Features {
  uint32_t compatible = 0;
  uint32_t read_only_compatible = 0;
  uint32_t incompatible = 0;
};
// Incompatible, in the store file: packs lie in several directories.
inline constexpr uint32_t kFeatureDirectories = 1;
// Those that any object may say and this build can read and write.
inline constexpr Features kKnownFeatures{};
// Whether this build may write to a store in which an object says `features`.
constexpr bool may_write(const Features& features) {
  return (features.read_only_compatible & ~kKnownFeatures.read_only_compatible) == 0;
}

inline constexpr size_t kEnvelopeBytes = 64;

struct Envelope {
  uint16_t version = kFormatVersion;
  Features features;
  Uuid salt;      // the object's own uuid; salts both checksums
  Bytes payload;  // points into the decoded bytes
};

// The 64-byte header followed by the payload. `magic` has eight characters. `features`: those that
// the object uses.
ByteVector encode_envelope(std::string_view magic, const Uuid& salt, Bytes payload,
                           const Features& features = {});
// `what` names the object in messages ("log/000..12"). kCorruption for a wrong magic, length or
// checksum; kUnsupported for a newer version or an unknown incompatible feature. `features`: those
// that this kind of object may say beside kKnownFeatures.
Result<Envelope> decode_envelope(std::string_view magic, Bytes bytes, std::string_view what,
                                 const Features& features = {});

// The length of the envelope that starts with `start`, as its header says, whose checksum holds.
Result<uint64_t> envelope_bytes(std::string_view magic, Bytes start, std::string_view what);

// An envelope alone in a block, zeros after it: headers and trailers that are read by their place.
// REQUIRES: kEnvelopeBytes + payload.size() <= block_bytes.
ByteVector encode_envelope_block(std::string_view magic, const Uuid& salt, Bytes payload,
                                 size_t block_bytes);
Result<Envelope> decode_envelope_block(std::string_view magic, Bytes block, std::string_view what);

// "WHAT at offset N: why", as kCorruption.
Status corrupt_at(std::string_view what, uint64_t offset, std::string_view why);

}  // namespace caisson::format

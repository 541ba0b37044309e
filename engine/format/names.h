// How objects of a store are named and referred to. docs/format.md, "Objects". Pure.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "caisson/result.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson::format {

// Key of the file that makes a prefix a store.
inline constexpr std::string_view kStoreKey = "caisson.store";
// All other objects of a store, those of directories.h aside, lie under one of these.
inline constexpr std::array<std::string_view, 3> kStorePrefixes{"data/", "log/", "snapshots/"};

// Everything that one save wrote lies under "data/<save>/".
std::string save_prefix(const Uuid& save);
std::string log_key(uint64_t seq);       // "log/0000000000000012": 16 lower-case hex digits
std::string snapshot_key(uint64_t seq);  // "snapshots/<16 hex>": the state after record seq

enum class ObjectKind : uint8_t { kPack = 1, kPart = 2, kDirectory = 3, kRoot = 4 };

inline constexpr size_t kNameBytesMax = 4096;  // of a tensor
inline constexpr size_t kRunBytesMax = 512;

bool is_utf8(std::string_view text);
// kInvalidArgument unless 1 to kNameBytesMax bytes of UTF-8 without NUL.
Status check_tensor_name(std::string_view name);
// kInvalidArgument unless 1 to kRunBytesMax bytes of UTF-8 without control characters and without
// an empty component between slashes.
Status check_run_name(std::string_view run);

// One object of a save: data/<save>/<writer>-<number>.<pack|part|dir|root>, number as 6 hex digits
// or more. `writer` is the uuid of the put session (or of the committer) that wrote it.
struct ObjectRef {
  ObjectKind kind = ObjectKind::kPack;
  Uuid save;
  Uuid writer;
  uint32_t number = 0;
  auto operator<=>(const ObjectRef&) const = default;
  std::string key() const;
};
// The reverse; kInvalidArgument for a key that is not of that form.
Result<ObjectRef> object_ref_of(std::string_view key);

inline constexpr size_t kObjectRefBytes = 37;
void put_ref(ByteWriter& out, const ObjectRef& ref);  // 37 bytes
ObjectRef get_ref(ByteReader& in);                    // fails the reader on an unknown kind

// An object that another object vouches for.
struct SealedRef {
  ObjectRef object;
  uint64_t bytes = 0;
  Digest digest;  // what it is taken over, each kind says for itself
  bool operator==(const SealedRef&) const = default;
};
inline constexpr size_t kSealedRefBytes = 61;
void put_sealed(ByteWriter& out, const SealedRef& ref);
SealedRef get_sealed(ByteReader& in);

Uuid get_uuid(ByteReader& in);      // 16 bytes as they stand
Digest get_digest(ByteReader& in);  // the same

}  // namespace caisson::format

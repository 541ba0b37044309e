// The root of a checkpoint: what it is called, its parts, every pack that it needs, where its
// directory is. docs/format.md, "Root". Pure.
#pragma once

#include <string>
#include <vector>

#include "engine/format/part.h"
#include "engine/format/record.h"

namespace caisson::format {

inline constexpr uint64_t kRootBytesMax = 256u << 20;

struct RootPart {
  SealedRef part;  // digest: of its trailer block
  uint32_t rank = 0;
  uint64_t entries = 0;
  uint64_t inline_offset = 0, inline_bytes = 0;
  std::vector<uint32_t> packs;  // the part's pack index -> index into Root::packs
};

struct Root {
  ObjectRef object;
  std::string run;
  uint64_t step = 0;
  uint64_t epoch = 0;
  int64_t created_unix_ns = 0;
  std::string metadata_json;  // the user's; an object
  std::vector<RootPart> parts;
  std::vector<SealedRef> packs;  // all that any part needs, bases included; sorted by object
  SealedRef directory;           // digest: of the whole object
  uint64_t directory_index_offset = 0;
  uint64_t tensors = 0;
  uint64_t raw_bytes = 0;     // logical size: what a full restore gives
  uint64_t stored_bytes = 0;  // newly stored by this save
};
ByteVector encode_root(const Root& root);
Result<Root> decode_root(const ObjectRef& object, Bytes bytes, std::string_view what);

// The file that makes a prefix a store; fixed for its life.
struct StoreFile {
  Uuid uuid;
  uint8_t hash = 1;  // 1: XXH3-128. 2 is reserved for SHA-256
  uint8_t id_bytes = 16;
  int64_t created_unix_ns = 0;
  Features features;  // as decoded; encoders write kKnownFeatures. See may_write
};
ByteVector encode_store_file(const StoreFile& store);
Result<StoreFile> decode_store_file(Bytes bytes);

}  // namespace caisson::format

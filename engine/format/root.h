// The root of a checkpoint: a head that says what it is called, its parts and where its directory
// is, and behind the head the tables of its packs (pack_table.h). docs/format.md, "Root". Pure.
#pragma once

#include <string>
#include <vector>

#include "engine/format/pack_table.h"
#include "engine/format/part.h"
#include "engine/format/record.h"

namespace caisson::format {

inline constexpr uint64_t kRootBytesMax = 256u << 20;  // tables included

struct RootPart {
  SealedRef part;  // digest: of its trailer block
  uint32_t rank = 0;
  uint64_t entries = 0;
  uint64_t inline_offset = 0, inline_bytes = 0;
  uint32_t packs = 0;  // rows of PackTables::of_parts
};

// The head.
struct Root {
  ObjectRef object;
  std::string run;
  uint64_t step = 0;
  uint64_t epoch = 0;
  int64_t created_unix_ns = 0;
  std::string metadata_json;  // the user's; an object
  std::vector<RootPart> parts;
  SealedRef directory;  // digest: of the whole object
  uint64_t directory_index_offset = 0;
  uint64_t tensors = 0;
  uint64_t raw_bytes = 0;      // logical size: what a full restore gives
  uint64_t stored_bytes = 0;   // newly stored by this save
  uint64_t packs = 0;          // rows of PackTables::packs
  Digest tables_digest;        // of all that follows the head
  uint64_t tables_offset = 0;  // bytes of the head; not written
  // Rows of PackTables::of_parts: all parts' packs together.
  uint64_t part_packs() const;
};

struct EncodedRoot {
  ByteVector bytes;
  SealedRef sealed;  // digest: of the head, which vouches for the tables
};
// The head alone, as it says.
ByteVector encode_root_head(const Root& root);
// Head and tables; `packs`, `tables_digest` and `tables_offset` are filled in from the tables.
EncodedRoot encode_root(Root root, const PackTables& tables);

// How long the head is whose first bytes are `start`, at least kEnvelopeBytes of them.
Result<uint64_t> root_head_bytes(Bytes start, std::string_view what);
// `root_bytes` is the size of the whole object: the tables that the head describes fill the rest.
Result<Root> decode_root(const ObjectRef& object, uint64_t root_bytes, Bytes head,
                         std::string_view what);
// All that follows the head. Compared with the digest too.
Result<PackTables> decode_pack_tables(const Root& root, Bytes tables, std::string_view what);

// The file that makes a prefix a store; fixed for its life.
struct StoreFile {
  Uuid uuid;
  uint8_t hash = 1;  // 1: XXH3-128. 2 is reserved for SHA-256
  uint8_t id_bytes = 16;
  int64_t created_unix_ns = 0;
  Features features;  // see may_write
};
ByteVector encode_store_file(const StoreFile& store);
Result<StoreFile> decode_store_file(Bytes bytes);

}  // namespace caisson::format

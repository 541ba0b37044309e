// The tables behind a root's head: every pack that the checkpoint needs, and which of those each
// part means by its pack indices. They lie in blocks of 4 KiB, each with its checksum, so that one
// tensor's packs are found without reading the others. docs/format.md, "Root". Used by root.cc,
// engine/root_packs.cc. Pure.
#pragma once

#include <vector>

#include "engine/format/names.h"

namespace caisson::format {

struct PackTables {
  std::vector<SealedRef> packs;  // all that any part needs, bases included; sorted by object
  // The packs of part 0 in the order of its own pack list, then those of part 1, ...: indices into
  // `packs`.
  std::vector<uint32_t> of_parts;
};

inline constexpr size_t kTableBlockBytes = 4096;
inline constexpr size_t kPacksPerBlock = 66;        // (4096 - 16) / 61
inline constexpr size_t kPartPacksPerBlock = 1020;  // (4096 - 16) / 4

// What the tables take. REQUIRES: fewer than 2^48 rows.
uint64_t packs_bytes(uint64_t packs);
uint64_t part_packs_bytes(uint64_t rows);

// Both tables as they stand behind the head. `writer` is the root's, `offset` where they start.
ByteVector encode_pack_tables(const Uuid& writer, uint64_t offset, const PackTables& tables);

// The `count` rows of consecutive blocks, the first of which lies at `offset` in the root.
// kCorruption unless `blocks` is exactly those.
Result<std::vector<SealedRef>> decode_packs(const Uuid& writer, uint64_t offset, Bytes blocks,
                                            uint64_t count, std::string_view what);
// The same of the parts' packs; every row is below `packs`.
Result<std::vector<uint32_t>> decode_part_packs(const Uuid& writer, uint64_t offset, Bytes blocks,
                                                uint64_t count, uint64_t packs,
                                                std::string_view what);

}  // namespace caisson::format

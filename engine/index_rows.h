// Rows of the index: keys and values as index.cc puts them into RocksDB. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine/index.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson {

// Keys, all big-endian so that their order is RocksDB's:
//   'c' id[16] raw:u32 pack-ordinal:u32 offset:u32 -> stored:u32 codec:u8 flags:u8 checksum:u64
//   'o' ordinal:u32                                -> pack reference, and whether it is complete
//   'k' commit seq:u64                             -> catalog entry
//   'm'                                            -> totals
//   'q' question                                   -> answer
// Places come first and alone, so that small writes never overlap the tables of a bulk load.
inline constexpr uint64_t kSchema = 3;
inline constexpr size_t kChunkPrefixBytes = 1 + 16 + 4;

template <typename T>
void append_be(std::string& key, T value) {
  for (int shift = static_cast<int>(sizeof(T)) * 8 - 8; shift >= 0; shift -= 8) {
    key.push_back(static_cast<char>((value >> shift) & 0xff));
  }
}
uint32_t load_be32(const char* from);

std::string chunk_prefix(const Digest& id, uint32_t raw_bytes);
std::string pack_key(uint32_t ordinal);
std::string catalog_key(format::CommitSeq seq);

struct Totals {
  uint64_t schema = kSchema;
  uint64_t places = 0;
  uint64_t caught_up_to = 0;
};

std::string encode(const Totals& totals);
std::string encode(const CatalogEntry& entry);
std::optional<CatalogEntry> decode_catalog(Bytes bytes);

}  // namespace caisson

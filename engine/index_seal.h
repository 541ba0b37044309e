// Says what a sound index directory looks like: every file that RocksDB will read, with length and
// digest, written at a clean close and taken away at open. RocksDB may abort on bytes that it does
// not expect, so the bytes are compared before it sees them. Used by index.cc alone;
// thread-compatible.
#pragma once

#include <map>
#include <string>

#include "caisson/result.h"
#include "io/base/hash.h"

namespace caisson {

struct SealedFile {
  uint64_t bytes = 0;
  Digest digest;
};
using IndexSeal = std::map<std::string, SealedFile>;  // by file name

// Above this total the tables' lengths alone are compared at open (RocksDB's own block checksums
// remain); reading all of them would take longer than the questions that the index answers.
inline constexpr uint64_t kSealDigestBytesMax = 1ull << 30;

// The seal of `directory` as it is now. Tables that `previous` already lists keep their digest:
// they are immutable.
Result<IndexSeal> take_seal(const std::string& directory, const IndexSeal& previous);
// Writes the seal so that it is there whole or not at all.
Status write_seal(const std::string& directory, const Uuid& store, const IndexSeal& seal);
// Reads the seal, compares every file with it, and removes it: from now on the directory counts as
// unsound until write_seal. kNotFound without a seal; kCorruption naming the first file that
// differs.
Result<IndexSeal> break_seal(const std::string& directory, const Uuid& store);

}  // namespace caisson

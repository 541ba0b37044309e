// The safetensors file format: a header parser that trusts nothing, and a writer whose bytes are
// those of the safetensors library. Used by import, export and restore to files. Pure; the callers
// do the I/O.
//
// A file is: u64 little-endian length N of the header; N bytes of JSON, padded with spaces; the
// tensors' bytes, row-major and little-endian, one after the other without holes.
//
// Invariants of every Header that parse_header returns: names are unique and fit TensorSpec; sorted
// by place the tensors cover the data exactly; every length is what dtype and shape say.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "caisson/result.h"
#include "caisson/tensor.h"
#include "io/base/bytes.h"

namespace caisson::safetensors {

inline constexpr uint64_t kPrefixBytes = 8;
inline constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit
// For parse_header: the file itself is not at hand, its data ends where the last tensor does.
inline constexpr uint64_t kFileBytesUnknown = UINT64_MAX;

struct Entry {
  TensorSpec spec;
  uint64_t begin = 0;  // within the data, which starts at kPrefixBytes + header length
  uint64_t end = 0;
  bool operator==(const Entry&) const = default;
};

using Metadata = std::vector<std::pair<std::string, std::string>>;  // in the file's order

struct Header {
  std::vector<Entry> tensors;  // by place in the file
  Metadata metadata;
};

// How many bytes of JSON follow the prefix. kCorruption when the prefix is short, above the limit
// or reaches past the file's end. `what` names the file in messages, here and below.
Result<uint64_t> header_bytes(Bytes prefix, uint64_t file_bytes, std::string_view what);

// The header of a file of `file_bytes` bytes. kCorruption with file and offset or tensor for
// anything that the format forbids; kUnsupported for what it allows and Caisson cannot hold (more
// than kRankMax dimensions, an unknown dtype).
Result<Header> parse_header(Bytes json, uint64_t file_bytes, std::string_view what);

// The order in which the library writes tensors: dtype descending by its own list, then name.
// kUnsupported, naming the tensor, when the format has no such dtype.
Status sort_as_library(std::vector<TensorSpec>& specs);

// Prefix and padded JSON of a file that holds `specs` one after the other in the given order;
// `entries` receives their places.
// kUnsupported for a dtype that the format lacks; kInvalidArgument above kHeaderBytesMax.
Result<std::string> encode_header(std::span<const TensorSpec> specs, const Metadata& metadata,
                                  std::vector<Entry>* entries);

// `text` as a JSON string with its quotes, escaped as serde_json does.
void append_json_string(std::string& out, std::string_view text);

}  // namespace caisson::safetensors

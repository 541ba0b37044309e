// Fuzzes client/safetensors.h: any bytes as a safetensors file. What is accepted obeys the
// invariants that the header promises, and is written again as something that reads the same.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "client/safetensors.h"
#include "io/base/check.h"
#include "tests/fuzz/fuzz.h"

namespace caisson::testing {

std::vector<ByteVector> fuzz_seeds() {
  std::vector<TensorSpec> specs;
  for (const char* dtype : {"F32", "BF16", "F8_E4M3", "F4", "BOOL"}) {
    specs.push_back({.name = dtype,
                     .dtype = dtype_from_name(dtype).value(),
                     .shape = Shape::of(std::vector<uint64_t>{2, 4})});
  }
  std::vector<ByteVector> seeds;
  for (const safetensors::Metadata& metadata :
       {safetensors::Metadata{}, safetensors::Metadata{{"format", "pt"}, {"k", "\"\\\n"}}}) {
    std::vector<safetensors::Entry> entries;
    std::string file = safetensors::encode_header(specs, metadata, &entries).value();
    file.resize(file.size() + entries.back().end);
    const Bytes bytes = as_bytes(file);
    seeds.emplace_back(bytes.begin(), bytes.end());
  }
  return seeds;
}

}  // namespace caisson::testing

using caisson::as_bytes;
using caisson::Bytes;
using caisson::TensorSpec;
namespace safetensors = caisson::safetensors;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Bytes file(reinterpret_cast<const std::byte*>(data), size);
  const Bytes prefix = file.first(std::min<size_t>(size, safetensors::kPrefixBytes));
  const auto length = safetensors::header_bytes(prefix, size, "fuzz");
  if (!length.ok()) return 0;
  const Bytes json = file.subspan(safetensors::kPrefixBytes, *length);
  const auto header = safetensors::parse_header(json, size, "fuzz");
  if (!header.ok()) return 0;

  uint64_t at = 0;
  std::vector<TensorSpec> specs;
  for (const safetensors::Entry& entry : header->tensors) {
    CAISSON_CHECK(entry.begin == at);
    at = entry.end;
    specs.push_back(entry.spec);
  }
  CAISSON_CHECK(at == size - safetensors::kPrefixBytes - *length);

  std::vector<safetensors::Entry> entries;
  const auto written = safetensors::encode_header(specs, header->metadata, &entries);
  if (!written.ok()) return 0;
  const Bytes again = as_bytes(*written).subspan(safetensors::kPrefixBytes);
  const auto read = safetensors::parse_header(again, written->size() + at, "again");
  CAISSON_CHECK(read.ok());
  CAISSON_CHECK(read->metadata == header->metadata);
  CAISSON_CHECK(read->tensors.size() == header->tensors.size());
  return 0;
}

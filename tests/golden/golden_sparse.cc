#include "tests/golden/golden_sparse.h"

#include <algorithm>
#include <array>
#include <utility>

#include "tests/golden/golden_coded.h"

namespace caisson::testing {
namespace {

constexpr size_t kRowElements = 96;
constexpr size_t kRowsTogether = 5;
constexpr size_t kRowsKept = 2;

// Of five rows that follow each other two stay as they are.
void clear_rows(ByteVector& bytes, DType dtype) {
  const size_t row = kRowElements * dtype.bits / 8;
  for (size_t at = 0; at < bytes.size(); at += row) {
    if (at / row % kRowsTogether < kRowsKept) continue;
    std::fill_n(bytes.data() + at, std::min(row, bytes.size() - at), std::byte{0});
  }
}

GoldenTensor tensor(std::string name, DType dtype, uint64_t elements, ByteVector bytes) {
  GoldenTensor made;
  made.spec = {.name = std::move(name), .dtype = dtype, .shape = Shape::of(std::array{elements})};
  made.bytes = std::move(bytes);
  return made;
}

std::vector<GoldenTensor> state(const std::vector<GoldenTensor>& coded) {
  std::vector<GoldenTensor> made;
  for (const GoldenTensor& full : coded) {
    made.push_back(full);
    clear_rows(made.back().bytes, full.spec.dtype);
  }
  // Nothing to keep; a short last block that is kept, and one that is not.
  made.push_back(tensor("zeros.f32", {DTypeCode::kFloat, 32}, 6000, ByteVector(24'000)));
  for (const uint64_t elements : {5801, 6109}) {
    ByteVector bytes = coded.front().bytes;
    bytes.resize(4 * elements);
    clear_rows(bytes, {DTypeCode::kFloat, 32});
    made.push_back(tensor("short." + std::to_string(elements), {DTypeCode::kFloat, 32}, elements,
                          std::move(bytes)));
  }
  return made;
}

}  // namespace

std::vector<GoldenCheckpoint> sparse_checkpoints() {
  const std::vector<GoldenCheckpoint> coded = coded_checkpoints();
  return {{"sparse/1", state(coded[0].tensors)}, {"sparse/2", state(coded[1].tensors)}};
}

}  // namespace caisson::testing

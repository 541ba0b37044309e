// What differs between two checkpoints of a store, told from content ids. Used by diff. Bounded by
// the chunks of the first checkpoint: 16 bytes each.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "engine/manifest.h"
#include "io/base/bytes.h"

namespace caisson::cli {

// Retyped: another dtype, shape or kind.
enum class Change : uint8_t { kAdded, kRemoved, kRetyped, kChanged };

struct TensorChange {
  Change change = Change::kChanged;
  std::string name;
  bool blob = false;
  TensorSpec before, after;    // of the sides that have it
  uint64_t changed_bytes = 0;  // of the newer side
};

struct Comparison {
  std::vector<TensorChange> changes;  // by name
  uint64_t same_tensors = 0;
  uint64_t raw_bytes_a = 0, raw_bytes_b = 0;
  uint64_t shared_bytes = 0;  // of b, in chunks whose content is also in a
};

// Two tensors of one spec whose pieces were cut differently, so that ids cannot be compared.
// Answers whether their bytes are equal.
using CompareBytes = std::function<Result<bool>(const TensorSpec& spec)>;

// As the index keeps one.
void put_answer(ByteWriter& out, const Comparison& comparison);
void get_answer(ByteReader& in, Comparison& comparison);

Result<Comparison> compare_checkpoints(Manifest& a, Manifest& b, const CompareBytes& compare_bytes);

}  // namespace caisson::cli

#include "engine/place_run.h"

#include <algorithm>
#include <bit>

namespace caisson {

namespace {

constexpr size_t kRowsPerBucket = 256;  // on average: 12 KiB
constexpr int kBucketBitsMax = 14;

}  // namespace

void sort_places(std::vector<PlaceRow>& rows, std::vector<PlaceRow>& scratch) {
  const auto less = [](const PlaceRow& a, const PlaceRow& b) { return a.key() < b.key(); };
  const auto same = [](const PlaceRow& a, const PlaceRow& b) { return a.key() == b.key(); };
  const int bits =
      std::clamp(static_cast<int>(std::bit_width(rows.size() / kRowsPerBucket)), 1, kBucketBitsMax);
  const auto bucket_of = [&](const PlaceRow& row) {
    return static_cast<size_t>(row.prefix() >> (64 - bits));
  };
  std::vector<size_t> begins((size_t{1} << bits) + 1);
  for (const PlaceRow& row : rows) ++begins[bucket_of(row) + 1];
  for (size_t i = 1; i < begins.size(); ++i) begins[i] += begins[i - 1];
  std::vector<size_t> next(begins.begin(), begins.end() - 1);
  scratch.resize(rows.size());
  for (const PlaceRow& row : rows) scratch[next[bucket_of(row)]++] = row;
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    std::sort(scratch.begin() + static_cast<ptrdiff_t>(begins[i]),
              scratch.begin() + static_cast<ptrdiff_t>(begins[i + 1]), less);
  }
  rows.swap(scratch);
  rows.erase(std::unique(rows.begin(), rows.end(), same), rows.end());
}

}  // namespace caisson

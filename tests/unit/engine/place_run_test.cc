// The order of rows is the order of the bytes of their keys, and sorting keeps one row a key.
#include "engine/place_run.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

namespace caisson {
namespace {

// The key as the table of places has it, big-endian, made by other means than PlaceRow::key().
std::string key_bytes(const PlaceRow& row) {
  std::string key(as_text(row.id.bytes));
  for (const uint32_t number : {row.raw_bytes, row.pack, row.offset_units}) {
    for (const int shift : {24, 16, 8, 0}) key.push_back(static_cast<char>(number >> shift));
  }
  return key;
}

// A row whose other fields follow from its key, as those of an immutable chunk do.
PlaceRow complete(PlaceRow row) {
  row.checksum = std::hash<std::string>()(key_bytes(row));
  row.stored_bytes = static_cast<uint32_t>(row.checksum >> 7);
  row.codec = static_cast<uint8_t>(row.checksum >> 50);
  row.flags = static_cast<uint8_t>(row.checksum >> 58);
  return row;
}

struct Lot {
  size_t rows;
  uint32_t ids;          // distinct ones, about
  size_t first_id_byte;  // that varies
  uint32_t numbers;      // distinct values of the other fields, about
};

std::vector<PlaceRow> make_rows(const Lot& lot, std::mt19937_64& random) {
  std::vector<Digest> ids(lot.ids);
  for (Digest& id : ids) {
    for (size_t i = lot.first_id_byte; i < id.bytes.size(); ++i) {
      id.bytes[i] = static_cast<std::byte>(random());
    }
  }
  const auto number = [&] { return static_cast<uint32_t>(random() % lot.numbers) * 0x01010101u; };
  std::vector<PlaceRow> rows(lot.rows);
  for (PlaceRow& row : rows) {
    row.id = ids[random() % lot.ids];
    row.raw_bytes = number();
    row.pack = number();
    row.offset_units = number();
    row = complete(row);
  }
  return rows;
}

TEST(PlaceRunTest, SortsAsBytesDoAndDropsWhatCameBefore) {
  const Lot lots[] = {
      {0, 1, 0, 1},
      {1, 1, 0, 1},
      {255, 1000, 0, 200},
      {256, 1000, 0, 200},
      {257, 300, 0, 2},
      {5000, 5000, 0, 200},
      {70'000, 1u << 20, 0, 200},
      {70'000, 9000, 0, 2},  // every key some times over
      {3000, 1, 0, 200},     // one id
      {3000, 1000, 1, 200},
      {3000, 1000, 8, 200},  // one bucket
      {3000, 1000, 15, 200},
  };
  std::vector<PlaceRow> scratch;  // of the lot before, as in a bulk load
  for (size_t i = 0; i < std::size(lots); ++i) {
    const uint64_t seed = 100 + i;
    SCOPED_TRACE(testing::Message() << "lot " << i << ", seed " << seed);
    std::mt19937_64 random(seed);
    std::vector<PlaceRow> rows = make_rows(lots[i], random);
    std::vector<std::string> keys;
    for (const PlaceRow& row : rows) keys.push_back(key_bytes(row));
    std::sort(keys.begin(), keys.end());
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());

    sort_places(rows, scratch);

    ASSERT_EQ(rows.size(), keys.size());
    for (size_t at = 0; at < rows.size(); ++at) {
      ASSERT_EQ(key_bytes(rows[at]), keys[at]) << at;
      const PlaceRow whole = complete(rows[at]);
      ASSERT_TRUE(whole.checksum == rows[at].checksum && whole.codec == rows[at].codec &&
                  whole.flags == rows[at].flags && whole.stored_bytes == rows[at].stored_bytes)
          << at;
    }
  }
}

}  // namespace
}  // namespace caisson

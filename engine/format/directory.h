// Tensor records and the paged directory that holds them: of a rank part in the order of puts, of a
// checkpoint sorted by name, so that one tensor is found with two small reads. docs/format.md,
// "Directory". Pure.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "caisson/tensor.h"
#include "engine/tiling.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson {

enum class TensorKind : uint8_t {
  kTensor = 0,
  kBlob = 1,   // bytes: dtype u8, one dimension
  kAlias = 2,  // a tied weight: another name of `alias_of`
};

// One box that one rank part holds of a tensor.
struct ShardRecord {
  uint32_t part = 0;  // index into the root's parts; 0 within a part
  Box box;
  PieceGrid grid;            // the tile grid, or the shard's own
  uint64_t first_piece = 0;  // which pieces of the box are stored here: all, or a replica's share
  uint64_t pieces = 0;
  uint64_t first_entry = 0;  // the pieces' entries stand in order from here in the part's table
  bool operator==(const ShardRecord&) const = default;
};

struct TensorRecord {
  TensorSpec spec;
  TensorKind kind = TensorKind::kTensor;
  std::string alias_of;  // kAlias only
  Shape tile;
  std::vector<ShardRecord> shards;
};

namespace format {

inline constexpr size_t kShardBytesMin = 13;  // in a page
inline constexpr size_t kRecordBytesMin = 7;

// All records of a page but the last end within this many bytes of its start, and a record has at
// most kShardsMax shards: so a page gives at most 9,361 records and 5,041 + kShardsMax shards,
// whatever it counts, and never asks for more than 85 MB of memory.
inline constexpr size_t kPageBytesTarget = 64 << 10;
inline constexpr uint64_t kShardsMax = 1u << 18;  // of one tensor
inline constexpr uint32_t kPageRecordsMax = kPageBytesTarget / kRecordBytesMin - 1;
inline constexpr size_t kPageBytesMax = 64 << 20;  // one tensor with very many shards
static_assert(kPageRecordsMax * sizeof(TensorRecord) +
                  (kPageBytesTarget / kShardBytesMin + kShardsMax) * sizeof(ShardRecord) <=
              85'000'000);

// Streams records into pages, each with its checksum. take_page() gives finished pages to write in
// order; finish() gives the page index, which ends the directory.
class DirectoryEncoder {
 public:
  explicit DirectoryEncoder(const Uuid& salt) : salt_(salt) {}
  // REQUIRES: at most kShardsMax shards.
  void add(const TensorRecord& record);
  // The same of a record that for_each_record gave, as it stands.
  void add_encoded(std::string_view name, Bytes record);
  // Bytes ready to be appended since the last call; empty while the page is still filling.
  ByteVector take_pages();
  // The rest of the pages and then the page index. Call once, last.
  ByteVector finish();
  uint64_t index_offset() const {
    return index_offset_;
  }  // from the directory's start; after finish
  uint64_t tensors() const { return tensors_; }

 private:
  void begin_record(std::string_view name);
  void end_record();
  void close_page();
  struct PageInfo {
    std::string first_name;
    uint64_t offset = 0;
    uint32_t bytes = 0;
    uint32_t records = 0;
  };
  Uuid salt_;
  ByteWriter page_;
  uint32_t page_records_ = 0;
  std::string page_first_name_;
  ByteVector ready_;
  uint64_t offset_ = 0;
  uint64_t index_offset_ = 0;
  uint64_t tensors_ = 0;
  std::vector<PageInfo> pages_;
};

struct DirectoryPage {
  std::string first_name;
  uint64_t offset = 0;  // from the directory's start
  uint32_t bytes = 0;
  uint32_t records = 0;
};
// The page index. `directory_bytes` bounds every page.
Result<std::vector<DirectoryPage>> decode_page_index(const Uuid& salt, uint64_t index_offset,
                                                     Bytes index, std::string_view what);
Result<std::vector<TensorRecord>> decode_page(const Uuid& salt, const DirectoryPage& page,
                                              Bytes bytes, std::string_view what);
// The records of a page in their order, one at a time, each with its encoded form, which lies in
// `bytes`. Stops at the first Status that is not ok.
Status for_each_record(const Uuid& salt, const DirectoryPage& page, Bytes bytes,
                       std::string_view what,
                       const std::function<Status(const TensorRecord&, Bytes encoded)>& visit);
// One of those again. REQUIRES: `encoded` is what for_each_record gave.
void decode_record(Bytes encoded, TensorRecord& record);
std::string_view name_of_record(Bytes encoded);

}  // namespace format
}  // namespace caisson

#include "engine/root_packs.h"

#include <algorithm>
#include <string>
#include <utility>

#include "io/base/mutant.h"

namespace caisson {

namespace {

using format::SealedRef;

// Most roots are read whole with this, tables included.
constexpr uint64_t kFirstReadBytes = 64 << 10;

std::vector<uint64_t> first_rows(const format::Root& root) {
  std::vector<uint64_t> first;
  uint64_t rows = 0;
  for (const format::RootPart& part : root.parts)
    first.push_back(std::exchange(rows, rows + part.packs));
  return first;
}

}  // namespace

RootPacks::RootPacks(ObjectReads& reads, const SealedRef& sealed, const format::Root& root)
    : reads_(&reads),
      sealed_(sealed),
      root_(root),
      what_(sealed.object.key()),
      first_of_part_(first_rows(root)),
      packs_(root.tables_offset, root.packs),
      part_packs_(root.tables_offset + format::packs_bytes(root.packs), root.part_packs()) {}

RootPacks::RootPacks(const format::Root& root, const format::PackTables& tables)
    : reads_(nullptr),
      sealed_{.object = root.object},
      root_(root),
      what_(root.object.key()),
      first_of_part_(first_rows(root)),
      packs_(root.tables_offset, tables.packs.size()),
      part_packs_(root.tables_offset, tables.of_parts.size()) {
  const auto fill = [](auto& table, const auto& from) {
    for (uint64_t i = 0; i < from.size(); ++i) {
      auto& group = table.groups[i / table.kPerGroup];
      group.rows.push_back(from[i]);
      group.ready.store(true, std::memory_order_release);
    }
  };
  fill(packs_, tables.packs);
  fill(part_packs_, tables.of_parts);
}

template <typename AnyTable, typename BytesOf, typename Decode>
Status RootPacks::need_row(AnyTable& table, uint64_t row, const BytesOf& bytes_of,
                           const Decode& decode) {
  auto& group = table.groups[row / AnyTable::kPerGroup];
  if (group.ready.load(std::memory_order_acquire)) return ok_status();
  const uint64_t first = row / AnyTable::kPerGroup * AnyTable::kPerGroup;
  const uint64_t count = std::min(AnyTable::kPerGroup, table.count - first);
  const uint64_t offset = table.offset + bytes_of(first);
  ByteVector blocks(static_cast<size_t>(bytes_of(count)));
  CAISSON_RETURN_IF_ERROR(reads_->read(sealed_, offset, blocks));
  auto rows = decode(offset, Bytes(blocks), count);
  if (!rows.ok()) return rows.status();
  // Read without the lock: two threads may read the same group, none waits for another's I/O.
  MutexLock lock(mutex_);
  if (group.ready.load(std::memory_order_relaxed)) return ok_status();
  group.rows = std::move(rows).value();
  group.ready.store(true, std::memory_order_release);
  return ok_status();
}

Status RootPacks::need_pack(uint64_t index) {
  return need_row(packs_, index, format::packs_bytes,
                  [&](uint64_t offset, Bytes blocks, uint64_t count) {
                    return format::decode_packs(root_.object.writer, offset, blocks, count, what_);
                  });
}

Status RootPacks::need_part_pack(uint64_t row) {
  return need_row(part_packs_, row, format::part_packs_bytes,
                  [&](uint64_t offset, Bytes blocks, uint64_t count) {
                    return format::decode_part_packs(root_.object.writer, offset, blocks, count,
                                                     packs_.count, what_);
                  });
}

Status RootPacks::need(uint32_t part, uint32_t pack) {
  CAISSON_RETURN_IF_ERROR(need_part_pack(first_of_part_[part] + pack));
  return need_pack(index_of(part, pack));
}

Result<const SealedRef*> RootPacks::find(const format::ObjectRef& pack) {
  uint64_t first = 0, end = packs_.count;
  while (first < end) {
    const uint64_t middle = first + (end - first) / 2;
    CAISSON_RETURN_IF_ERROR(need_pack(middle));
    const SealedRef& row = packs_.at(middle);
    if (row.object == pack) return &row;
    (row.object < pack ? first = middle + 1 : end = middle);
  }
  return nullptr;
}

Result<format::PackTables> RootPacks::all() {
  if (reads_ == nullptr) {
    format::PackTables tables;
    for (const auto& group : packs_.groups) {
      tables.packs.insert(tables.packs.end(), group.rows.begin(), group.rows.end());
    }
    for (const auto& group : part_packs_.groups) {
      tables.of_parts.insert(tables.of_parts.end(), group.rows.begin(), group.rows.end());
    }
    return tables;
  }
  ByteVector bytes(static_cast<size_t>(sealed_.bytes - root_.tables_offset));
  CAISSON_RETURN_IF_ERROR(reads_->read(sealed_, root_.tables_offset, bytes));
  return format::decode_pack_tables(root_, bytes, what_);
}

Result<OpenRoot> read_root_head(ObjectReads& reads, const SealedRef& sealed) {
  const std::string key = sealed.object.key();
  if (sealed.bytes > format::kRootBytesMax) {
    return corruption(key + ": the root is larger than any can be");
  }
  ByteVector bytes(static_cast<size_t>(std::min(sealed.bytes, kFirstReadBytes)));
  CAISSON_RETURN_IF_ERROR(reads.read(sealed, 0, bytes));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t head_bytes, format::root_head_bytes(bytes, key));
  if (head_bytes > sealed.bytes) return corruption(key + ": the head is longer than the root");
  const auto have = bytes.size();
  if (head_bytes > have) {
    bytes.resize(static_cast<size_t>(head_bytes));
    CAISSON_RETURN_IF_ERROR(reads.read(sealed, have, MutableBytes(bytes).subspan(have)));
  }
  const Bytes head = Bytes(bytes).first(static_cast<size_t>(head_bytes));
  if (digest_of(head) != sealed.digest && !CAISSON_MUTANT(root_digest)) {
    return corruption(key + ": the root is not the one that was committed: its head of " +
                      std::to_string(head_bytes) + " bytes has another digest");
  }
  CAISSON_ASSIGN_OR_RETURN(format::Root root,
                           format::decode_root(sealed.object, sealed.bytes, head, key));
  OpenRoot open{.root = std::move(root), .tables = {}};
  if (bytes.size() == sealed.bytes) {
    open.tables.assign(bytes.begin() + static_cast<ptrdiff_t>(head_bytes), bytes.end());
  }
  return open;
}

}  // namespace caisson

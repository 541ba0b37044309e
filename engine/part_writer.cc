#include "engine/part_writer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "io/base/check.h"

namespace caisson {

using format::kBlockBytes;

namespace {

// What is reserved for a part that outgrew kTableBytesHeld, and is cut to size when sealed: a
// hundred million entries. Such a part describes hundreds of gigabytes at least.
constexpr uint64_t kSpilledPartBytesMax = 6ull << 30;
constexpr size_t kInlineSliceBytes = 1u << 20;

}  // namespace

PartWriter::PartWriter(ObjectStore& objects, const format::ObjectRef& part, uint32_t rank)
    : objects_(objects), directory_(part.writer) {
  CAISSON_CHECK(part.kind == format::ObjectKind::kPart);
  trailer_.part = part;
  trailer_.rank = rank;
  block_.reserve(format::kEntriesPerBlock);
}

Result<uint16_t> PartWriter::pack_index(const format::ObjectRef& pack) {
  return pack_index(format::SealedRef{.object = pack, .bytes = 0, .digest = {}});
}

Result<uint16_t> PartWriter::pack_index(const format::SealedRef& pack) {
  if (last_pack_index_ != format::kPackInline && last_pack_ == pack.object) return last_pack_index_;
  auto found = pack_indices_.find(pack.object);
  if (found == pack_indices_.end()) {
    if (packs_.size() >= format::kPacksMax) {
      return unsupported("rank part " + trailer_.part.key() + " refers to more than " +
                         std::to_string(format::kPacksMax) +
                         " packs; save it without dedup, or by more ranks");
    }
    found = pack_indices_.emplace(pack.object, static_cast<uint16_t>(packs_.size())).first;
    packs_.push_back(pack);
  }
  last_pack_ = pack.object;
  last_pack_index_ = found->second;
  return last_pack_index_;
}

bool PartWriter::try_reserve_inline(uint64_t bytes) {
  uint64_t reserved = inline_reserved_.load(std::memory_order_relaxed);
  while (reserved + bytes <= kInlineBytesHeld) {
    if (inline_reserved_.compare_exchange_weak(reserved, reserved + bytes,
                                               std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

Status PartWriter::add(const format::ChunkEntry& entry) {
  if (!error_.ok()) return error_;
  CAISSON_CHECK(entry.pack == format::kPackInline || entry.pack < packs_.size());
  block_.push_back(entry);
  ++trailer_.entries;
  trailer_.raw_bytes += entry.raw_bytes;
  if (block_.size() == format::kEntriesPerBlock) close_block();
  return table_.size() < kTableBytesHeld ? ok_status() : spill();
}

Status PartWriter::add_inline(format::ChunkEntry entry, Bytes raw) {
  CAISSON_CHECK(!raw.empty() && raw.size() <= format::kInlineBytesMax);
  CAISSON_CHECK(inline_bytes_ + raw.size() <= inline_reserved_.load(std::memory_order_relaxed));
  entry.pack = format::kPackInline;
  entry.codec = 0;
  entry.flags = 0;
  entry.reason = format::CodecReason::kNotTold;
  entry.raw_bytes = entry.stored_bytes = static_cast<uint32_t>(raw.size());
  entry.offset_units = static_cast<uint32_t>(inline_bytes_);
  entry.stored_checksum = chunk_checksum(raw, salt_of(trailer_.part.writer, inline_bytes_));
  if (inline_.empty() || inline_.back().size() + raw.size() > kInlineSliceBytes) {
    inline_.emplace_back();
  }
  inline_.back().insert(inline_.back().end(), raw.begin(), raw.end());
  inline_bytes_ += raw.size();
  trailer_.stored_bytes += raw.size();
  return add(entry);
}

void PartWriter::add_record(const TensorRecord& record) {
  directory_.add(record);
  if (ByteVector pages = directory_.take_pages(); !pages.empty()) {
    pages_.push_back(std::move(pages));
  }
}

void PartWriter::close_block() {
  if (block_.empty()) return;
  std::array<std::byte, kBlockBytes> block{};
  format::encode_entry_block(trailer_.part.writer, blocks_, block_, block);
  table_.insert(table_.end(), block.begin(), block.end());
  ++blocks_;
  block_.clear();
}

// Writes the finished blocks, so that the table does not grow in memory.
Status PartWriter::spill() {
  if (object_ == nullptr) {
    auto object = objects_.create(trailer_.part.key(), kSpilledPartBytesMax);
    if (!object.ok()) return error_ = object.status();
    object_ = std::move(object).value();
  }
  CAISSON_RETURN_IF_ERROR(append(table_));
  table_.clear();
  return ok_status();
}

Status PartWriter::append(Bytes bytes) {
  if (bytes.empty()) return ok_status();
  if (Status status = object_->write(written_, bytes); !status.ok()) return error_ = status;
  body_.add(bytes);
  written_ += bytes.size();
  return ok_status();
}

Result<ByteVector> PartWriter::finish_pack_list(std::span<const format::SealedRef> sealed) {
  for (const format::SealedRef& pack : sealed) {
    const auto found = pack_indices_.find(pack.object);
    if (found != pack_indices_.end()) packs_[found->second] = pack;
  }
  for (const format::SealedRef& pack : packs_) CAISSON_CHECK(pack.bytes != 0);
  return format::encode_pack_list(trailer_.part.writer, packs_);
}

Result<format::SealedRef> PartWriter::seal(std::span<const format::SealedRef> packs) {
  if (!error_.ok()) return error_;
  close_block();
  const ByteVector directory_end = directory_.finish();
  CAISSON_ASSIGN_OR_RETURN(const ByteVector pack_list, finish_pack_list(packs));

  // The places of the sections, in file order.
  uint64_t pages_bytes = 0;
  for (const ByteVector& pages : pages_) pages_bytes += pages.size();
  trailer_.inline_offset = blocks_ * kBlockBytes;
  trailer_.inline_bytes = inline_bytes_;
  trailer_.directory_offset = trailer_.inline_offset + inline_bytes_;
  trailer_.directory_index_offset = directory_.index_offset();
  trailer_.directory_bytes = pages_bytes + directory_end.size();
  trailer_.tensors = directory_.tensors();
  trailer_.packs_offset = trailer_.directory_offset + trailer_.directory_bytes;
  trailer_.packs_bytes = pack_list.size();
  const uint64_t bytes = trailer_.packs_offset + trailer_.packs_bytes + kBlockBytes;

  if (object_ == nullptr) {
    CAISSON_ASSIGN_OR_RETURN(object_, objects_.create(trailer_.part.key(), bytes));
  }
  CAISSON_RETURN_IF_ERROR(append(table_));
  for (const ByteVector& slice : inline_) CAISSON_RETURN_IF_ERROR(append(slice));
  for (const ByteVector& pages : pages_) CAISSON_RETURN_IF_ERROR(append(pages));
  CAISSON_RETURN_IF_ERROR(append(directory_end));
  CAISSON_RETURN_IF_ERROR(append(pack_list));
  CAISSON_CHECK(written_ + kBlockBytes == bytes);

  trailer_.body_digest = body_.finish();
  const ByteVector trailer = format::encode_part_trailer(trailer_);
  CAISSON_RETURN_IF_ERROR(append(trailer));
  if (Status status = object_->publish(bytes); !status.ok()) return error_ = status;
  return format::SealedRef{.object = trailer_.part, .bytes = bytes, .digest = digest_of(trailer)};
}

}  // namespace caisson

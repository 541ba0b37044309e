#include "engine/pack_writer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/metrics.h"
#include "io/base/check.h"

namespace caisson {

using format::kBlockBytes;
using format::kSegmentBytesMax;

namespace {

constexpr size_t kFullPacksMax = 4;  // not durable yet, each an open file

// A directory block for each segment again, and the trailer.
constexpr uint64_t footer_bytes(uint64_t segments) { return (segments + 1) * kBlockBytes; }
constexpr uint64_t pack_bytes(uint64_t full_segments) {
  return kBlockBytes + full_segments * kSegmentBytesMax + footer_bytes(full_segments);
}

// What full segments fill to the last byte: nothing is left to be cut off. Cutting waits for the
// blocks to be discarded, which waits for the writes in flight.
constexpr uint64_t kFullPackBytes =
    pack_bytes((format::kPackBytesMax - pack_bytes(0)) / (pack_bytes(1) - pack_bytes(0)));
static_assert(kFullPackBytes <= format::kPackBytesMax);

// Room for a pack that will take `bytes_left` of payload: directories, padding between chunks and
// one segment that is not filled. A wrong guess costs a second pack, nothing else.
uint64_t pack_bound(uint64_t bytes_left, uint64_t bytes_max) {
  uint64_t bound = kFullPackBytes;
  if (bytes_left < bound) {
    bound = std::min(bound, align_up(bytes_left + bytes_left / 16, kBlockBytes) + kSegmentBytesMax +
                                8 * kBlockBytes);
  }
  return std::min(bound, bytes_max);
}

}  // namespace

PackWriter::PackWriter(ObjectStore& objects, const Options& options)
    : objects_(objects), options_(options), next_number_(options.first_number) {
  CAISSON_CHECK(options.number_step > 0);
  if (options_.trace == nullptr) return;
  write_row_ = options_.trace->row(options_.trace_rows + "6 write: waits and syncs");
  flight_row_ = options_.trace->row(options_.trace_rows + "6 write: bytes in flight");
}

PackWriter::~PackWriter() = default;

Status PackWriter::begin(BufferPool& pool) {
  if (!error_.ok()) return error_;
  CAISSON_CHECK(queue_ == nullptr && pool.buffer_bytes() >= 2 * kBlockBytes);
  const uint32_t buffers = pool.free_count();
  CAISSON_CHECK(buffers >= 2);
  // One buffer is always being filled, so one fewer can be in flight.
  writes_max_ = buffers - 1;
  const IoQueueOptions queue{.depth = writes_max_ + 1,  // and a pack that is sealed
                             .registered_memory = pool.warm_arena()};
  CAISSON_ASSIGN_OR_RETURN(queue_, objects_.make_queue(queue));
  pool_ = &pool;
  transfers_.assign(queue_->depth(), {});
  free_tags_.clear();
  for (uint64_t tag = queue_->depth(); tag > 0; --tag) free_tags_.push_back(tag - 1);
  return ok_status();
}

Result<MutableBytes> PackWriter::reserve(uint64_t bytes, bool block_aligned) {
  if (!error_.ok()) return error_;
  CAISSON_CHECK(queue_ != nullptr && reserved_bytes_ == 0);
  CAISSON_CHECK(bytes > 0 && bytes <= kSegmentBytesMax - kBlockBytes);
  CAISSON_RETURN_IF_ERROR(reap_ready());
  const uint64_t alignment = block_aligned ? kBlockBytes : format::kOffsetUnit;
  const auto fits = [&] {
    return !buffer_.empty() && align_up(cursor_, alignment) + bytes <= segment_end() &&
           segment_.entries.size() < format::kSegmentEntriesMax;
  };
  if (!fits()) CAISSON_RETURN_IF_ERROR(open_segment(bytes, alignment));
  CAISSON_CHECK(fits());
  reserved_at_ = align_up(cursor_, alignment);
  reserved_bytes_ = bytes;
  return buffer_.subspan(reserved_at_, bytes);
}

uint64_t PackWriter::reservations_in_a_row(uint64_t bytes, bool block_aligned) const {
  const uint64_t alignment = block_aligned ? kBlockBytes : format::kOffsetUnit;
  const auto count = [&](uint64_t begin, uint64_t end, size_t entries) -> uint64_t {
    if (begin >= end) return 0;
    return std::min<uint64_t>((end - begin) / bytes, format::kSegmentEntriesMax - entries);
  };
  uint64_t here = 0;
  if (!buffer_.empty()) {
    here = count(align_up(cursor_, alignment), segment_end(), segment_.entries.size());
    if (here == 0) {
      const uint64_t next = next_segment();
      const uint64_t end = std::min<uint64_t>(next + kSegmentBytesMax, buffer_.size());
      here = count(align_up(next + kBlockBytes, alignment), end, 0);
    }
  }
  // In a buffer of its own, behind the pack's header and the segment's directory.
  if (here == 0) here = count(2 * kBlockBytes, pool_->buffer_bytes(), 0);
  return std::max<uint64_t>(here, 1);
}

// Of the buffer. Before a pack's first segment it holds the pack's header block.
uint64_t PackWriter::segment_end() const {
  return std::min<uint64_t>(segment_.offset - buffer_offset_ + kSegmentBytesMax, buffer_.size());
}

// Where it begins in the buffer, behind the open one.
uint64_t PackWriter::next_segment() const {
  return segment_.entries.empty() ? segment_.offset - buffer_offset_
                                  : align_up(cursor_, kBlockBytes);
}

void PackWriter::commit(format::ChunkEntry& entry, const Digest& digest) {
  CAISSON_CHECK(entry.stored_bytes > 0 && entry.stored_bytes <= reserved_bytes_);
  const uint64_t offset = buffer_offset_ + reserved_at_;
  entry.pack = format::kPackSelf;
  entry.offset_units = static_cast<uint32_t>(offset / format::kOffsetUnit);
  entry.stored_checksum = chunk_checksum(digest, format::pack_salt(open_->ref, offset));
  std::ranges::fill(buffer_.subspan(cursor_, reserved_at_ - cursor_), std::byte{0});
  cursor_ = reserved_at_ + entry.stored_bytes;
  reserved_bytes_ = 0;
  segment_.entries.push_back(entry);
  stored_bytes_ += entry.stored_bytes;
  bytes_left_ -= std::min<uint64_t>(bytes_left_, entry.raw_bytes);
}

void PackWriter::drop() { reserved_bytes_ = 0; }

void PackWriter::open_pack() {
  open_ = std::make_unique<Pack>();
  open_->ref = {.kind = format::ObjectKind::kPack,
                .save = options_.save,
                .writer = options_.writer,
                .number = next_number_};
  if (bytes_max_ == 0) {
    const uint64_t store_max = objects_.caps().object_bytes_max;
    bytes_max_ = std::min(options_.pack_bytes_max, store_max == 0 ? UINT64_MAX : store_max);
  }
  open_->bytes_max = pack_bound(bytes_left_, bytes_max_);
  open_->end = kBlockBytes;
  next_number_ += options_.number_step;
}

// It cannot hold another whole segment and its footer.
bool PackWriter::pack_is_full() const {
  return open_->end + kSegmentBytesMax + footer_bytes(open_->segments.size() + 1) >
         open_->bytes_max;
}

// For a chunk that the open segment does not take: behind it in the buffer where there is room, or
// else in the next buffer, in a new pack when the open one is full.
Status PackWriter::open_segment(uint64_t bytes, uint64_t alignment) {
  const bool stays = !buffer_.empty() &&
                     align_up(next_segment() + kBlockBytes, alignment) + bytes <= buffer_.size();
  end_segment();
  const bool full = open_ != nullptr && pack_is_full();
  if (!stays || full) {
    CAISSON_RETURN_IF_ERROR(submit_buffer());
    if (full) CAISSON_RETURN_IF_ERROR(close_pack());
    if (open_ == nullptr) open_pack();
    CAISSON_RETURN_IF_ERROR(take_buffer());
    buffer_offset_ = open_->segments.empty() ? 0 : open_->end;
  }
  segment_ = {.offset = open_->end, .bytes = 0, .entries = {}};
  cursor_ = open_->end - buffer_offset_ + kBlockBytes;  // the directory block comes first
  return ok_status();
}

Status PackWriter::take_buffer() {
  return wait_until([&] {
    buffer_ = pool_->take();
    return !buffer_.empty();
  });
}

// For the device, when it has all that it takes at once.
template <typename HasRoom>
Status PackWriter::wait_until(const HasRoom& has_room) {
  if (has_room()) return ok_status();
  if (!queue_->ready()) ++device_use_.waits;
  do {
    CAISSON_RETURN_IF_ERROR(reap());
  } while (!has_room());
  return ok_status();
}

// Nothing is added to the open segment any more. One that nothing was committed to is none.
void PackWriter::end_segment() {
  if (buffer_.empty() || segment_.entries.empty()) return;
  const uint64_t begin = segment_.offset - buffer_offset_;
  const uint64_t end = align_up(cursor_, kBlockBytes);
  std::ranges::fill(buffer_.subspan(cursor_, end - cursor_), std::byte{0});
  segment_.bytes = end - begin;
  format::encode_segment_directory(open_->ref, segment_, buffer_.subspan(begin, kBlockBytes));
  open_->end = segment_.offset + segment_.bytes;
  open_->segments.push_back(std::move(segment_));
  segment_ = {};
}

// Hands the segments in the buffer to the device; without any, the buffer goes back.
Status PackWriter::submit_buffer() {
  if (buffer_.empty()) return ok_status();
  const MutableBytes buffer = std::exchange(buffer_, {});
  const uint64_t bytes = open_->end - buffer_offset_;
  const uint64_t header_bytes = buffer_offset_ == 0 ? kBlockBytes : 0;
  if (bytes == header_bytes) {
    pool_->give(buffer);
    return ok_status();
  }
  if (header_bytes > 0) {
    const ByteVector header = format::encode_pack_header(open_->ref);
    CAISSON_CHECK(header.size() == kBlockBytes);
    std::ranges::copy(header, buffer.begin());
  }
  if (open_->object == nullptr) {
    auto object = objects_.create(open_->ref.key(), open_->bytes_max);
    if (!object.ok()) return poison(object.status());
    open_->object = std::move(object).value();
  }
  return submit(*open_, buffer_offset_, buffer.first(bytes), buffer);
}

Status PackWriter::submit(Pack& pack, uint64_t offset, Bytes bytes, MutableBytes buffer) {
  CAISSON_RETURN_IF_ERROR(wait_until([&] { return writes_in_flight() < writes_max_; }));
  if (options_.metrics != nullptr) {
    options_.metrics->state().write_depth.observe(uint64_t{writes_in_flight()});
    options_.metrics->state().save_written_bytes.add(bytes.size());
  }
  const uint64_t tag = free_tags_.back();
  const Status submitted = queue_->submit_write(*pack.object, offset, bytes, tag);
  if (!submitted.ok()) return poison(submitted);
  note_time();
  free_tags_.pop_back();
  transfers_[tag] = {.buffer = buffer, .bytes = bytes.size(), .pack = &pack};
  add_in_flight(bytes.size());
  ++pack.in_flight;
  device_use_.queue_level = static_cast<double>(writes_in_flight()) / writes_max_;
  return ok_status();
}

// Nothing is added to the open pack any more: its footer goes to the device behind its segments.
Status PackWriter::close_pack() {
  // Where writes outrun syncs, as into a page cache, whoever fills the next pack waits for these.
  CAISSON_RETURN_IF_ERROR(wait_until([&] { return full_.size() < kFullPacksMax; }));
  Pack& pack = *open_;
  if (pack.object != nullptr) {  // something was committed to it
    CAISSON_RETURN_IF_ERROR(encode_footer(pack));
    CAISSON_RETURN_IF_ERROR(submit(pack, pack.end, pack.footer.bytes(), {}));
  }
  full_.push_back(std::move(open_));
  return settle();
}

Status PackWriter::encode_footer(Pack& pack) {
  const ByteVector footer = format::encode_pack_footer(pack.ref, pack.end, pack.segments);
  CAISSON_CHECK(pack.end + footer.size() <= pack.bytes_max);
  auto buffer = AlignedBuffer::allocate(footer.size());
  if (!buffer.ok()) return poison(buffer.status());
  pack.footer = std::move(buffer).value();
  std::ranges::copy(footer, pack.footer.data());
  return ok_status();
}

// Waits for one write, and seals the packs that it was the last of.
Status PackWriter::reap() {
  CAISSON_RETURN_IF_ERROR(take_completion());
  return settle();
}

// What has come back is taken while the next segment is being filled, so that the device's time is
// known to the length of a piece.
Status PackWriter::reap_ready() {
  if (!queue_->ready()) return ok_status();
  while (queue_->ready()) CAISSON_RETURN_IF_ERROR(take_completion());
  device_use_.queue_level = static_cast<double>(writes_in_flight()) / writes_max_;
  return settle();
}

Status PackWriter::take_completion() {
  const auto wait = [&] {
    const TraceSpan span(options_.trace, write_row_, "wait for a write");
    return queue_->wait();
  };
  const auto completion = wait();
  if (!completion.ok()) return poison(completion.status());
  note_time();
  const Transfer transfer = std::exchange(transfers_[completion->tag], {});
  free_tags_.push_back(completion->tag);
  if (transfer.bytes == 0) {
    sealing_ = false;
    if (!completion->status.ok()) return poison(completion->status);
    sealed(*transfer.pack);
    return ok_status();
  }
  device_use_.written_bytes += transfer.bytes;
  add_in_flight(uint64_t{0} - transfer.bytes);
  --transfer.pack->in_flight;
  if (!transfer.buffer.empty()) pool_->give(transfer.buffer);
  return completion->status.ok() ? ok_status() : poison(completion->status);
}

// Before a write begins or ends to be in flight.
void PackWriter::note_time() {
  const auto now = std::chrono::steady_clock::now();
  if (writes_in_flight() > 0) {
    device_use_.busy_seconds += std::chrono::duration<double>(now - noted_).count();
  }
  noted_ = now;
}

uint32_t PackWriter::writes_in_flight() const {
  return static_cast<uint32_t>(transfers_.size() - free_tags_.size()) - (sealing_ ? 1 : 0);
}

// Full packs in their order, one at a time: all that is written of a pack is durable behind it.
Status PackWriter::settle() {
  while (!full_.empty() && full_.front()->in_flight == 0 && !sealing_) {
    Pack& pack = *full_.front();
    if (pack.object == nullptr) {  // nothing was committed to it
      full_.pop_front();
    } else {
      CAISSON_RETURN_IF_ERROR(queue_ != nullptr ? start_seal(pack) : seal(pack));
    }
  }
  return ok_status();
}

// Data and name durable, behind the footer, beside the writes of the next pack.
Status PackWriter::start_seal(Pack& pack) {
  const uint64_t tag = free_tags_.back();
  const Status submitted = queue_->submit_publish(*pack.object, pack.bytes(), tag);
  if (!submitted.ok()) return poison(submitted);
  free_tags_.pop_back();
  transfers_[tag] = {.buffer = {}, .bytes = 0, .pack = &pack};
  sealing_ = true;
  return ok_status();
}

// The same with nothing else to do: the last pack.
Status PackWriter::seal(Pack& pack) {
  const TraceSpan span(options_.trace, write_row_, "sync a pack", pack.end);
  if (pack.footer.size() == 0) {
    CAISSON_RETURN_IF_ERROR(encode_footer(pack));
    if (Status written = pack.object->write(pack.end, pack.footer.bytes()); !written.ok()) {
      return poison(written);
    }
  }
  if (Status published = pack.object->publish(pack.bytes()); !published.ok()) {
    return poison(published);
  }
  sealed(pack);
  return ok_status();
}

// REQUIRES: it is the first of full_.
void PackWriter::sealed(const Pack& pack) {
  sealed_.push_back(
      {.object = pack.ref, .bytes = pack.bytes(), .digest = digest_of(pack.footer.bytes())});
  full_.pop_front();
}

Status PackWriter::end() {
  CAISSON_CHECK(reserved_bytes_ == 0);
  Status status = error_;
  end_segment();
  if (status.ok()) status = submit_buffer();
  while (status.ok() && queue_ != nullptr && queue_->in_flight() > 0) status = reap();
  // After an error this waits for the writes in flight, whose buffers the pool is about to unmap.
  queue_.reset();
  pool_ = nullptr;
  buffer_ = {};
  return status;
}

Result<std::vector<format::SealedRef>> PackWriter::finish() {
  CAISSON_CHECK(queue_ == nullptr);
  if (!error_.ok()) return error_;
  if (open_ != nullptr) full_.push_back(std::move(open_));
  CAISSON_RETURN_IF_ERROR(settle());
  return std::move(sealed_);
}

void PackWriter::add_in_flight(uint64_t bytes) {
  bytes_in_flight_ += bytes;
  if (options_.trace != nullptr) options_.trace->level(flight_row_, bytes_in_flight_);
}

Status PackWriter::poison(const Status& status) {
  if (error_.ok()) error_ = status.with_context("the pack writer stopped");
  return error_;
}

}  // namespace caisson

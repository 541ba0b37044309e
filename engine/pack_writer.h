// One worker's packs. The save pipeline reserves room in the segment that is being filled, gathers
// or encodes a chunk straight into it, and commits or drops it; whole segments go to the device
// through the worker's own TransferQueue, behind the last one of a pack its footer. As soon as its
// last write has come back a full pack is sealed (sync, name), as one more request of the queue,
// while the next one is being filled. A footer or a sync that the worker waited for would wait for
// all writes in flight, and the device then for us.
//
// Thread-compatible: one worker owns it, and everything between begin() and end() happens on one
// thread. Invariants:
// - a pack's object is created once, with the bound of what it may hold, so that no write extends
//   it; a pack nothing was committed to is never created;
// - every byte of a segment is written by us: gaps are zeroed, so equal input gives equal packs;
// - the first failure of a write or sync poisons the writer: every later call returns it,
//   nothing is sealed any more,
//   and destruction removes what was not sealed.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <vector>

#include "caisson/metrics.h"
#include "caisson/trace.h"
#include "engine/format/pack.h"
#include "io/base/buffer.h"
#include "io/object_store.h"

namespace caisson {

// Buffers that PackWriter::begin takes: a whole segment, and before the first one of a pack its
// header block, in one write. Of small chunks several segments, since one tells of so many at most.
inline constexpr uint64_t kSegmentBufferBytes = format::kSegmentBytesMax + format::kBlockBytes;

// What a worker knows of the device from its own writes.
struct DeviceUse {
  uint64_t written_bytes = 0;  // that have come back
  double busy_seconds = 0;     // during which something was in flight
  uint64_t waits = 0;          // of ours, because the queue was full
  double queue_level = 0;      // how full it is, 0 to 1
};

class PackWriter {
 public:
  struct Options {
    Uuid save;
    Uuid writer;
    // Packs are numbered first_number, first_number + number_step, ...: the workers of one part
    // share a writer uuid and interleave their numbers.
    uint32_t first_number = 0;
    uint32_t number_step = 1;
    uint64_t pack_bytes_max = format::kPackBytesMax;  // one segment and its footer at least
    Trace* trace = nullptr;                           // may be null
    std::string trace_rows{};                         // what its rows begin with
    Metrics* metrics = nullptr;                       // may be null
  };
  PackWriter(ObjectStore& objects, const Options& options);
  ~PackWriter();
  PackWriter(const PackWriter&) = delete;
  PackWriter& operator=(const PackWriter&) = delete;

  // Makes the ring over the pool's arena. `pool` (buffers of kSegmentBufferBytes, or of less where
  // all that is reserved until end() fits one, at least two) stays alive until end() or
  // destruction.
  Status begin(BufferPool& pool);
  // An upper bound of what will still be stored: a pack that is opened from now on reserves no more
  // room than that.
  void expect(uint64_t bytes_left) { bytes_left_ = bytes_left; }

  // Room for `bytes` (1 .. the segment's payload), at a multiple of 4 KiB when `block_aligned`,
  // else of 64. Submits the segment and waits for a free buffer where it has to. One reservation at
  // a time, ended by commit or drop.
  Result<MutableBytes> reserve(uint64_t bytes, bool block_aligned);
  // How many reservations of `bytes`, a multiple of the alignment, follow each other without a gap
  // from the next one on, each in the place where the one before ends. At least 1. Until they are
  // made, what is written behind the first of them stays as it is.
  uint64_t reservations_in_a_row(uint64_t bytes, bool block_aligned) const;
  // The first entry.stored_bytes bytes of the reservation, whose digest is `digest`, are the stored
  // form of entry.id: fills in place and checksum.
  void commit(format::ChunkEntry& entry, const Digest& digest);
  void drop();
  // The pack that commit() put the latest chunk into.
  const format::ObjectRef& pack() const { return open_->ref; }

  // Submits what is left, waits for every write, gives up ring and buffers. Packs stay open for
  // another begin(), possibly on another thread.
  Status end();
  // Seals every pack. REQUIRES: after end(). What was written is durable when it returns ok.
  Result<std::vector<format::SealedRef>> finish();

  uint64_t stored_bytes() const { return stored_bytes_; }  // of committed payloads

  // As of the latest reserve().
  const DeviceUse& device_use() const { return device_use_; }

 private:
  struct Pack {
    format::ObjectRef ref;
    uint64_t bytes_max = 0;
    uint64_t end = 0;  // where the next segment starts
    std::unique_ptr<ObjectWriter> object;
    std::vector<format::Segment> segments;
    AlignedBuffer footer;    // once nothing is added any more
    uint32_t in_flight = 0;  // writes

    uint64_t bytes() const { return end + footer.size(); }
  };
  struct Transfer {
    MutableBytes buffer;  // of the pool; empty: a footer
    uint64_t bytes = 0;   // of it, that are being written; 0: the pack is being sealed
    Pack* pack = nullptr;
  };

  uint64_t segment_end() const;
  uint64_t next_segment() const;
  bool pack_is_full() const;
  Status open_segment(uint64_t bytes, uint64_t alignment);
  Status take_buffer();
  template <typename HasRoom>
  Status wait_until(const HasRoom& has_room);
  Status take_completion();
  Status reap_ready();
  void note_time();
  void end_segment();
  Status submit_buffer();
  void open_pack();
  Status close_pack();
  Status encode_footer(Pack& pack);
  Status submit(Pack& pack, uint64_t offset, Bytes bytes, MutableBytes buffer);
  Status reap();
  Status settle();
  Status start_seal(Pack& pack);
  Status seal(Pack& pack);
  void sealed(const Pack& pack);
  uint32_t writes_in_flight() const;
  Status poison(const Status& status);
  void add_in_flight(uint64_t bytes);  // may be negative

  ObjectStore& objects_;
  const Options options_;
  uint32_t write_row_ = 0, flight_row_ = 0;  // of the trace
  uint64_t bytes_in_flight_ = 0;
  uint64_t bytes_left_ = format::kPackBytesMax;
  uint64_t bytes_max_ = 0;  // of a pack; 0: the store was not asked yet
  uint32_t next_number_;
  uint64_t stored_bytes_ = 0;
  DeviceUse device_use_;
  std::chrono::steady_clock::time_point noted_{};  // until when device_use_ is known
  Status error_;

  std::unique_ptr<Pack> open_;              // being filled
  std::deque<std::unique_ptr<Pack>> full_;  // writes in flight, then sealed in order
  bool sealing_ = false;                    // the first of them, by a request in flight
  std::vector<format::SealedRef> sealed_;

  MutableBytes buffer_;         // of the open segment; empty: none
  uint64_t buffer_offset_ = 0;  // of the buffer's first byte in the pack
  format::Segment segment_;     // the open one
  uint64_t cursor_ = 0;         // end of the last committed payload, in the buffer
  uint64_t reserved_at_ = 0, reserved_bytes_ = 0;

  BufferPool* pool_ = nullptr;
  uint32_t writes_max_ = 0;          // in flight
  std::vector<Transfer> transfers_;  // by tag
  std::vector<uint64_t> free_tags_;
  std::unique_ptr<TransferQueue>
      queue_;  // last: destroyed first, which waits for what is in flight
};

}  // namespace caisson

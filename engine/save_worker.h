// One worker of a rank part: takes pieces through stages 1 to 6 of the save path, gathers, hashes,
// encodes and drives its own ring, which was measured to be as fast as any division of labour.
// Used by save_pipeline.cc alone. Thread-compatible; what workers share is SaveShared.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "caisson/trace.h"
#include "compression/codec.h"
#include "engine/pack_writer.h"
#include "engine/part_writer.h"
#include "engine/save_batches.h"
#include "engine/save_codec.h"
#include "engine/save_plan.h"
#include "engine/store_dedup.h"

namespace caisson {

// What the workers of one rank part share.
struct SaveShared {
  SavePipeline::Config config;
  PartWriter part;
  std::unique_ptr<StoreDedup> store_dedup;  // null without hints
  SaveChunks chunks{};
  std::atomic<uint64_t> bytes_left{0};  // expected, not yet through stage 5
  std::vector<uint64_t> marks{};        // of this put: what each piece's memory was like when read
};

class SaveWorker {
 public:
  SaveWorker(ObjectStore& objects, MemoryBudget& budget, SaveShared& shared, uint32_t number,
             uint32_t workers);

  // Saves batches until none is left, then looks again at the memory of `checks`; `batches` hears
  // of a failure. On return nothing is in flight and no memory is held.
  void run(const SavePlan& plan, SaveBatches& batches, SaveBatches& checks);
  ParentDedup& parent() { return parent_; }
  const Status& parent_error() const { return parent_.error(); }
  PackWriter& packs() { return packs_; }
  const CodecTally& tally() const { return tally_; }

 private:
  // Stage 1's result: a piece of lent memory on its way.
  struct Piece {
    const PlannedShard& shard;
    uint64_t work;  // its number in the put
    Box box;
    uint64_t raw_bytes;

    DType dtype() const { return shard.record.spec.dtype; }
    const BoxMemory& memory() const { return shard.memory; }
  };

  Status make_buffers(const SavePlan& plan);
  const PlannedShard& shard_of(const SavePlan& plan, uint64_t work);

  Status save_batch(const SavePlan& plan, SaveBatch& batch);
  static Result<Piece> tile(const PlannedShard& shard, uint64_t work);
  Status save_piece(const Piece& piece, SaveBatch& batch);
  void save_inline(const Piece& piece, SaveBatch& batch);
  std::optional<PlacedChunk> find_in_parent(const Piece& piece);
  bool is_unchanged(const Piece& piece, const format::ChunkEntry& parent);
  std::optional<PlacedChunk> find_elsewhere(const format::ChunkEntry& entry);
  Status store_piece(const Piece& piece, std::optional<PlacedChunk> parent, SaveBatch& batch);
  std::optional<CodecChoice> choose_codec(const Piece& piece, Bytes raw);
  Result<Digest> encode(const Piece& piece, CodecChoice& choice, Bytes raw, const Digest& digest,
                        format::ChunkEntry& entry);
  void reuse(PlacedChunk chunk, SaveBatch& batch);

  // Is the memory what it was when it was read? `mark_*` note what it was like.
  void mark_sampled(const Piece& piece);
  void mark_digest(const Piece& piece, const Digest& digest);
  Status check_batch(const SavePlan& plan, const SaveBatch& batch);
  uint64_t mark_now(const Piece& piece);

  // The digest of a piece that is copied to `to` on the way.
  Digest copy_hashed(const Piece& piece, MutableBytes to, CopyStores stores);
  // Its digest where it lies; nothing when it must be copied for that.
  std::optional<Digest> hash_in_place(const Piece& piece);

  MemoryBudget& budget_;
  SaveShared& shared_;
  const uint32_t workers_;
  Trace* const trace_;
  const std::string trace_rows_;  // what the rows of this worker begin with
  uint32_t hash_row_ = 0, encode_row_ = 0, check_row_ = 0;
  ParentDedup parent_;
  CodecContext codec_context_;
  CodecPolicy policy_;
  CodecTally tally_;
  PackWriter::Buffers buffers_seen_;  // by the policy
  std::chrono::steady_clock::time_point began_{};
  BufferPool pool_;  // outlives the packs' ring
  PackWriter packs_;
  MutableBytes scratch_;  // the raw bytes of a piece that is about to be encoded
  const PlannedShard* selected_ = nullptr;
  size_t shard_index_ = 0;
  bool expect_same_ = true;  // the last piece compared was unchanged
};

}  // namespace caisson

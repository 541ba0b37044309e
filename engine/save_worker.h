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
#include "engine/tile_band.h"

namespace caisson {

// What the workers of one rank part share.
struct SaveShared {
  SavePipeline::Config config;
  PartWriter part;
  std::unique_ptr<StoreDedup> store_dedup;  // null without hints
  SaveChunks chunks{};
  std::atomic<uint64_t> bytes_left{0};  // expected, not yet through stage 5
};

// What a worker takes buffers for.
struct PutSize {
  uint64_t raw_bytes = 0;
  uint64_t pieces = 0;
};

class SaveWorker {
 public:
  SaveWorker(ObjectStore& objects, MemoryBudget& budget, SaveShared& shared, uint32_t number,
             uint32_t workers);

  // Saves batches until none is left, then looks again at the memory of `checks`; `batches` hears
  // of a failure. On return nothing is in flight and no memory is held.
  void run(const PutSize& size, SaveBatches& batches, SaveBatches& checks);
  ParentDedup& parent() { return parent_.dedup; }
  const Status& parent_error() const {
    return parent_.dedup.error().ok() ? twin_parent_.dedup.error() : parent_.dedup.error();
  }
  PackWriter& packs() { return packs_; }
  const CodecTally& tally() const { return tally_; }

 private:
  enum class Role : uint8_t { kAlone, kBase, kTwin };
  // Stage 1's result: a piece of lent memory on its way.
  struct Piece {
    const PlannedShard& shard;
    const BoxMemory& memory;
    Role role;
    uint64_t index;     // of those of its shard that this rank stores
    uint64_t in_a_row;  // so many of them come next in this batch, itself included
    uint64_t number;    // in the plan
    Box box;
    uint64_t raw_bytes;

    DType dtype() const { return shard.spec().dtype; }
  };

  // The parent, turned to the pieces of one shard.
  struct ParentView {
    ParentDedup dedup;
    const PlannedShard* selected = nullptr;
  };
  struct ShardMemory {
    const PlannedShard* shard = nullptr;
    BoxMemory memory;
  };
  // What stage 4 made of a piece.
  struct Stored {
    Digest digest{};  // of the stored form
    CodecChoice choice{};
    const format::SealedRef* base_pack = nullptr;  // of a delta
  };
  // What the twin that comes next may be encoded against: the piece before it, if that was stored.
  struct Base {
    Bytes raw{};  // in scratch_; empty: there is none
    PlacedChunk chunk{};
  };

  Status make_buffers(const PutSize& size);
  Status make_way(const PutSize& size);
  // Calls `visit` with every piece of the batch, in order.
  template <typename Visit>
  Status for_each_piece(const SaveBatch& batch, const Visit& visit);

  Result<Piece> tile(const SavePlan& plan, const PlannedShard& shard, uint64_t i, Role role,
                     uint64_t in_a_row);
  Status save_piece(const Piece& piece, SaveBatch& batch);
  void save_inline(const Piece& piece, SaveBatch& batch);
  ParentView& parent_of(const Piece& piece) {
    return piece.role == Role::kTwin ? twin_parent_ : parent_;
  }
  std::optional<PlacedChunk> find_in_parent(const Piece& piece);
  bool is_unchanged(const Piece& piece, const format::ChunkEntry& parent);
  std::optional<PlacedChunk> find_elsewhere(const format::ChunkEntry& entry);
  Status store_piece(const Piece& piece, std::optional<PlacedChunk> parent, SaveBatch& batch);
  MutableBytes scratch_for(const Piece& piece);
  std::optional<CodecChoice> choose_codec(const Piece& piece, Bytes raw);
  bool may_be_delta(const Piece& piece) const;
  Result<Stored> encode(const Piece& piece, Bytes raw, const Digest& digest,
                        std::optional<CodecChoice> choice, const std::optional<PlacedChunk>& before,
                        format::ChunkEntry& entry);
  Result<std::optional<Digest>> encode_twin(const Piece& piece, Bytes raw,
                                            format::ChunkEntry& entry);
  Result<std::optional<Stored>> encode_delta(const Piece& piece, const PlacedChunk& before,
                                             Bytes raw, format::ChunkEntry& entry);
  Result<Stored> encode_alone(const Piece& piece, CodecChoice choice, Bytes raw,
                              const Digest& digest, format::ChunkEntry& entry);
  Result<Bytes> encode_with_base(CodecId codec, const Piece& piece, Bytes raw,
                                 const format::BaseRef& ref, Bytes base, uint64_t bytes_max);
  Result<Bytes> encode_for(const Piece& piece, CodecChoice choice, Bytes raw);
  static Digest pack_encoded(CodecId codec, Bytes encoded, MutableBytes to,
                             format::ChunkEntry& entry);
  void count_codec(CodecChoice choice, const format::ChunkEntry& entry);
  void place(const Piece& piece, PlacedChunk chunk, SaveBatch& batch);
  void reuse(const Piece& piece, PlacedChunk chunk, SaveBatch& batch);

  // Is the memory what it was when it was read? `mark_*` note what it was like.
  void mark_sampled(const Piece& piece, uint64_t number, const Box& box);
  void mark_digest(const Piece& piece, const Digest& digest);
  Status check_piece(const Piece& piece);
  uint64_t mark_now(const Piece& piece);

  // The band of which `piece` is the first tile, all its tiles marked; gives their number.
  size_t begin_band(const Piece& piece, uint64_t tiles_max);
  // The digest of a piece that is stored raw, which lies in its place in the segment then: `raw`.
  Result<Digest> gather_into_segment(const Piece& piece, MutableBytes& raw);
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
  // Twins apart: their pieces come in turn with their bases'.
  ParentView parent_, twin_parent_;
  ShardMemory memory_, twin_memory_;
  CodecContext codec_context_;
  CodecPolicy policy_;
  CodecTally tally_;
  std::chrono::steady_clock::time_point began_{};
  BufferPool pool_;  // outlives the packs' ring
  PackWriter packs_;
  TileBand band_;         // its tiles are packed where they will be reserved
  MutableBytes scratch_;  // the raw bytes of a piece that is about to be encoded, and its base's
  MutableBytes encoded_;  // what a codec made of them
  Base base_;
  SavePlan* plan_ = nullptr;  // that the last batch was of, and its run
  size_t run_index_ = 0;
  bool expect_same_ = true;  // the last piece compared was unchanged
};

}  // namespace caisson

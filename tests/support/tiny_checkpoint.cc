#include "tests/support/tiny_checkpoint.h"

#include <algorithm>
#include <map>
#include <random>
#include <utility>

#include "compression/codec.h"
#include "engine/copy_box.h"
#include "io/base/check.h"

namespace caisson::sim {

namespace {

using format::ChunkEntry;
using format::ObjectKind;
using format::ObjectRef;
using format::SealedRef;

Uuid uuid_of(uint8_t save, uint8_t what) {
  Uuid uuid;
  uuid.bytes.fill(std::byte{0x5a});
  uuid.bytes[0] = std::byte{save};
  uuid.bytes[1] = std::byte{what};
  return uuid;
}

void put(ObjectStore& objects, const ObjectRef& object, Bytes bytes) {
  CAISSON_CHECK(objects.put_new(object.key(), bytes).ok());
}

void pad(ByteVector& bytes, uint64_t alignment) {
  bytes.resize(static_cast<size_t>(align_up(bytes.size(), alignment)));
}

// Packs of one writer, filled one after the other.
class TinyPacks {
 public:
  TinyPacks(ObjectStore& objects, const Uuid& save, const Uuid& writer, const TinyOptions& options)
      : objects_(objects), options_(options) {
    object_ = {.kind = ObjectKind::kPack, .save = save, .writer = writer, .number = 0};
  }

  // Stores the bytes and fills in where they lie.
  void add(ChunkEntry& entry, Bytes stored) {
    if (!segments_.empty() && segments_.back().entries.size() == options_.chunks_per_segment) {
      end_segment();
      if (segments_.size() == options_.segments_per_pack) end_pack();
    }
    if (bytes_.empty()) bytes_ = format::encode_pack_header(object_);
    if (segments_.empty() || segments_.back().bytes > 0) {
      segments_.push_back({.offset = bytes_.size(), .bytes = 0, .entries = {}});
      bytes_.resize(bytes_.size() + format::kBlockBytes);
    }
    pad(bytes_, stored.size() >= format::kRawAlignedBytesMin ? 4096 : format::kOffsetUnit);
    const uint64_t offset = bytes_.size();
    bytes_.insert(bytes_.end(), stored.begin(), stored.end());
    entry.offset_units = static_cast<uint32_t>(offset / format::kOffsetUnit);
    entry.stored_bytes = static_cast<uint32_t>(stored.size());
    entry.stored_checksum = chunk_checksum(stored, format::pack_salt(object_, offset));
    entry.pack = format::kPackSelf;
    segments_.back().entries.push_back(entry);
    entry.pack = static_cast<uint16_t>(sealed_.size());
  }

  std::vector<SealedRef> finish() {
    if (!segments_.empty()) {
      if (segments_.back().bytes == 0) end_segment();
      end_pack();
    }
    return sealed_;
  }

 private:
  void end_segment() {
    pad(bytes_, format::kBlockBytes);
    format::Segment& segment = segments_.back();
    segment.bytes = bytes_.size() - segment.offset;
    format::encode_segment_directory(
        object_, segment,
        MutableBytes(bytes_).subspan(static_cast<size_t>(segment.offset), format::kBlockBytes));
  }
  void end_pack() {
    const ByteVector footer = format::encode_pack_footer(object_, bytes_.size(), segments_);
    bytes_.insert(bytes_.end(), footer.begin(), footer.end());
    put(objects_, object_, bytes_);
    sealed_.push_back({.object = object_, .bytes = bytes_.size(), .digest = digest_of(footer)});
    ++object_.number;
    bytes_.clear();
    segments_.clear();
  }

  ObjectStore& objects_;
  const TinyOptions& options_;
  ObjectRef object_;
  ByteVector bytes_;
  std::vector<format::Segment> segments_;
  std::vector<SealedRef> sealed_;
};

// One rank: its packs, its part, and the records that it contributes.
class TinyRank {
 public:
  TinyRank(ObjectStore& objects, uint32_t rank, const TinyOptions& options)
      : objects_(objects),
        options_(options),
        rank_(rank),
        save_(uuid_of(options.save, 0)),
        writer_(uuid_of(options.save, static_cast<uint8_t>(rank + 1))),
        packs_(objects, save_, writer_, options) {}

  void add_tensor(TinyTensor& tensor) {
    TensorRecord record{.spec = tensor.spec,
                        .kind = tensor.kind,
                        .alias_of = tensor.alias_of,
                        .tile = tensor.tile,
                        .shards = {}};
    for (const TinyShard& shard : tensor.shards) {
      if (shard.rank == rank_) record.shards.push_back(add_shard(tensor, shard));
    }
    if (!record.shards.empty() || (rank_ == 0 && tensor.shards.empty())) {
      records_.push_back(std::move(record));
    }
  }

  // Writes packs and part; the records are handed on for the checkpoint's directory.
  format::RootPart finish(format::PackTables& tables, std::vector<TensorRecord>& records) {
    const std::vector<SealedRef> packs = packs_.finish();
    const ObjectRef object{
        .kind = ObjectKind::kPart, .save = save_, .writer = writer_, .number = 0};
    format::PartTrailer trailer;
    trailer.part = object;
    trailer.rank = rank_;
    trailer.entries = entries_.size();
    ByteVector bytes;
    for (size_t i = 0; i < entries_.size(); i += format::kEntriesPerBlock) {
      const auto block =
          std::span(entries_).subspan(i, std::min(format::kEntriesPerBlock, entries_.size() - i));
      bytes.resize(bytes.size() + format::kBlockBytes);
      format::encode_entry_block(writer_, i / format::kEntriesPerBlock, block,
                                 MutableBytes(bytes).last(format::kBlockBytes));
    }
    const auto append = [&](Bytes more) { bytes.insert(bytes.end(), more.begin(), more.end()); };
    trailer.inline_offset = bytes.size();
    trailer.inline_bytes = inline_.size();
    append(inline_);
    format::DirectoryEncoder directory(writer_);
    for (const TensorRecord& record : records_) directory.add(record);
    trailer.directory_offset = bytes.size();
    append(directory.finish());
    trailer.directory_index_offset = directory.index_offset();
    trailer.directory_bytes = bytes.size() - trailer.directory_offset;
    trailer.tensors = records_.size();
    trailer.packs_offset = bytes.size();
    append(format::encode_pack_list(writer_, packs));
    trailer.packs_bytes = bytes.size() - trailer.packs_offset;
    for (const ChunkEntry& entry : entries_) trailer.raw_bytes += entry.raw_bytes;
    trailer.stored_bytes = trailer.raw_bytes;
    trailer.body_digest = digest_of(bytes);
    const ByteVector block = format::encode_part_trailer(trailer);
    append(block);
    put(objects_, object, bytes);

    for (const SealedRef& pack : packs) {
      tables.of_parts.push_back(static_cast<uint32_t>(tables.packs.size()));
      tables.packs.push_back(pack);
    }
    for (TensorRecord& record : records_) {
      for (ShardRecord& shard : record.shards) shard.part = rank_;
      records.push_back(std::move(record));
    }
    format::RootPart part{
        .part = {.object = object, .bytes = bytes.size(), .digest = digest_of(block)},
        .rank = rank_,
        .entries = entries_.size(),
        .inline_offset = trailer.inline_offset,
        .inline_bytes = trailer.inline_bytes,
        .packs = static_cast<uint32_t>(packs.size())};
    return part;
  }

 private:
  ShardRecord add_shard(TinyTensor& tensor, const TinyShard& shard) {
    const DType dtype = tensor.spec.dtype;
    ShardRecord record;
    record.box = shard.box;
    record.grid.rank = tensor.tile.rank;
    record.grid.cell = tensor.tile.dims;
    if (shard.chosen_grid) {
      record.grid = choose_pieces(tensor.spec.shape, dtype, tensor.tile, shard.box);
    }
    const PieceRange range = pieces_of_replica(piece_count(record.grid, shard.box), shard.replica);
    record.first_piece = range.first;
    record.pieces = range.count;
    record.first_entry = entries_.size();
    const Box whole = Box::whole(tensor.spec.shape);
    const BoxMemory memory{.box = whole,
                           .data = tensor.content.data(),
                           .strides_bytes = contiguous_strides(whole, dtype)};
    for (uint64_t i = range.first; i < range.first + range.count; ++i) {
      const Box piece = piece_at(record.grid, shard.box, i);
      ByteVector raw(static_cast<size_t>(packed_bytes(piece.elements(), dtype).value()));
      gather(memory, piece, dtype, raw);
      add_chunk(raw, dtype);
    }
    return record;
  }

  void add_chunk(const ByteVector& raw, DType dtype) {
    ChunkEntry entry;
    entry.id = content_id(raw, dtype.bits);
    entry.raw_bytes = static_cast<uint32_t>(raw.size());
    if (const auto known = known_.find(entry.id); known != known_.end()) {
      entries_.push_back(known->second);
      return;
    }
    if (raw.size() <= options_.inline_bytes_max) {
      entry.pack = format::kPackInline;
      entry.offset_units = static_cast<uint32_t>(inline_.size());
      entry.stored_bytes = entry.raw_bytes;
      inline_.insert(inline_.end(), raw.begin(), raw.end());
    } else {
      ByteVector stored = raw;
      if (options_.codec != 0) {
        const Codec* const codec = find_codec(options_.codec).value();
        ByteVector encoded(raw.size());
        const size_t bytes =
            codec
                ->encode(context_, {static_cast<uint8_t>(dtype.code), dtype.bits}, raw, {}, encoded)
                .value();
        if (bytes > 0) {
          encoded.resize(bytes);
          stored = std::move(encoded);
          entry.codec = options_.codec;
        }
      }
      packs_.add(entry, stored);
    }
    known_.emplace(entry.id, entry);
    entries_.push_back(entry);
  }

  ObjectStore& objects_;
  const TinyOptions& options_;
  const uint32_t rank_;
  const Uuid save_;
  const Uuid writer_;
  TinyPacks packs_;
  CodecContext context_;
  std::vector<ChunkEntry> entries_;
  std::map<Digest, ChunkEntry> known_;
  ByteVector inline_;
  std::vector<TensorRecord> records_;
};

// Records of the ranks merged by name, each tensor with the shards of all.
std::vector<TensorRecord> merge(std::vector<TensorRecord> records) {
  std::stable_sort(records.begin(), records.end(),
                   [](const auto& a, const auto& b) { return a.spec.name < b.spec.name; });
  std::vector<TensorRecord> merged;
  for (TensorRecord& record : records) {
    if (merged.empty() || merged.back().spec.name != record.spec.name) {
      merged.push_back(std::move(record));
      continue;
    }
    std::vector<ShardRecord>& shards = merged.back().shards;
    shards.insert(shards.end(), record.shards.begin(), record.shards.end());
  }
  return merged;
}

}  // namespace

TinyTensor random_tensor(std::string name, DType dtype, const std::vector<uint64_t>& shape,
                         const std::vector<uint64_t>& tile, uint64_t seed) {
  TinyTensor tensor;
  tensor.spec = {.name = std::move(name), .dtype = dtype, .shape = Shape::of(shape)};
  tensor.tile = Shape::of(tile);
  const uint64_t elements = element_count(tensor.spec.shape).value();
  tensor.content.resize(static_cast<size_t>(packed_bytes(elements, dtype).value()));
  std::mt19937_64 random(seed);
  std::byte byte{};
  for (std::byte& at : tensor.content) {
    if (random() % 4 == 0) byte = static_cast<std::byte>(random());
    at = byte;
  }
  tensor.shards = {{.rank = 0, .box = Box::whole(tensor.spec.shape), .replica = {}}};
  return tensor;
}

TinyTensor tiny_blob(std::string name, std::string_view content) {
  TinyTensor blob;
  const Shape shape = Shape::of(std::vector<uint64_t>{content.size()});
  blob.spec = {
      .name = std::move(name), .dtype = {.code = DTypeCode::kUInt, .bits = 8}, .shape = shape};
  blob.kind = TensorKind::kBlob;
  blob.tile = shape;
  blob.content.assign(as_bytes(content).begin(), as_bytes(content).end());
  blob.shards = {{.rank = 0, .box = Box::whole(shape), .replica = {}}};
  return blob;
}

TinyTensor tiny_alias(std::string name, std::string target) {
  TinyTensor alias;
  alias.spec.name = std::move(name);
  alias.kind = TensorKind::kAlias;
  alias.alias_of = std::move(target);
  return alias;
}

SealedRef write_tiny_checkpoint(ObjectStore& objects, std::vector<TinyTensor> tensors,
                                const TinyOptions& options) {
  uint32_t ranks = 1;
  for (const TinyTensor& tensor : tensors) {
    for (const TinyShard& shard : tensor.shards) ranks = std::max(ranks, shard.rank + 1);
  }
  format::Root root;
  root.object = {.kind = ObjectKind::kRoot,
                 .save = uuid_of(options.save, 0),
                 .writer = uuid_of(options.save, 0xff),
                 .number = 0};
  root.run = options.run;
  root.step = options.step;
  root.epoch = 1;
  root.metadata_json = "{}";
  format::PackTables tables;
  std::vector<TensorRecord> records;
  for (uint32_t rank = 0; rank < ranks; ++rank) {
    TinyRank writer(objects, rank, options);
    for (TinyTensor& tensor : tensors) writer.add_tensor(tensor);
    root.parts.push_back(writer.finish(tables, records));
  }
  for (const TinyTensor& tensor : tensors) root.raw_bytes += tensor.content.size();
  root.stored_bytes = root.raw_bytes;
  ObjectRef directory = root.object;
  directory.kind = ObjectKind::kDirectory;
  format::DirectoryEncoder encoder(directory.writer);
  for (const TensorRecord& record : merge(std::move(records))) encoder.add(record);
  const ByteVector bytes = encoder.finish();
  put(objects, directory, bytes);
  root.directory = {.object = directory, .bytes = bytes.size(), .digest = digest_of(bytes)};
  root.directory_index_offset = encoder.index_offset();
  root.tensors = encoder.tensors();
  const format::EncodedRoot encoded = format::encode_root(root, tables);
  put(objects, root.object, encoded.bytes);
  return encoded.sealed;
}

}  // namespace caisson::sim

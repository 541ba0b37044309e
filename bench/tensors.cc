#include "bench/tensors.h"

#include <cstdlib>
#include <cstring>

#include "io/base/check.h"

namespace caisson::bench {

namespace {

constexpr uint64_t kRows = 4096, kColumns = 8192;
constexpr uint64_t kElementBytes = 2;
constexpr uint64_t kViews = 4;
constexpr uint64_t kChangeStep = 512;
constexpr uint64_t kPageBytes = 4096;
constexpr size_t kUnalignedTo = 64;
constexpr DType kDType{DTypeCode::kBfloat, 16};

TensorShard shard_of(std::string name, std::vector<uint64_t> dims, const std::byte* data) {
  TensorShard shard;
  shard.tensor = {std::move(name), kDType, Shape::of(dims)};
  shard.box = Box::whole(shard.tensor.shape);
  shard.data = data;
  return shard;
}

}  // namespace

std::string tensor_name(uint64_t index) { return "layers." + std::to_string(index) + ".weight"; }

Result<std::shared_ptr<TensorMemory>> TensorMemory::aligned(uint64_t bytes) {
  std::shared_ptr<TensorMemory> memory(new TensorMemory);
  CAISSON_ASSIGN_OR_RETURN(memory->mapping_, AlignedBuffer::allocate(bytes, true));
  for (uint64_t at = 0; at + kTensorBytes <= bytes; at += kTensorBytes) {
    memory->blocks_.push_back(memory->mapping_.data() + at);
  }
  return memory;
}

Result<std::shared_ptr<TensorMemory>> TensorMemory::unaligned(uint64_t bytes) {
  std::shared_ptr<TensorMemory> memory(new TensorMemory);
  for (uint64_t at = 0; at + kTensorBytes <= bytes; at += kTensorBytes) {
    // malloc puts a block of this size 16 bytes into a page, aligned_alloc to 64 most often 64: one
    // by hand, so that it is never page-aligned by luck.
    void* block = std::malloc(kTensorBytes + 2 * kPageBytes);
    if (block == nullptr) return out_of_memory("bench: no memory for its tensors");
    const auto address = reinterpret_cast<uintptr_t>(block);
    std::byte* data =
        static_cast<std::byte*>(block) + (align_up(address, kPageBytes) + kUnalignedTo - address);
    std::memset(data, 0, kTensorBytes);
    memory->allocations_.push_back(block);
    memory->blocks_.push_back(data);
  }
  return memory;
}

TensorMemory::~TensorMemory() {
  for (void* block : allocations_) std::free(block);
}

void TensorMemory::fill(uint64_t seed) {
  uint64_t word = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::byte* block : blocks_) {
    for (uint64_t i = 0; i < kTensorBytes; i += 8) {
      word ^= word << 13, word ^= word >> 7, word ^= word << 17;
      store_le(block + i, word);
    }
  }
}

void TensorMemory::change(uint64_t seed) {
  for (std::byte* block : blocks_) {
    for (uint64_t i = 0; i < kTensorBytes; i += kChangeStep) {
      store_le(block + i, load_le<uint64_t>(block + i) * 0x9e3779b97f4a7c15 + 2 * seed + 1);
    }
  }
}

void TensorMemory::clear() {
  for (std::byte* block : blocks_) std::memset(block, 0, kTensorBytes);
}

Digest TensorMemory::digest() const {
  DigestStream stream;
  for (const std::byte* block : blocks_) stream.add({block, kTensorBytes});
  return stream.finish();
}

std::vector<TensorShard> whole_tensors(const TensorMemory& memory) {
  std::vector<TensorShard> shards;
  for (const std::byte* block : memory.blocks()) {
    shards.push_back(shard_of(tensor_name(shards.size()), {kRows, kColumns}, block));
  }
  return shards;
}

std::vector<TensorShard> column_views(const TensorMemory& memory) {
  std::vector<TensorShard> shards;
  for (const TensorShard& whole : whole_tensors(memory)) {
    for (uint64_t view = 0; view < kViews; ++view) {
      TensorShard shard = whole;
      shard.box.offset[1] = view * (kColumns / kViews);
      shard.box.extent[1] = kColumns / kViews;
      shard.data = whole.data + shard.box.offset[1] * kElementBytes;
      shard.strides_bytes = {kColumns * kElementBytes, kElementBytes};
      shards.push_back(std::move(shard));
    }
  }
  return shards;
}

std::vector<TensorShard> small_tensors(const TensorMemory& memory) {
  std::vector<TensorShard> shards;
  for (const std::byte* block : memory.blocks()) {
    for (uint64_t at = 0; at + kSmallTensorBytes <= kTensorBytes; at += kSmallTensorBytes) {
      shards.push_back(shard_of("experts." + std::to_string(shards.size()) + ".scale",
                                {kSmallTensorBytes / kElementBytes / 1024, 1024}, block + at));
    }
  }
  return shards;
}

std::vector<TensorShard> one_tensor(const TensorMemory& memory) {
  const uint64_t rows = memory.bytes() / (kColumns * kElementBytes);
  return {shard_of("embedding.weight", {rows, kColumns}, memory.blocks().front())};
}

std::vector<TensorShard> row_shards(const TensorMemory& memory, uint32_t rank, uint32_t ranks) {
  std::vector<TensorShard> shards;
  for (const std::byte* block : memory.blocks()) {
    TensorShard shard = shard_of(tensor_name(shards.size()), {kRows * ranks, kColumns}, block);
    shard.box.offset[0] = kRows * rank;
    shard.box.extent[0] = kRows;
    shards.push_back(std::move(shard));
  }
  return shards;
}

std::vector<TensorTarget> column_targets(TensorMemory& memory, uint32_t rank, uint32_t ranks) {
  std::vector<TensorTarget> targets;
  for (TensorShard& shard : row_shards(memory, rank, ranks)) {
    Box box = Box::whole(shard.tensor.shape);
    box.offset[1] = kColumns / ranks * rank;
    box.extent[1] = kColumns / ranks;
    targets.push_back({shard.tensor.name, box, memory.blocks()[targets.size()], {}});
  }
  return targets;
}

std::vector<TensorTarget> whole_targets(TensorMemory& memory) {
  std::vector<TensorTarget> targets;
  for (const TensorShard& shard : whole_tensors(memory)) {
    targets.push_back({shard.tensor.name, shard.box, memory.blocks()[targets.size()], {}});
  }
  return targets;
}

}  // namespace caisson::bench

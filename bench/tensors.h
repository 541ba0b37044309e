// The tensors that cases save and restore: incompressible bytes in memory that is touched, in the
// layouts that users meet. Thread-compatible.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caisson/result.h"
#include "caisson/tensor.h"
#include "io/base/buffer.h"
#include "io/base/hash.h"

namespace caisson::bench {

inline constexpr uint64_t kTensorBytes = 64u << 20;      // bf16 [4096, 8192]
inline constexpr uint64_t kSmallTensorBytes = 20 << 10;  // bf16 [10, 1024]

// Memory of whole tensors, every page of it touched.
class TensorMemory {
 public:
  // One mapping, aligned to 4 KiB and more, in hugepages where the host has them.
  static Result<std::shared_ptr<TensorMemory>> aligned(uint64_t bytes);
  // An allocation a tensor, aligned to 64 bytes and to nothing more: what frameworks hand out.
  static Result<std::shared_ptr<TensorMemory>> unaligned(uint64_t bytes);
  ~TensorMemory();
  TensorMemory(const TensorMemory&) = delete;
  TensorMemory& operator=(const TensorMemory&) = delete;

  uint64_t bytes() const { return blocks_.size() * kTensorBytes; }
  const std::vector<std::byte*>& blocks() const { return blocks_; }  // kTensorBytes each

  void fill(uint64_t seed);    // incompressible, every block another
  void change(uint64_t seed);  // a word of every 512 bytes: no tile is what it was
  void clear();
  Digest digest() const;

 private:
  TensorMemory() = default;
  AlignedBuffer mapping_;
  std::vector<std::byte*> blocks_;
  std::vector<void*> allocations_;  // what the blocks lie in, when not in the mapping
};

// Descriptions of such memory for save and restore. They borrow it.
std::vector<TensorShard> whole_tensors(const TensorMemory& memory);
// Every tensor in four boxes of columns, each a view into the whole: no tile is contiguous.
std::vector<TensorShard> column_views(const TensorMemory& memory);
// As many tensors of kSmallTensorBytes as fit.
std::vector<TensorShard> small_tensors(const TensorMemory& memory);
// All of it as one tensor.
std::vector<TensorShard> one_tensor(const TensorMemory& memory);  // REQUIRES: aligned
std::vector<TensorTarget> whole_targets(TensorMemory& memory);
// Tensors that are `ranks` times as high as a block: rank `rank` saves its rows, and wants its
// columns. REQUIRES: ranks is a power of two, at most 8.
std::vector<TensorShard> row_shards(const TensorMemory& memory, uint32_t rank, uint32_t ranks);
std::vector<TensorTarget> column_targets(TensorMemory& memory, uint32_t rank, uint32_t ranks);

std::string tensor_name(uint64_t index);

}  // namespace caisson::bench

#include "tests/crash/content.h"

#include <algorithm>
#include <random>

namespace caisson::crash {
namespace {

constexpr DType kF32{DTypeCode::kFloat, 32};
constexpr DType kBf16{DTypeCode::kBfloat, 16};
constexpr DType kI64{DTypeCode::kInt, 64};
constexpr size_t kBlobBytes = 100;

// Rows, columns: the first dimension is what ranks divide.
TensorSpec spec(const std::string& name, DType dtype, uint64_t rows, uint64_t columns) {
  TensorSpec made{name, dtype, {}};
  made.shape.rank = 2;
  made.shape.dims = {rows, columns};
  return made;
}

ByteVector noise(uint64_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  ByteVector made(bytes);
  for (size_t i = 0; i < bytes; i += 8) {
    std::array<std::byte, 8> word;
    store_le<uint64_t>(word.data(), random());
    std::copy_n(word.begin(), std::min<size_t>(8, bytes - i),
                made.begin() + static_cast<ptrdiff_t>(i));
  }
  return made;
}

uint64_t bytes_of(const TensorSpec& spec) {
  return spec.shape.dims[0] * spec.shape.dims[1] * spec.dtype.bits / 8;
}

}  // namespace

Content::Content(uint32_t version) : version_(version) {
  const auto add = [&](TensorSpec made, uint64_t seed) {
    const uint64_t bytes = bytes_of(made);
    tensors_.push_back({std::move(made), noise(bytes, seed)});
  };
  add(spec("layer/weight", kF32, 32, 48), version * 10 + 1);  // packed, new in every version
  add(spec("layer/frozen", kBf16, 64, 48), 2);                // packed, the same in every version
  add(spec("norm", kF32, 8, 4), version * 10 + 3);            // inline
  // Compressible integers: packed with zstd.
  tensors_.push_back({spec("positions", kI64, 32, 32), {}});
  ByteVector& positions = tensors_.back().bytes;
  positions.resize(bytes_of(tensors_.back().spec));
  for (size_t i = 0; i < positions.size() / 8; ++i) {
    store_le<uint64_t>(positions.data() + i * 8, version * 1000 + i / 16);
  }
  if (version >= kCodedVersions) add_coded();
  blob_ = noise(kBlobBytes, version * 10 + 4);
  whole_ = part(0, 1);
}

// Numbers of few exponents: a weight and its master, of which the latter is stored as a twin, a
// tensor that changes little from version to version, for deltas, and one with rows of zeros.
void Content::add_coded() {
  const TensorSpec master = spec("optimizer/master", kF32, 128, 64);
  const TensorSpec weight = spec("optimizer/weight", kBf16, 128, 64);
  ByteVector numbers = noise(bytes_of(master), version_ * 10 + 5), rounded, slow;
  for (size_t at = 3; at < numbers.size(); at += 4) {
    numbers[at] = (numbers[at] & std::byte{0x81}) | std::byte{0x3c};
    numbers[at - 2] &= std::byte{0x7f};  // rounds down
    rounded.insert(rounded.end(), {numbers[at - 1], numbers[at]});
  }
  slow = noise(bytes_of(weight), 6);
  for (size_t at = 1; at < slow.size(); at += 2) {
    slow[at] = (slow[at] & std::byte{0x81}) | std::byte{0x3c};
    if (at % 128 == 1) slow[at - 1] ^= static_cast<std::byte>(version_ & 0xff);
  }
  ByteVector rows = numbers;
  for (size_t at = 0; at < rows.size(); at += 1024)
    std::fill_n(rows.data() + at, 512, std::byte{0});
  tensors_.push_back({spec("optimizer/rows", kF32, 128, 64), std::move(rows)});
  tensors_.push_back({master, std::move(numbers)});
  tensors_.push_back({weight, std::move(rounded)});
  tensors_.push_back({spec("slow", kBf16, 128, 64), std::move(slow)});
}

SaveInput Content::input() const { return whole_.input(); }

Content::Part Content::part(uint32_t rank, uint32_t ranks) const {
  Part made;
  for (const Tensor& tensor : tensors_) {
    TensorShard shard;
    shard.tensor = tensor.spec;
    shard.box = Box::whole(tensor.spec.shape);
    shard.data = tensor.bytes.data();
    if (tensor.spec.name == "layer/frozen" || tensor.spec.name == "norm") {
      shard.replica = {rank, ranks};
    } else {
      const uint64_t rows = tensor.spec.shape.dims[0] / ranks;
      shard.box.offset[0] = rank * rows;
      shard.box.extent[0] = rows;
      shard.data += rank * (tensor.bytes.size() / ranks);
    }
    made.tensors.push_back(std::move(shard));
  }
  if (rank == 0) {
    made.blobs.push_back({"tokenizer", blob_});
    made.aliases.push_back({"tied", "layer/weight"});
  }
  return made;
}

Status restore_tensors(Store& store, const std::string& name, const std::vector<uint32_t>& versions,
                       std::string* wrong) {
  const Content shape(versions.empty() ? 0 : versions.front());
  std::vector<ByteVector> got;
  std::vector<TensorTarget> targets;
  for (const Content::Tensor& tensor : shape.tensors_) {
    got.emplace_back(tensor.bytes.size(), std::byte{0xee});
    targets.push_back({tensor.spec.name, Box::whole(tensor.spec.shape), got.back().data(), {}});
  }
  got.emplace_back(shape.tensors_[0].bytes.size(), std::byte{0xee});
  targets.push_back({"tied", Box::whole(shape.tensors_[0].spec.shape), got.back().data(), {}});
  CAISSON_RETURN_IF_ERROR(store.restore(name, targets));
  for (const uint32_t version : versions) {
    const Content want(version);
    bool same = got.back() == want.tensors_[0].bytes;
    for (size_t i = 0; i < want.tensors_.size(); ++i)
      same = same && got[i] == want.tensors_[i].bytes;
    if (same) return ok_status();
  }
  *wrong = name + ": restored bytes differ from all " + std::to_string(versions.size()) +
           " versions that it may have";
  return ok_status();
}

std::string verify_checkpoint(Store& store, const std::string& name,
                              const std::vector<uint32_t>& versions, uint32_t* found) {
  Result<std::vector<std::byte>> blob = store.read_blob(name, "tokenizer");
  if (!blob.ok()) return name + ": blob failed: " + blob.status().to_string();
  std::string wrong = name + ": its blob is of no version that it may have";
  for (const uint32_t version : versions) {
    const Content want(version);
    if (*blob != want.blob_) continue;
    wrong.clear();
    const Status status = restore_tensors(store, name, {version}, &wrong);
    if (!status.ok()) return name + ": restore failed: " + status.to_string();
    if (wrong.empty() && found != nullptr) *found = version;
    break;
  }
  return wrong;
}

}  // namespace caisson::crash

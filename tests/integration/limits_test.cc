// Saves at the limits: sizes beyond 32 bits, sums that must not wrap, the longest names.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <string>
#include <vector>

#include "caisson/store.h"
#include "tests/support/sanitized.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kF32;
using testing::shape_of;
using testing::TestTensor;

class LimitsTest : public ::testing::Test {
 protected:
  testing::TempDir dir_;
  std::unique_ptr<Store> store_ = Store::open(dir_ / "store").value();
};

// Offsets beyond 32 bits. The memory is of zeros that take none, but for the rows at both ends of
// 4 GiB; equal pieces are stored once.
TEST_F(LimitsTest, TensorsMayBeLargerThan4GiB) {
  if (testing::kSanitized) GTEST_SKIP() << "shadow memory for 4 GiB";
  constexpr uint64_t kRowBytes = 1 << 20, kRows = 4100;
  void* const mapped = ::mmap(nullptr, kRows * kRowBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  ASSERT_NE(mapped, MAP_FAILED);
  auto* const memory = static_cast<std::byte*>(mapped);
  const auto ends = testing::random_bytes(2 * kRowBytes, 1);
  constexpr uint64_t kFirst = 4095;  // its end is at 4 GiB
  std::ranges::copy(ends, memory + kFirst * kRowBytes);
  memory[kRows * kRowBytes - 1] = std::byte{7};
  TensorShard shard;
  shard.tensor = {"large", testing::kU8, shape_of({kRows, kRowBytes})};
  shard.box = Box::whole(shard.tensor.shape);
  shard.data = memory;
  auto pending = store_->save("run/1", {.tensors = {&shard, 1}, .blobs = {}, .aliases = {}},
                              {.codec = "raw", .stage = false});
  ASSERT_TRUE(pending.ok()) << pending.status().to_string();
  ASSERT_TRUE(pending->wait().ok()) << pending->wait().to_string();
  EXPECT_EQ(pending->report().raw_bytes, kRows * kRowBytes);
  EXPECT_LT(pending->report().stored_bytes, 8 * kRowBytes);
  ASSERT_EQ(::munmap(mapped, kRows * kRowBytes), 0);

  const auto rows = [&](uint64_t first, uint64_t count) {
    std::vector<std::byte> found(count * kRowBytes);
    TensorTarget target{
        .name = "large", .box = shard.box, .data = found.data(), .strides_bytes = {}};
    target.box.offset[0] = first;
    target.box.extent[0] = count;
    const Status restored = store_->restore("run/1", {&target, 1});
    EXPECT_TRUE(restored.ok()) << restored.to_string();
    return found;
  };
  EXPECT_EQ(rows(kFirst, 2), ends);
  std::vector<std::byte> last(kRowBytes);
  last.back() = std::byte{7};
  EXPECT_EQ(rows(kRows - 1, 1), last);
}

// Strides of zero describe more bytes than there are; their sum must not wrap.
TEST_F(LimitsTest, StagingMoreThanAnyMemoryHoldsIsRefused) {
  const auto row = testing::random_bytes(1 << 20, 1);
  std::vector<TensorShard> shards(32);
  for (size_t i = 0; i < shards.size(); ++i) {
    shards[i].tensor = {"w" + std::to_string(i), testing::kU8, shape_of({1ull << 39, 1 << 20})};
    shards[i].box = Box::whole(shards[i].tensor.shape);
    shards[i].data = row.data();
    shards[i].strides_bytes = {0, 1};
  }
  const auto pending =
      store_->save("run/1", {.tensors = shards, .blobs = {}, .aliases = {}}, {.stage = true});
  EXPECT_EQ(pending.status().code(), StatusCode::kOutOfMemory) << pending.status().to_string();
}

TEST_F(LimitsTest, TensorNamesAreAnyUtf8UpTo4KiB) {
  std::string longest;
  while (longest.size() + 3 <= 4096) longest += "\xe5\xb1\xa4";
  longest += 'x';
  ASSERT_EQ(longest.size(), 4096u);
  std::vector<TestTensor> model;
  for (const std::string& name :
       {longest, std::string("\xf0\x9f\x8c\x8a/\"a\" b\\c"), std::string("x")}) {
    model.emplace_back(name, kF32, shape_of({3, 5}), name.size());
  }
  const auto shards = testing::whole_shards(model);
  auto pending = store_->save("run/1", {.tensors = shards, .blobs = {}, .aliases = {}});
  ASSERT_TRUE(pending.ok() && pending->wait().ok());
  for (const TestTensor& tensor : model) {
    std::vector<std::byte> found(tensor.bytes.size());
    const TensorTarget target{.name = tensor.spec.name,
                              .box = Box::whole(tensor.spec.shape),
                              .data = found.data(),
                              .strides_bytes = {}};
    const Status restored = store_->restore("run/1", {&target, 1});
    ASSERT_TRUE(restored.ok()) << restored.to_string();
    EXPECT_EQ(found, tensor.bytes);
  }
  EXPECT_EQ(store_->tensors("run/1", "*").value().size(), model.size());
  for (const std::string& bad : {longest + "x", std::string(), std::string("\xff")}) {
    const TestTensor tensor(bad, kF32, shape_of({3}), 1);
    const TensorShard shard = tensor.whole();
    auto refused = store_->save("run/2", {.tensors = {&shard, 1}, .blobs = {}, .aliases = {}},
                                {.stage = true});
    EXPECT_EQ(refused.ok() ? refused->wait().code() : refused.status().code(),
              StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace caisson

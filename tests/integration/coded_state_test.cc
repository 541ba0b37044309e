// Training states with every codec on: fp32 masters are stored as twins of their bf16 weights,
// found by their values, and everything that holds of raw chunks holds of coded ones. Values are
// hostile on purpose: NaNs, infinities, denormals, ties. The seed of a failure is printed;
// CAISSON_TEST_SEED repeats it.
#include <gtest/gtest.h>

#include <bit>
#include <cstdlib>
#include <map>
#include <random>

#include "caisson/store.h"
#include "client/store_context.h"
#include "compression/codec.h"
#include "engine/gc.h"
#include "engine/manifest.h"
#include "engine/restore_pipeline.h"
#include "engine/rewrite.h"
#include "engine/scrub.h"
#include "io/object_dir.h"
#include "io/posix_file_system.h"
#include "tests/support/temp_dir.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kBf16;
using testing::kF32;
using testing::shape_of;
using testing::TempDir;
using testing::TestTensor;

enum class Rounding { kEven, kUp, kTowardZero };

uint16_t rounded(uint32_t bits, Rounding how) {
  const uint32_t add = how == Rounding::kEven ? 0x7fff + (bits >> 16 & 1)
                       : how == Rounding::kUp ? 0x8000
                                              : 0;
  return static_cast<uint16_t>((bits + add) >> 16);
}

class CodedStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const char* text = std::getenv("CAISSON_TEST_SEED"))
      seed_ = std::strtoull(text, nullptr, 10);
    random_.seed(seed_);
    RecordProperty("seed", std::to_string(seed_));
    auto files = make_posix_file_system();
    ASSERT_TRUE(files.ok()) << files.status().to_string();
    auto store = Store::open(path());
    ASSERT_TRUE(store.ok()) << store.status().to_string();
    store_ = std::move(store).value();
    objects_ = make_object_dir(std::move(files).value(), path(), system_uuids());
  }
  void TearDown() override {
    if (HasFailure())
      std::printf("CAISSON_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed_));
  }
  std::string path() const { return dir_ / "store"; }

  // Numbers like those of weights, and now and then a bit pattern like nothing.
  TestTensor numbers(std::string name, Shape shape, double scale) {
    TestTensor tensor(std::move(name), kF32, shape, 1);
    std::normal_distribution<float> normal(0, static_cast<float>(scale));
    constexpr uint32_t kHostile[] = {0x7f800001, 0xffc00000, 0x7f800000, 0xff800000, 0x00000001,
                                     0x80000000, 0x3f808000, 0x3f818000, 0x7f7fffff, 0xffffffff};
    for (size_t at = 0; at < tensor.bytes.size(); at += 4) {
      const uint32_t bits = random_() % 20'000 == 0 ? kHostile[random_() % std::size(kHostile)]
                                                    : std::bit_cast<uint32_t>(normal(random_));
      std::memcpy(tensor.bytes.data() + at, &bits, 4);
    }
    return tensor;
  }
  static TestTensor rounding_of(const TestTensor& master, std::string name, Rounding how) {
    TestTensor weight(std::move(name), kBf16, master.spec.shape, 1);
    for (size_t i = 0; i < weight.bytes.size() / 2; ++i) {
      uint32_t bits;
      std::memcpy(&bits, master.bytes.data() + 4 * i, 4);
      const uint16_t half = rounded(bits, how);
      std::memcpy(weight.bytes.data() + 2 * i, &half, 2);
    }
    return weight;
  }

  // The state of one layer: names tell nothing of what belongs together.
  void add_layer(uint64_t layer, Shape shape, Rounding how) {
    const std::string n = std::to_string(layer);
    masters_.push_back(numbers("z" + n, shape, 0.02));
    weights_.push_back(rounding_of(masters_.back(), "a" + std::to_string(layer * 7 % 5) + n, how));
    moments_.push_back(numbers("m" + n, shape, 1e-4));
  }
  std::vector<TensorShard> shards(bool weights = true) const {
    std::vector<TensorShard> all;
    for (const TestTensor& t : moments_) all.push_back(t.whole());
    for (const TestTensor& t : masters_) all.push_back(t.whole());
    for (const TestTensor& t : weights_) {
      if (weights) all.push_back(t.whole());
    }
    return all;
  }

  Result<SaveReport> save(const std::string& name, std::span<const TensorShard> tensors,
                          const SaveOptions& options = {}) {
    CAISSON_ASSIGN_OR_RETURN(PendingSave pending,
                             store_->save(name, {.tensors = tensors}, options));
    CAISSON_RETURN_IF_ERROR(pending.wait());
    return pending.report();
  }

  // All of `tensors` in one restore, through a Store that has nothing cached.
  void expect_holds(const std::string& name, std::span<const TestTensor* const> tensors,
                    uint32_t workers = 1) {
    auto store = Store::open(path());
    ASSERT_TRUE(store.ok());
    std::vector<std::vector<std::byte>> found;
    std::vector<TensorTarget> targets;
    for (const TestTensor* tensor : tensors) {
      found.emplace_back(tensor->bytes.size());
      targets.push_back({.name = tensor->spec.name,
                         .box = Box::whole(tensor->spec.shape),
                         .data = found.back().data(),
                         .strides_bytes = {}});
    }
    const Status restored = (*store)->restore(name, targets, {.workers = workers});
    ASSERT_TRUE(restored.ok()) << restored.to_string();
    for (size_t i = 0; i < tensors.size(); ++i) {
      EXPECT_TRUE(found[i] == tensors[i]->bytes) << tensors[i]->spec.name;
    }
  }
  std::vector<const TestTensor*> all() const {
    std::vector<const TestTensor*> tensors;
    for (const auto* group : {&weights_, &masters_, &moments_}) {
      for (const TestTensor& tensor : *group) tensors.push_back(&tensor);
    }
    return tensors;
  }

  Checkpoint find(const std::string& name) {
    auto log = Log::open(*objects_, system_uuids(), this_process());
    return find_checkpoint(*(*log)->state(), name).value();
  }
  // Chunks by codec; every twin's base must lie in the twin's pack.
  std::map<std::string, uint64_t> codecs_of(const std::string& name, const std::string& tensor) {
    std::map<std::string, uint64_t> counts;
    const auto manifest = Manifest::open(*objects_, find(name).root).value();
    ObjectReads reads(*objects_);
    const auto record = manifest->find(tensor).value();
    EXPECT_TRUE(record) << tensor;
    for (const ShardRecord& shard : record->shards) {
      const auto entries = manifest->entries(shard.part, shard.first_entry, shard.pieces).value();
      for (const format::ChunkEntry& entry : entries) {
        if (entry.pack == format::kPackInline) continue;
        ++counts[std::string(find_codec(entry.codec).value()->name())];
        if ((entry.flags & format::kFlagHasBase) == 0) continue;
        const format::SealedRef& pack = manifest->pack_of(shard.part, entry);
        ByteVector ref(format::kBaseRefBytes);
        EXPECT_TRUE(reads.read(pack, entry.offset_bytes(), ref).ok());
        const auto base = format::decode_base_ref(ref, "test");
        EXPECT_TRUE(base.ok());
        if (entry.codec == static_cast<uint8_t>(CodecId::kTwin)) {
          EXPECT_EQ(base->pack, pack.object);
        }
      }
    }
    return counts;
  }
  void expect_sound(const std::string& name) {
    MemoryBudget budget(64u << 20);
    Scrubber scrubber(*objects_, budget, {.depth = ScrubDepth::kFull, .progress = {}, .stop = {}});
    ASSERT_TRUE(scrubber.check_checkpoint(name, find(name).root).ok());
    for (const ScrubFinding& finding : scrubber.report().findings) {
      ADD_FAILURE() << finding.object << " " << finding.offset << ": " << finding.what;
    }
  }
  Status collect() {
    CAISSON_ASSIGN_OR_RETURN(auto log, Log::open(*objects_, system_uuids(), this_process()));
    return run_gc(*objects_, *log).status();
  }

  uint64_t seed_ = 20'260'101;
  std::mt19937_64 random_;
  TempDir dir_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<ObjectStore> objects_;
  std::vector<TestTensor> weights_, masters_, moments_;
};

TEST_F(CodedStateTest, MastersAreTwinsOfTheirWeightsHoweverTheyWereRounded) {
  add_layer(0, shape_of({1024, 1500}), Rounding::kEven);
  add_layer(1, shape_of({1024, 1500}), Rounding::kUp);
  add_layer(2, shape_of({1024, 1500}), Rounding::kTowardZero);
  add_layer(3, shape_of({1300, 1111}), Rounding::kEven);
  for (const uint32_t workers : {1u, 3u}) {
    const std::string name = "run/" + std::to_string(workers);
    const auto report = save(name, shards(), {.dedup = false, .workers = workers});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_LT(report->stored_bytes, report->raw_bytes * 3 / 4);
    for (const TestTensor& master : masters_) {
      const auto codecs = codecs_of(name, master.spec.name);
      EXPECT_EQ(codecs.size(), 1u) << master.spec.name;
      EXPECT_GT(codecs.count("twin"), 0u) << master.spec.name;
    }
    for (const TestTensor& moment : moments_) {
      EXPECT_EQ(codecs_of(name, moment.spec.name).count("twin"), 0u);
    }
    expect_holds(name, all(), workers);
    expect_sound(name);
  }
}

TEST_F(CodedStateTest, AMasterAloneReadsItsBaseAndNothingElse) {
  add_layer(0, shape_of({2048, 2048}), Rounding::kEven);
  ASSERT_TRUE(save("run/1", shards()).ok());
  const auto manifest = Manifest::open(*objects_, find("run/1").root).value();
  uint64_t stored = 0;
  for (const TestTensor* tensor : {&masters_[0], &weights_[0]}) {
    const auto record = manifest->find(tensor->spec.name).value();
    const auto entries =
        manifest->entries(0, record->shards[0].first_entry, record->shards[0].pieces).value();
    for (const format::ChunkEntry& entry : entries) stored += entry.stored_bytes;
  }
  MemoryBudget budget(64u << 20);
  std::vector<std::byte> found(masters_[0].bytes.size());
  const TensorTarget target{.name = masters_[0].spec.name,
                            .box = Box::whole(masters_[0].spec.shape),
                            .data = found.data(),
                            .strides_bytes = {}};
  const auto report = restore_boxes(*objects_, *manifest, budget, {&target, 1}, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_TRUE(found == masters_[0].bytes);
  EXPECT_LE(report->read_bytes, stored + stored / 20);
  EXPECT_LE(report->reads, stored / (2u << 20));  // bases are read along, not one by one

  // A narrow slice of it.
  std::vector<std::byte> row(4 * 2048);
  TensorTarget one = target;
  one.box.offset[0] = 777;
  one.box.extent[0] = 1;
  one.data = row.data();
  ASSERT_TRUE(restore_boxes(*objects_, *manifest, budget, {&one, 1}, {}).ok());
  EXPECT_EQ(std::memcmp(row.data(), masters_[0].bytes.data() + 777 * row.size(), row.size()), 0);
}

TEST_F(CodedStateTest, UnchangedTensorsAreSharedTwinsToo) {
  add_layer(0, shape_of({1024, 1024}), Rounding::kEven);
  add_layer(1, shape_of({1024, 1024}), Rounding::kEven);
  ASSERT_TRUE(save("run/1", shards()).ok());
  const auto again = save("run/2", shards());
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->stored_bytes, 0u);
  EXPECT_EQ(again->deduplicated_bytes, again->raw_bytes);

  // The weight stays and its master moves, below its rounding: no base is stored anew, so no twin.
  for (size_t at = 0; at < masters_[1].bytes.size(); at += 40'000) {
    masters_[1].bytes[at] ^= std::byte{1};
  }
  ASSERT_TRUE(save("run/3", shards()).ok());
  EXPECT_EQ(codecs_of("run/3", masters_[1].spec.name).count("twin"), 0u);
  EXPECT_GT(codecs_of("run/3", masters_[0].spec.name).count("twin"), 0u);

  // Whatever was pruned, what is left can be read.
  ASSERT_TRUE(store_->remove("run/1").ok());
  ASSERT_TRUE(store_->remove("run/2").ok());
  ASSERT_TRUE(collect().ok());
  expect_holds("run/3", all());
  expect_sound("run/3");
}

// A checkpoint of the optimizer alone shares its chunks with a whole one, whose weights' packs it
// then keeps alive.
TEST_F(CodedStateTest, AnOptimizerAloneOutlivesTheRest) {
  add_layer(0, shape_of({1024, 2048}), Rounding::kEven);
  ASSERT_TRUE(save("run/1", shards()).ok());
  const auto alone = save("optimizer/1", shards(false), {.base = "run/1"});
  ASSERT_TRUE(alone.ok()) << alone.status().to_string();
  EXPECT_EQ(alone->stored_bytes, 0u);
  EXPECT_GT(codecs_of("optimizer/1", masters_[0].spec.name).count("twin"), 0u);
  ASSERT_TRUE(store_->remove("run/1").ok());
  ASSERT_TRUE(collect().ok());
  const std::vector<const TestTensor*> left{&masters_[0], &moments_[0]};
  expect_holds("optimizer/1", left);
  expect_sound("optimizer/1");
}

TEST_F(CodedStateTest, ARewriteKeepsTheContent) {
  add_layer(0, shape_of({1024, 1024}), Rounding::kUp);
  add_layer(1, shape_of({700, 1024}), Rounding::kEven);
  ASSERT_TRUE(save("run/1", shards()).ok());
  auto log = Log::open(*objects_, system_uuids(), this_process());
  ASSERT_TRUE(log.ok());
  MemoryBudget budget(64u << 20);
  const auto report = rewrite_checkpoint(*objects_, **log, budget, system_uuids(), system_clock(),
                                         find("run/1"), {.batch_bytes_max = 4u << 20});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  ASSERT_TRUE(collect().ok());
  expect_holds("run/1", all());
  expect_sound("run/1");
}

// Rows of one rank each, columns that are strided in memory, and pieces smaller than a codec takes.
TEST_F(CodedStateTest, ShardsOfAnyBoxAreTwinsOfTheSameBox) {
  add_layer(0, shape_of({1024, 1200}), Rounding::kEven);
  add_layer(1, shape_of({64, 100}), Rounding::kEven);
  const auto ticket = store_->begin_save("run/1");
  ASSERT_TRUE(ticket.ok());
  std::vector<SealedPart> parts;
  for (uint32_t rank = 0; rank < 2; ++rank) {
    auto joined = store_->join_save(*ticket, rank);
    ASSERT_TRUE(joined.ok());
    std::vector<TensorShard> mine;
    for (const TestTensor* tensor : all()) {
      TensorShard shard = tensor->whole();
      const int64_t element = tensor->spec.dtype.bits / 8;
      const uint64_t half = tensor->spec.shape.dims[1] / 2;
      shard.box.offset[1] = rank * half;
      shard.box.extent[1] = half;
      shard.strides_bytes = {static_cast<int64_t>(tensor->spec.shape.dims[1]) * element, element};
      shard.data += static_cast<int64_t>(rank * half) * element;
      mine.push_back(shard);
    }
    ASSERT_TRUE((*joined)->put({.tensors = mine, .blobs = {}, .aliases = {}}).ok());
    parts.push_back((*joined)->seal().value());
  }
  ASSERT_TRUE(store_->commit_save(*ticket, 2, parts).ok());
  EXPECT_GT(codecs_of("run/1", masters_[0].spec.name).count("twin"), 0u);
  expect_holds("run/1", all());
  expect_sound("run/1");
}

// Equal input, equal packs: whatever the device did meanwhile.
TEST_F(CodedStateTest, DeterministicSavesStoreTheSame) {
  add_layer(0, shape_of({1024, 2048}), Rounding::kEven);
  const SaveOptions options{.codec_deterministic = true, .dedup = false};
  const auto first = save("run/1", shards(), options);
  const auto second = save("run/2", shards(), options);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->stored_bytes, second->stored_bytes);
  for (const TestTensor* tensor : all()) {
    EXPECT_EQ(codecs_of("run/1", tensor->spec.name), codecs_of("run/2", tensor->spec.name));
  }
  const auto none = save("run/3", shards(), {.codec_cpu = 0, .dedup = false});
  ASSERT_TRUE(none.ok());
  EXPECT_EQ(none->stored_bytes, none->raw_bytes);
  ASSERT_EQ(none->codecs.size(), 1u);
  EXPECT_EQ(none->codecs.front().reason, "codec_cpu spent");
}

// Each save differs from the one before in few low bits. All of them lean on the first, none on a
// delta; it stays as long as one of them is there.
TEST_F(CodedStateTest, DeltasLeanOnOneAnchorThatStaysAsLongAsTheyDo) {
  for (uint64_t i = 0; i < 3; ++i) add_layer(i, shape_of({1024, 1024}), Rounding::kEven);
  masters_.clear();
  moments_.erase(moments_.begin() + 1, moments_.end());
  const auto step = [&] {
    for (TestTensor& weight : weights_) {
      for (size_t at = 0; at < weight.bytes.size(); at += 2 * (1 + random_() % 50)) {
        weight.bytes[at] ^= std::byte{1};
      }
    }
  };
  const SaveOptions options{.delta = "a*"};
  ASSERT_TRUE(save("run/1", shards(), options).ok());
  for (const char* name : {"run/2", "run/3"}) {
    step();
    const auto report = save(name, shards(), options);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_EQ(report->warning, "");
    EXPECT_LT(report->stored_bytes, weights_.size() * weights_[0].bytes.size() / 3);
    EXPECT_EQ(codecs_of(name, weights_[0].spec.name).size(), 1u);
    EXPECT_GT(codecs_of(name, weights_[0].spec.name).count("delta"), 0u);
    expect_holds(name, all(), 2);
  }
  const auto same = save("run/4", shards(), options);  // unchanged deltas are shared
  ASSERT_TRUE(same.ok());
  EXPECT_EQ(same->stored_bytes, 0u);

  for (const char* name : {"run/1", "run/2", "run/3"}) ASSERT_TRUE(store_->remove(name).ok());
  ASSERT_TRUE(collect().ok());
  expect_holds("run/4", all());
  expect_sound("run/4");

  // By itself it needs the anchor no more.
  auto log = Log::open(*objects_, system_uuids(), this_process());
  MemoryBudget budget(64u << 20);
  const auto rewritten = rewrite_checkpoint(*objects_, **log, budget, system_uuids(),
                                            system_clock(), find("run/4"), {});
  ASSERT_TRUE(rewritten.ok()) << rewritten.status().to_string();
  EXPECT_EQ(rewritten->foreign_packs_before, rewritten->packs_before);
  ASSERT_TRUE(collect().ok());
  EXPECT_EQ(codecs_of("run/4", weights_[0].spec.name).count("delta"), 0u);
  expect_holds("run/4", all());
}

// A large change makes the chunk independent, and an anchor for those that follow.
TEST_F(CodedStateTest, ADeltaIsOnlyTakenWhereItWins) {
  add_layer(0, shape_of({1024, 1024}), Rounding::kEven);
  masters_.clear();
  moments_.clear();
  const SaveOptions options{.delta = "*"};
  ASSERT_TRUE(save("run/1", shards(), options).ok());
  const std::string name = weights_[0].spec.name;
  weights_[0].bytes =
      rounding_of(numbers("x", shape_of({1024, 1024}), 0.02), "x", Rounding::kEven).bytes;
  ASSERT_TRUE(save("run/2", shards(), options).ok());
  EXPECT_EQ(codecs_of("run/2", name).count("delta"), 0u);
  weights_[0].bytes[100] ^= std::byte{1};
  weights_[0].bytes[1'500'000] ^= std::byte{1};
  ASSERT_TRUE(save("run/3", shards(), options).ok());
  EXPECT_EQ(codecs_of("run/3", name)["delta"], 2u);
  ASSERT_TRUE(store_->remove("run/1").ok());
  ASSERT_TRUE(store_->remove("run/2").ok());
  ASSERT_TRUE(collect().ok());
  expect_holds("run/3", all());
  expect_sound("run/3");
}

// What looks like a weight and its master where it was sampled, and is not elsewhere.
TEST_F(CodedStateTest, AWrongTwinIsFoundOutPieceByPiece) {
  add_layer(0, shape_of({2048, 1024}), Rounding::kEven);
  std::ranges::fill(std::span(masters_[0].bytes).subspan(1 << 20, 2 << 20), std::byte{0x5a});
  add_layer(1, shape_of({2048, 1024}), Rounding::kEven);
  for (size_t at = 2; at < weights_[1].bytes.size(); at += 2 * 33)
    weights_[1].bytes[at] ^= std::byte{1};
  ASSERT_TRUE(save("run/1", shards()).ok());
  expect_holds("run/1", all());
  expect_sound("run/1");
}

}  // namespace
}  // namespace caisson

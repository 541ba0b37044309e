// Restores of handmade checkpoints: any box, any damage. What must hold is that a restore gives the
// committed bytes or an error that names the object, never anything else.
#include "engine/restore_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <random>

#include "compression/codec.h"
#include "engine/copy_box.h"
#include "engine/restore_memory.h"
#include "engine/restore_plan.h"
#include "tests/support/boxes.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/tiny_checkpoint.h"

namespace caisson {
namespace {

using sim::random_tensor;
using sim::TinyTensor;
using testing::HasSubstr;

constexpr DType kF32{.code = DTypeCode::kFloat, .bits = 32};
constexpr DType kBF16{.code = DTypeCode::kBfloat, .bits = 16};
constexpr DType kU8{.code = DTypeCode::kUInt, .bits = 8};
constexpr DType kF4{.code = DTypeCode::kFloat4E2M1FN, .bits = 4};

// Sharded both ways, with replicas, inline pieces, tied weights and the shapes that go wrong.
std::vector<TinyTensor> a_model() {
  std::vector<TinyTensor> model;
  model.push_back(random_tensor("attn.weight", kBF16, {32, 48}, {8, 16}, 1));
  model.back().shards.clear();
  for (uint32_t rank = 0; rank < 4; ++rank) {
    const uint64_t row = rank / 2 * 16, column = rank % 2 * 24;
    model.back().shards.push_back({.rank = rank,
                                   .box = box_between({{row, row + 16}, {column, column + 24}}),
                                   .replica = {},
                                   .chosen_grid = rank == 3});
  }
  model.push_back(random_tensor("norm", kF32, {4, 64}, {1, 64}, 2));
  const Box whole = model.back().shards[0].box;
  model.back().shards.clear();
  for (uint32_t rank = 0; rank < 3; ++rank) {
    model.back().shards.push_back({.rank = rank, .box = whole, .replica = {rank, 3}});
  }
  model.push_back(random_tensor("big", kU8, {3, 600000}, {1, 300000}, 3));
  model.push_back(random_tensor("scalar", kF32, {}, {}, 4));
  model.push_back(random_tensor("fp4", kF4, {6, 32}, {2, 32}, 5));
  model.push_back(random_tensor("empty", kF32, {0, 7}, {1, 7}, 6));
  model.push_back(sim::tiny_blob("tokenizer", "some text that is long enough to lie in a pack"));
  model.push_back(sim::tiny_alias("tied", "attn.weight"));
  return model;
}

// A target with its own memory and what must be in it afterwards.
class Wanted {
 public:
  Wanted(const TinyTensor& tensor, std::string name, const Box& box) {
    target_.name = std::move(name);
    target_.box = box;
    const DType dtype = tensor.spec.dtype;
    expected_.resize(static_cast<size_t>(packed_bytes(box.elements(), dtype).value()));
    found_ = std::make_shared<ByteVector>(expected_.size(), std::byte{0xee});
    target_.data = found_->data();
    TinyTensor copy = tensor;
    const Box whole = Box::whole(tensor.spec.shape);
    gather({.box = whole,
            .data = copy.content.data(),
            .strides_bytes = contiguous_strides(whole, dtype)},
           box, dtype, expected_);
  }
  const TensorTarget& target() const { return target_; }
  bool filled() const { return *found_ == expected_; }

 private:
  TensorTarget target_;
  ByteVector expected_;
  std::shared_ptr<ByteVector> found_;  // copies share it: the target points into it
};

class RestoreTest : public testing::Test {
 protected:
  void write(const sim::TinyOptions& options = {}) {
    root_ = sim::write_tiny_checkpoint(objects_, model_, options);
  }
  const TinyTensor& tensor(std::string_view name) const {
    for (const TinyTensor& t : model_) {
      if (t.spec.name != name) continue;
      return t.kind == TensorKind::kAlias ? tensor(t.alias_of) : t;
    }
    ADD_FAILURE() << name;
    return model_.front();
  }
  Wanted want(const std::string& name, const Box& box) const {
    return Wanted(tensor(name), name, box);
  }
  std::vector<Wanted> want_all() const {
    std::vector<Wanted> wanted;
    for (const TinyTensor& t : model_) {
      wanted.push_back(want(t.spec.name, Box::whole(tensor(t.spec.name).spec.shape)));
    }
    return wanted;
  }
  Result<RestoreReport> restore(std::span<const Wanted> wanted,
                                const RestoreOptions& options = {}) {
    std::vector<TensorTarget> targets;
    for (const Wanted& w : wanted) targets.push_back(w.target());
    return restore_targets(targets, options);
  }
  Result<RestoreReport> restore_targets(std::span<const TensorTarget> targets,
                                        const RestoreOptions& options = {}) {
    CAISSON_ASSIGN_OR_RETURN(const std::shared_ptr<Manifest> manifest,
                             Manifest::open(objects_, root_));
    return restore_boxes(objects_, *manifest, budget_, targets, options);
  }
  std::vector<std::string> keys(std::string_view ending) {
    std::vector<std::string> found;
    for (const auto& [key, bytes] : objects_.objects()) {
      if (key.ends_with(ending)) found.push_back(key);
    }
    return found;
  }
  static void expect_filled(std::span<const Wanted> wanted) {
    for (const Wanted& w : wanted) {
      EXPECT_TRUE(w.filled()) << w.target().name << " " << to_string(w.target().box);
    }
  }

  MemoryObjectStore objects_;
  MemoryBudget budget_{64u << 20};
  std::vector<TinyTensor> model_ = a_model();
  format::SealedRef root_;
};

TEST_F(RestoreTest, GivesBackEveryTensor) {
  for (const CodecId id : {CodecId::kRaw, CodecId::kZstd}) {
    const auto codec = static_cast<uint8_t>(id);
    SCOPED_TRACE("codec " + std::to_string(codec));
    objects_.objects().clear();
    write({.codec = codec});
    const std::vector<Wanted> wanted = want_all();
    const auto report = restore(wanted);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    expect_filled(wanted);
    EXPECT_EQ(report->retried_chunks, 0u);
    EXPECT_EQ(budget_.bytes_held(), 0u);
  }
}

TEST_F(RestoreTest, GivesBackAnyBoxes) {
  write();
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    std::vector<Wanted> wanted;
    for (uint64_t i = 0; i < 1 + seed % 7; ++i) {
      const TinyTensor& named = model_[random() % model_.size()];
      const Shape& shape = tensor(named.spec.name).spec.shape;
      Box box = Box::whole(shape);
      for (int d = 0; d < shape.rank; ++d) {
        const auto k = static_cast<size_t>(d);
        const uint64_t whole_bytes = named.spec.name == "fp4" ? 2 : 1;
        box.offset[k] =
            shape.dims[k] == 0 ? 0 : random() % shape.dims[k] / whole_bytes * whole_bytes;
        box.extent[k] = random() % (shape.dims[k] - box.offset[k] + 1) / whole_bytes * whole_bytes;
      }
      wanted.push_back(want(named.spec.name, box));
    }
    const auto report = restore(wanted, {.workers = static_cast<uint32_t>(1 + seed % 3)});
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    expect_filled(wanted);
  }
}

TEST_F(RestoreTest, PlacesByStrides) {
  write();
  const TinyTensor& norm = tensor("norm");
  std::vector<float> columns(64 * 4);  // transposed: element [i, j] at j * 4 + i
  const TensorTarget target{.name = "norm",
                            .box = Box::whole(norm.spec.shape),
                            .data = reinterpret_cast<std::byte*>(columns.data()),
                            .strides_bytes = {4, 16}};
  const auto report = restore_targets({&target, 1});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  for (size_t i = 0; i < 4; ++i) {
    for (size_t j = 0; j < 64; ++j) {
      ASSERT_EQ(std::memcmp(&columns[j * 4 + i], &norm.content[(i * 64 + j) * 4], 4), 0);
    }
  }
}

TEST_F(RestoreTest, ReadsEachStoredByteOnce) {
  write();
  std::map<std::string, std::map<uint64_t, uint64_t>> read;
  objects_.set_read_hook([&](const std::string& key, uint64_t offset, MutableBytes bytes) {
    if (key.ends_with(".pack")) {
      for (uint64_t at = offset; at < offset + bytes.size(); at += 4096) ++read[key][at];
    }
    return ok_status();
  });
  std::vector<Wanted> wanted = want_all();
  wanted.push_back(want("big", box_between({{0, 3}, {10, 599990}})));  // the same chunks once more
  ASSERT_TRUE(restore(wanted).ok());
  for (const auto& [key, blocks] : read) {
    for (const auto& [at, times] : blocks) EXPECT_EQ(times, 1u) << key << " at " << at;
  }
}

TEST_F(RestoreTest, ReadsOnlyWhatABoxNeeds) {
  write();
  const std::vector<Wanted> wanted = {want("big", box_between({{1, 2}, {5, 15}}))};
  const auto report = restore(wanted);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->chunks, 1u);
  EXPECT_LE(report->read_bytes, 300000u + 2 * 4096);
}

TEST_F(RestoreTest, ListsEverythingThatIsWrongBeforeItReads) {
  write();
  int pack_reads = 0;
  objects_.set_read_hook([&](const std::string& key, uint64_t, MutableBytes) {
    if (key.ends_with(".pack")) ++pack_reads;
    return ok_status();
  });
  std::vector<TensorTarget> targets = {
      {.name = "attn.weight",
       .box = box_between({{0, 1}, {0, 1}}),
       .data = nullptr,
       .strides_bytes = {}},
      {.name = "nowhere", .box = {}, .data = nullptr, .strides_bytes = {}},
      {.name = "norm", .box = box_between({{0, 5}, {0, 1}}), .data = nullptr, .strides_bytes = {}},
      {.name = "elsewhere", .box = {}, .data = nullptr, .strides_bytes = {}}};
  Status status = restore_targets(targets).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  const std::string message(status.message());
  for (const char* part : {"run/1", "4 of the targets", "\"nowhere\"", "\"elsewhere\"", "\"norm\"",
                           "\"attn.weight\"", "caisson show"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
  targets.erase(targets.begin());
  targets.erase(targets.begin() + 1);
  EXPECT_EQ(restore_targets(targets).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(pack_reads, 0);
}

TEST_F(RestoreTest, NeverGivesWrongBytes) {
  model_.erase(model_.begin() + 2);  // without the big one, so that every region is hit
  for (const CodecId id : {CodecId::kRaw, CodecId::kZstd}) {
    const auto codec = static_cast<uint8_t>(id);
    objects_.objects().clear();
    write({.codec = codec});
    std::mt19937_64 random(codec + 1u);
    int caught = 0;
    for (const auto& [key, original] : std::map(objects_.objects())) {
      for (int i = 0; i < 60; ++i) {
        const size_t at = random() % original.size();
        SCOPED_TRACE("codec " + std::to_string(codec) + ", " + key + " at " + std::to_string(at));
        std::byte& byte = objects_.objects()[key][at];
        byte ^= static_cast<std::byte>(1u << random() % 8);
        const std::vector<Wanted> wanted = want_all();
        const auto report = restore(wanted);
        if (report.ok()) {
          expect_filled(wanted);  // padding, or what a restore does not read
        } else {
          ++caught;
          EXPECT_EQ(report.status().code(), StatusCode::kCorruption) << report.status().to_string();
          EXPECT_THAT(std::string(report.status().message()), HasSubstr(key));
          EXPECT_THAT(std::string(report.status().message()), HasSubstr("caisson verify STORE"));
        }
        byte = original[at];
      }
    }
    EXPECT_GT(caught, 100);
  }
}

TEST_F(RestoreTest, NamesTheDamagedChunk) {
  write();
  const std::string key = keys(".pack").back();
  objects_.objects()[key][2 * 4096] ^= std::byte{1};  // the first payload of the first segment
  const Status status = restore(want_all()).status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  const std::string message(status.message());
  for (const char* part : {"run/1: ", "at offset 8192", "chunk ", "tensor \"",
                           "caisson verify STORE run/1 --depth full"}) {
    EXPECT_THAT(message, HasSubstr(part));
  }
  EXPECT_THAT(message, HasSubstr(key));
}

TEST_F(RestoreTest, MissingAndCutObjectsAreCorruption) {
  write();
  for (const auto& [key, original] : std::map(objects_.objects())) {
    SCOPED_TRACE(key);
    objects_.objects().erase(key);
    Status status = restore(want_all()).status();
    EXPECT_EQ(status.code(), StatusCode::kCorruption) << status.to_string();
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
    objects_.objects()[key] = ByteVector(
        original.begin(), original.begin() + static_cast<ptrdiff_t>(original.size() / 2));
    status = restore(want_all()).status();
    EXPECT_EQ(status.code(), StatusCode::kCorruption) << status.to_string();
    EXPECT_THAT(std::string(status.message()), HasSubstr(key));
    objects_.objects()[key] = original;
  }
}

TEST_F(RestoreTest, AFaultThatPassesIsReadAgain) {
  write();
  std::map<std::string, int> reads;
  objects_.set_read_hook([&](const std::string& key, uint64_t, MutableBytes bytes) {
    if (!key.ends_with(".pack") || reads[key]++ > 0) return ok_status();
    if (reads.size() % 2 == 0) return io_error("the device erred");
    for (size_t i = 0; i < bytes.size(); i += 64) bytes[i] ^= std::byte{1};
    return ok_status();
  });
  const std::vector<Wanted> wanted = want_all();
  const auto report = restore(wanted);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  expect_filled(wanted);
  EXPECT_GT(report->retried_chunks, 0u);
}

TEST_F(RestoreTest, AFaultThatStaysIsTold) {
  write();
  const std::string key = keys(".pack").front();
  objects_.set_read_hook([&](const std::string& read, uint64_t, MutableBytes) {
    return read == key ? io_error("the device erred") : ok_status();
  });
  const Status status = restore(want_all(), {.workers = 2}).status();
  EXPECT_EQ(status.code(), StatusCode::kIoError);
  EXPECT_THAT(std::string(status.message()), HasSubstr(key));
  EXPECT_EQ(budget_.bytes_held(), 0u);
}

TEST_F(RestoreTest, StopsWhenAsked) {
  write();
  std::stop_source stop;
  objects_.set_read_hook([&](const std::string& key, uint64_t, MutableBytes) {
    if (key.ends_with(".pack")) stop.request_stop();
    return ok_status();
  });
  EXPECT_EQ(restore(want_all(), {.stop = stop.get_token()}).status().code(),
            StatusCode::kCancelled);
  EXPECT_EQ(budget_.bytes_held(), 0u);
}

TEST_F(RestoreTest, TellsItsProgress) {
  write();
  Progress last;
  const auto report = restore(want_all(), {.workers = 2, .progress = [&](const Progress& p) {
                                             EXPECT_GE(p.bytes_done, last.bytes_done);
                                             last = p;
                                           }});
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(last.bytes_done, last.bytes_total);
  EXPECT_EQ(last.bytes_total, report->raw_bytes);
}

// A tensor whose chunks a device could write to its memory, at `shift` bytes into hugepages.
class InPlaceTest : public RestoreTest {
 protected:
  static constexpr uint64_t kRows = 40, kRowBytes = 128 << 10;

  void SetUp() override {
    model_ = {random_tensor("rows", kU8, {kRows, kRowBytes}, {1, kRowBytes}, 11)};
    write({.chunks_per_segment = 7});
    auto memory = AlignedBuffer::allocate(kRows * kRowBytes + (3 << 20), true);
    ASSERT_TRUE(memory.ok());
    memory_ = std::move(memory).value();
    if (!HugePages().hold(memory_.bytes())) GTEST_SKIP() << "no hugepages to be had, or told";
  }
  Result<RestoreReport> restore_at(uint64_t shift) {
    const TensorTarget target{.name = "rows",
                              .box = Box::whole(model_[0].spec.shape),
                              .data = memory_.data() + shift,
                              .strides_bytes = {}};
    return restore_targets({&target, 1});
  }
  bool filled_at(uint64_t shift) const {
    return std::memcmp(memory_.bytes().data() + shift, model_[0].content.data(),
                       model_[0].content.size()) == 0;
  }
  bool lies_in_memory(MutableBytes bytes) {
    return bytes.data() >= memory_.data() && bytes.data() < memory_.data() + memory_.size();
  }

  AlignedBuffer memory_;
};

TEST_F(InPlaceTest, ReadsStraightIntoAlignedMemory) {
  for (const uint64_t shift : {0u, 512u, 64u, 4096u + 8u, 1u}) {
    SCOPED_TRACE("shift " + std::to_string(shift));
    uint64_t in_place = 0, staged = 0;
    objects_.set_read_hook([&](const std::string& key, uint64_t, MutableBytes bytes) {
      if (key.ends_with(".pack")) (lies_in_memory(bytes) ? in_place : staged) += bytes.size();
      return ok_status();
    });
    std::memset(memory_.data(), 0xee, memory_.size());
    const auto report = restore_at(shift);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_TRUE(filled_at(shift));
    EXPECT_EQ(memory_.bytes()[shift + kRows * kRowBytes], std::byte{0xee}) << "past the end";
    EXPECT_EQ(in_place, shift % kInPlaceAlignment == 0 ? kRows * kRowBytes : 0);
    EXPECT_EQ(staged == 0, shift % kInPlaceAlignment == 0);
    EXPECT_EQ(budget_.bytes_held(), 0u);
  }
}

TEST_F(InPlaceTest, ADeviceThatAsksForMoreIsReadThroughABuffer) {
  objects_.set_memory_alignment(4096);
  for (const uint64_t shift : {0u, 512u}) {
    uint64_t staged = 0;
    objects_.set_read_hook([&](const std::string& key, uint64_t, MutableBytes bytes) {
      if (key.ends_with(".pack") && !lies_in_memory(bytes)) staged += bytes.size();
      return ok_status();
    });
    std::memset(memory_.data(), 0xee, memory_.size());
    const auto report = restore_at(shift);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    EXPECT_TRUE(filled_at(shift));
    EXPECT_EQ(staged, shift == 0 ? 0 : kRows * kRowBytes);
  }
}

TEST_F(InPlaceTest, AFaultThatPassesIsReadAgainInPlace) {
  int reads = 0;
  objects_.set_read_hook([&](const std::string& key, uint64_t, MutableBytes bytes) {
    if (!key.ends_with(".pack")) return ok_status();
    if (++reads == 1) bytes[bytes.size() / 2] ^= std::byte{1};
    return reads == 3 ? io_error("the device erred") : ok_status();
  });
  const auto report = restore_at(0);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_TRUE(filled_at(0));
  EXPECT_EQ(report->retried_chunks, 1u);
}

TEST_F(InPlaceTest, AFaultThatStaysNamesTheChunk) {
  const std::string key = keys(".pack").front();
  objects_.objects()[key][2 * 4096 + kRowBytes + 77] ^= std::byte{1};
  const Status status = restore_at(0).status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr(key + " at offset " + std::to_string(2 * 4096 + kRowBytes)));
  EXPECT_THAT(message, HasSubstr("tensor \"rows\""));
}

TEST_F(RestoreTest, FitsASmallBudget) {
  model_.push_back(random_tensor("huge", kU8, {40, 1 << 20}, {1, 1 << 20}, 9));
  write();
  MemoryBudget small(9u << 20);
  const auto manifest = Manifest::open(objects_, root_);
  ASSERT_TRUE(manifest.ok());
  const std::vector<Wanted> wanted = {want("huge", box_between({{0, 40}, {0, 1 << 20}}))};
  const auto report = restore_boxes(objects_, **manifest, small, {&wanted[0].target(), 1}, {});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  expect_filled(wanted);
  EXPECT_LE(small.bytes_peak(), small.bytes_max());
}

TEST_F(RestoreTest, KeepsFewReadersOpen) {
  model_ = {random_tensor("wide", kU8, {300, 4096}, {1, 4096}, 9)};
  write({.chunks_per_segment = 1, .segments_per_pack = 1});
  ASSERT_EQ(keys(".pack").size(), 300u);
  const std::vector<Wanted> wanted = want_all();
  ASSERT_TRUE(restore(wanted).ok());
  expect_filled(wanted);
  EXPECT_LE(objects_.open_readers_peak(), 100) << "one a read in flight, and a few";
}

TEST_F(RestoreTest, NothingWantedIsNothingRead) {
  write();
  EXPECT_TRUE(restore_targets({}).ok());
  const std::vector<Wanted> wanted = {want("empty", box_between({{0, 0}, {0, 7}})),
                                      want("norm", box_between({{2, 2}, {0, 64}}))};
  const auto report = restore(wanted);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->reads, 0u);
}

}  // namespace
}  // namespace caisson

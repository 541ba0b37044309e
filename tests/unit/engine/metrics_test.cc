// Tests of caisson/metrics.h: the text, and what saves and restores are counted as.
#include "caisson/metrics.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

#include "client/open_store.h"
#include "compression/codec.h"
#include "engine/metrics.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using testing::kF32;
using testing::shape_of;
using testing::TestTensor;

TEST(Metrics, TextIsWellFormed) {
  Metrics metrics;
  metrics.state().write_depth.observe(uint64_t{7});
  metrics.state().restore_seconds.observe(std::chrono::milliseconds(2));
  std::istringstream text(metrics.to_prometheus());
  std::set<std::string> names, typed;
  for (std::string line; std::getline(text, line);) {
    std::istringstream words(line);
    std::string first, second, name;
    words >> first;
    if (first == "#") {
      words >> second >> name;
      EXPECT_TRUE(second == "HELP" || second == "TYPE") << line;
      if (second == "TYPE") {
        EXPECT_TRUE(typed.insert(name).second) << line;
      }
      continue;
    }
    EXPECT_TRUE(names.insert(first).second) << "twice: " << line;
    EXPECT_TRUE(first.starts_with("caisson_")) << line;
    double value = -1;
    EXPECT_TRUE(words >> value) << line;
    EXPECT_GE(value, 0) << line;
    EXPECT_EQ(metrics.value(first), value) << line;
  }
  EXPECT_TRUE(names.contains("caisson_errors_total{operation=\"save\",code=\"no_space\"}"));
  EXPECT_TRUE(typed.contains("caisson_save_seconds"));
}

TEST(Metrics, HistogramsAreCumulativeAndInSeconds) {
  Metrics metrics;
  for (const int ms : {1, 2, 2000}) {
    metrics.state().save_seconds.observe(std::chrono::milliseconds(ms));
  }
  EXPECT_EQ(metrics.value("caisson_save_seconds_bucket{le=\"0.001\"}"), 1);
  EXPECT_EQ(metrics.value("caisson_save_seconds_bucket{le=\"0.003\"}"), 2);
  EXPECT_EQ(metrics.value("caisson_save_seconds_bucket{le=\"1\"}"), 2);
  EXPECT_EQ(metrics.value("caisson_save_seconds_bucket{le=\"3\"}"), 3);
  EXPECT_EQ(metrics.value("caisson_save_seconds_bucket{le=\"+Inf\"}"), 3);
  EXPECT_EQ(metrics.value("caisson_save_seconds_count"), 3);
  EXPECT_DOUBLE_EQ(metrics.value("caisson_save_seconds_sum").value(), 2.003);
  EXPECT_EQ(metrics.value("caisson_save_seconds"), std::nullopt);
  EXPECT_EQ(metrics.value("nothing"), std::nullopt);
}

TEST(Metrics, NumbersOfProcessesAddUp) {
  Metrics one, other;
  one.state().save_raw_bytes.add(5);
  one.state().memory_peak_bytes.raise(100);
  other.state().save_raw_bytes.add(7);
  other.state().memory_peak_bytes.raise(40);
  other.state().read_depth.observe(uint64_t{3});
  one.state().add(other.state().numbers());
  EXPECT_EQ(one.value("caisson_save_bytes_total{stage=\"raw\"}"), 12);
  EXPECT_EQ(one.value("caisson_memory_peak_bytes"), 100);
  EXPECT_EQ(one.value("caisson_read_queue_depth_count"), 1);
}

TEST(Metrics, EveryCodecHasASeries) {
  uint8_t codecs = 0;
  while (find_codec(codecs).ok()) ++codecs;
  EXPECT_EQ(codecs, Metrics::State::kCodecs);
}

class StoreMetrics : public ::testing::Test {
 protected:
  StoreMetrics() : tensor_("t", kF32, shape_of({900, 1000}), 1) {
    store_ = open_store(std::make_unique<MemoryObjectStore>(), system_uuids(), system_clock(),
                        {.create = true, .metrics = metrics_})
                 .value();
  }
  Status save(const std::string& name, const SaveOptions& options = {}) {
    const TensorShard shard = tensor_.whole();
    auto pending = store_->save(name, {.tensors = {&shard, 1}}, options);
    return pending.ok() ? pending->wait() : pending.status();
  }
  double value(std::string_view series) const {
    const auto found = metrics_->value(series);
    EXPECT_TRUE(found.has_value()) << series;
    return found.value_or(-1);
  }
  double raw_bytes() const { return static_cast<double>(tensor_.bytes.size()); }

  TestTensor tensor_;
  const std::shared_ptr<Metrics> metrics_ = std::make_shared<Metrics>();
  std::unique_ptr<Store> store_;
};

TEST_F(StoreMetrics, OfASaveCountEveryByteOnce) {
  ASSERT_TRUE(save("run/1", {.codec = "raw"}).ok());
  EXPECT_EQ(value("caisson_save_bytes_total{stage=\"raw\"}"), raw_bytes());
  EXPECT_EQ(value("caisson_save_bytes_total{stage=\"stored\"}"), raw_bytes());
  EXPECT_EQ(value("caisson_save_bytes_total{stage=\"deduplicated\"}"), 0);
  EXPECT_GE(value("caisson_save_bytes_total{stage=\"written\"}"), raw_bytes());
  EXPECT_EQ(value("caisson_codec_raw_bytes_total{codec=\"raw\"}"), raw_bytes());
  const double chunks = value("caisson_save_chunks_total{source=\"new\"}");
  EXPECT_GT(chunks, 0);
  EXPECT_EQ(value("caisson_codec_chunks_total{codec=\"raw\"}"), chunks);
  EXPECT_GT(value("caisson_write_queue_depth_count"), 0);
  for (const char* name : {"save", "save_stall", "part", "commit"}) {
    EXPECT_EQ(value("caisson_" + std::string(name) + "_seconds_count"), 1) << name;
  }
  EXPECT_GT(value("caisson_memory_peak_bytes"), 0);
  EXPECT_LE(value("caisson_memory_peak_bytes"), value("caisson_memory_max_bytes"));

  ASSERT_TRUE(save("run/2", {.codec = "raw"}).ok());
  EXPECT_EQ(value("caisson_save_bytes_total{stage=\"deduplicated\"}"), raw_bytes());
  EXPECT_EQ(value("caisson_save_bytes_total{stage=\"stored\"}"), raw_bytes());
  EXPECT_EQ(value("caisson_save_chunks_total{source=\"parent\"}"), chunks);
}

TEST_F(StoreMetrics, TellCodecsApart) {
  ASSERT_TRUE(save("run/1", {.codec = "planes"}).ok());
  const double in = value("caisson_codec_raw_bytes_total{codec=\"planes\"}") +
                    value("caisson_codec_raw_bytes_total{codec=\"raw\"}");
  const double out = value("caisson_codec_stored_bytes_total{codec=\"planes\"}") +
                     value("caisson_codec_stored_bytes_total{codec=\"raw\"}");
  EXPECT_EQ(in, raw_bytes());
  EXPECT_EQ(out, value("caisson_save_bytes_total{stage=\"stored\"}"));
  EXPECT_EQ(value("caisson_codec_reason_raw_bytes_total{reason=\"asked_for\"}") +
                value("caisson_codec_reason_raw_bytes_total{reason=\"not_smaller\"}"),
            raw_bytes());
}

TEST_F(StoreMetrics, OfARestoreCountEveryByteOnce) {
  ASSERT_TRUE(save("run/1").ok());
  ByteVector found(tensor_.bytes.size());
  const TensorTarget target{.name = "t",
                            .box = Box::whole(tensor_.spec.shape),
                            .data = found.data(),
                            .strides_bytes = {}};
  ASSERT_TRUE(store_->restore("run/1", {&target, 1}).ok());
  EXPECT_EQ(value("caisson_restore_bytes_total{stage=\"raw\"}"), raw_bytes());
  EXPECT_GE(value("caisson_restore_bytes_total{stage=\"read\"}"),
            value("caisson_restore_bytes_total{stage=\"stored\"}"));
  EXPECT_EQ(value("caisson_restore_seconds_count"), 1);
  EXPECT_GT(value("caisson_read_queue_depth_count"), 0);
}

TEST_F(StoreMetrics, CountErrorsOnceByCode) {
  EXPECT_EQ(store_->restore("run/1", {}).code(), StatusCode::kNotFound);
  EXPECT_EQ(value("caisson_errors_total{operation=\"restore\",code=\"not_found\"}"), 1);
  EXPECT_EQ(value("caisson_restore_seconds_count"), 0);
  ASSERT_TRUE(save("run/1").ok());
  EXPECT_EQ(save("run/1").code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(value("caisson_errors_total{operation=\"save\",code=\"already_exists\"}"), 1);
  tensor_.spec.name = "";  // found out by the background thread
  EXPECT_EQ(save("run/2").code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(value("caisson_errors_total{operation=\"save\",code=\"invalid_argument\"}"), 1);
}

}  // namespace
}  // namespace caisson

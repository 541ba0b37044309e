// Tests of caisson/trace.h: the document, its bound, and what a save and a restore record.
#include "caisson/trace.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "client/open_store.h"
#include "tests/support/memory_object_store.h"
#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

using Json = nlohmann::json;
using testing::kF32;
using testing::shape_of;
using testing::TestTensor;

// The spans of a trace by row: how many, and of how many bytes.
struct RowSum {
  int spans = 0;
  uint64_t bytes = 0;
};
std::map<std::string, RowSum> rows_of(const Trace& trace) {
  std::map<int, std::string> names;
  std::map<std::string, RowSum> rows;
  const Json document = Json::parse(trace.to_json());
  for (const Json& event : document.at("traceEvents")) {
    if (event.at("name") == "thread_name") names[event.at("tid")] = event.at("args").at("name");
  }
  for (const Json& event : document.at("traceEvents")) {
    if (event.at("ph") != "X") continue;
    EXPECT_GE(event.at("dur").get<double>(), 0);
    RowSum& row = rows[names.at(event.at("tid"))];
    ++row.spans;
    row.bytes += event.at("args").at("bytes").get<uint64_t>();
  }
  return rows;
}

TEST(Trace, DrawsSpansAndLevels) {
  Trace trace;
  const uint32_t row = trace.row("one \"row\"");
  EXPECT_EQ(trace.row("one \"row\""), row);
  const auto now = Trace::Clock::now();
  trace.span(row, "work", now, now + std::chrono::microseconds(7), 42);
  const uint32_t level = trace.row("level");
  trace.level(level, 5);
  trace.level(level, 0);
  const Json document = Json::parse(trace.to_json());
  const Json& events = document.at("traceEvents");
  std::map<std::string, int> kinds;
  for (const Json& event : events) ++kinds[event.at("ph")];
  // M: the process, and name and place of the one row with spans.
  EXPECT_EQ(kinds, (std::map<std::string, int>{{"C", 2}, {"M", 3}, {"X", 1}}));
  const auto rows = rows_of(trace);
  EXPECT_EQ(rows.at("one \"row\"").bytes, 42u);
}

TEST(Trace, IsBoundedAndSharedByThreads) {
  Trace trace(1000);
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&trace, i] {
        const uint32_t row = trace.row("thread " + std::to_string(i));
        for (int n = 0; n < 500; ++n) const TraceSpan span(&trace, row, "turn");
      });
    }
  }
  EXPECT_EQ(trace.dropped(), 1000u);
  int spans = 0;
  for (const auto& [name, row] : rows_of(trace)) spans += row.spans;
  EXPECT_EQ(spans, 1000);
}

TEST(Trace, OfASaveAndARestoreTellsEveryByte) {
  const auto trace = std::make_shared<Trace>();
  const auto store = open_store(std::make_unique<MemoryObjectStore>(), system_uuids(),
                                system_clock(), {.create = true, .trace = trace})
                         .value();
  const TestTensor tensor("t", kF32, shape_of({900, 1000}), 1);
  const TensorShard shard = tensor.whole();
  auto save = store->save("run/1", {.tensors = {&shard, 1}, .blobs = {}, .aliases = {}}).value();
  ASSERT_TRUE(save.wait().ok());
  ByteVector found(tensor.bytes.size());
  const TensorTarget target{
      .name = "t", .box = Box::whole(tensor.spec.shape), .data = found.data(), .strides_bytes = {}};
  ASSERT_TRUE(store->restore("run/1", {&target, 1}).ok());
  ASSERT_EQ(found, tensor.bytes);

  const auto rows = rows_of(*trace);
  EXPECT_EQ(rows.at("save rank 0 worker 0: 2 hash").bytes, tensor.bytes.size());
  EXPECT_GE(rows.at("save rank 0 worker 0: 6 write: waits and syncs").bytes, tensor.bytes.size());
  EXPECT_GE(rows.at("commit: 7").spans, 4);
  EXPECT_EQ(rows.at("restore worker 0: 5 verify, 6 place").bytes, tensor.bytes.size());
}

}  // namespace
}  // namespace caisson

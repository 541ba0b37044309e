// Cases are chosen by name, and refused before anything is written when they cannot run.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "bench/bench_run.h"
#include "tests/support/temp_dir.h"

namespace caisson::bench {
namespace {

using ::caisson::testing::TempDir;
using ::testing::HasSubstr;

TEST(CaseTable, NamesAreUniqueAndGroupsTogether) {
  std::set<std::string_view> names;
  std::set<Group> ended;
  const auto& table = case_table();
  for (size_t i = 0; i < table.size(); ++i) {
    EXPECT_TRUE(names.insert(table[i].name).second) << table[i].name;
    if (i == 0 || table[i].group == table[i - 1].group) continue;
    EXPECT_TRUE(ended.insert(table[i - 1].group).second) << table[i].name;
    EXPECT_FALSE(ended.contains(table[i].group)) << table[i].name << " leaves its group";
  }
  for (const CaseEntry& entry : table) {
    EXPECT_TRUE(entry.versus.faster.empty() || names.contains(entry.versus.faster)) << entry.name;
  }
}

TEST(CaseTable, ChoosesByName) {
  EXPECT_EQ(choose_cases({"all"})->size(), case_table().size());
  EXPECT_EQ(choose_cases({"quick"})->size(), 3u);
  const auto two = choose_cases({"restore", "save", "restore"});
  ASSERT_TRUE(two.ok());
  ASSERT_EQ(two->size(), 2u);
  EXPECT_EQ((*two)[0]->name, "save");  // the table's order
  EXPECT_EQ(choose_cases({"saev"}).status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(choose_cases({"saev"}).status().message()), HasSubstr("save-unaligned"));
}

TEST(CaseTable, RefusesEarly) {
  const TempDir dir;
  BenchOptions options;
  options.directory = dir.path();
  options.cases = {"save"};
  options.bytes = uint64_t{1} << 50;
  const Status space = run_bench(options).status();
  EXPECT_EQ(space.code(), StatusCode::kNoSpace);
  EXPECT_THAT(std::string(space.message()), HasSubstr("case save needs"));
  options.bytes = 1000;
  EXPECT_EQ(run_bench(options).status().code(), StatusCode::kInvalidArgument);
  options.bytes = 64 << 20;
  options.rounds = 0;
  EXPECT_EQ(run_bench(options).status().code(), StatusCode::kInvalidArgument);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(CaseTable, RunsAndLeavesNothing) {
  const TempDir dir;
  BenchOptions options;
  options.directory = dir.path();
  options.cases = {"save", "resave", "restore"};
  options.bytes = 64 << 20;
  options.rounds = 2;
  options.settle_seconds = 0;
  const auto report = run_bench(options);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  ASSERT_NE(report->find("resave"), nullptr);
  const MetricSamples* written = report->find("resave")->find("payload written");
  ASSERT_NE(written, nullptr);
  EXPECT_EQ(written->samples, (std::vector<double>{0, 0}));  // the warm-up is not among them
  EXPECT_EQ(report->find("save")->find("ratio")->samples.size(), 2u);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(CaseTable, InterruptedLeavesNothing) {
  const TempDir dir;
  std::stop_source stop;
  BenchOptions options;
  options.directory = dir.path();
  options.cases = {"save"};
  options.bytes = 64 << 20;
  options.settle_seconds = 60;
  options.stop = stop.get_token();
  options.progress = [&](const std::string& what) {
    if (what.find("warming up: save") != std::string::npos) stop.request_stop();
  };
  EXPECT_EQ(run_bench(options).status().code(), StatusCode::kCancelled);
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace caisson::bench

// The report's JSON shape, the comparison of two, and the page made of one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "bench/report_html.h"
#include "bench/report_json.h"

namespace caisson::bench {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

MetricSamples ratio(std::vector<double> samples, std::optional<double> target = {}) {
  return {{.name = "ratio", .unit = "of L", .target = target}, std::move(samples)};
}
MetricSamples cpu(std::vector<double> samples) {
  return {{.name = "cpu", .unit = "s/GB", .better = Better::kLower, .target = 0.1},
          std::move(samples)};
}
MetricSamples rate(std::vector<double> samples) {
  return {{.name = "rate", .unit = "GB/s", .comparable = false}, std::move(samples)};
}

BenchReport report(std::vector<MetricSamples> metrics) {
  return {.machine = "a <machine> & \"more\"",
          .directory = "/scratch",
          .io_engine = "io_uring",
          .bytes = 1 << 30,
          .rounds = 3,
          .cases = {{"limit", "the device", {rate({2, 2, 2})}},
                    {"save", "save of tensors", std::move(metrics)}},
          .skipped = {{"interference", "one processor"}}};
}

std::set<std::string> keys_of(const nlohmann::ordered_json& json) {
  std::set<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.insert(key);
  return keys;
}

TEST(BenchReport, JsonHasTheDocumentedShape) {
  const auto json = json_of(report({ratio({0.9, 1.0, 0.8}, 0.92), rate({1, 2, 3})}));
  EXPECT_EQ(json["schema"], "caisson.bench/2");
  EXPECT_EQ(keys_of(json),
            (std::set<std::string>{"schema", "machine", "directory", "io_engine", "bytes", "rounds",
                                   "seconds", "cases", "skipped"}));
  const auto& save = json["cases"][1];
  EXPECT_EQ(keys_of(save), (std::set<std::string>{"name", "summary", "metrics"}));
  const auto& with_target = save["metrics"][0];
  EXPECT_EQ(keys_of(with_target),
            (std::set<std::string>{"name", "unit", "better", "comparable", "target", "met",
                                   "median", "q1", "q3", "min", "max", "samples"}));
  EXPECT_EQ(with_target["met"], false);
  EXPECT_DOUBLE_EQ(with_target["median"].get<double>(), 0.9);
  EXPECT_EQ(with_target["samples"].size(), 3u);
  EXPECT_FALSE(save["metrics"][1].contains("target"));
  EXPECT_EQ(json["skipped"][0]["why"], "one processor");
}

TEST(BenchReport, JsonComesBackAsItWas) {
  const BenchReport before = report({ratio({0.9, 1.0, 0.8}, 0.92), cpu({0.1, 0.2, 0.3})});
  const auto after = report_of(json_of(before).dump());
  ASSERT_TRUE(after.ok()) << after.status().to_string();
  EXPECT_EQ(json_of(*after).dump(), json_of(before).dump());
}

TEST(BenchReport, RefusesWhatIsNoReport) {
  auto json = json_of(report({ratio({1, 1, 1})}));
  EXPECT_FALSE(report_of("").ok());
  EXPECT_FALSE(report_of("[]").ok());
  EXPECT_FALSE(report_of("{\"schema\": \"caisson.bench/1\"}").ok());
  json["cases"][1]["metrics"][0]["samples"] = {"fast"};
  EXPECT_THAT(std::string(report_of(json.dump()).status().message()), HasSubstr("samples"));
  json["cases"][1]["metrics"][0]["samples"] = nlohmann::ordered_json::array();
  EXPECT_FALSE(report_of(json.dump()).ok());  // a metric without samples has no median
  json["cases"][1] = "save";
  EXPECT_FALSE(report_of(json.dump()).ok());
  json.erase("cases");
  EXPECT_FALSE(report_of(json.dump()).ok());
}

TEST(BenchReport, TargetsAreMetFromTheRightSide) {
  EXPECT_TRUE(meets_target(ratio({0.92, 0.92}, 0.92)));
  EXPECT_FALSE(meets_target(ratio({0.91, 0.91}, 0.92)));
  EXPECT_TRUE(meets_target(ratio({0.1})));
  EXPECT_TRUE(meets_target(cpu({0.09, 0.1, 0.5})));
  EXPECT_FALSE(meets_target(cpu({0.11, 0.11, 0.01})));
}

TEST(BenchReport, ComparesWhatIsComparable) {
  const auto differences =
      compare(report({ratio({0.90, 0.91, 0.92}), cpu({0.10, 0.11, 0.12}), rate({1, 1, 1})}),
              report({ratio({0.80, 0.81, 0.82}), cpu({0.11, 0.12, 0.13}), rate({9, 9, 9})}));
  ASSERT_EQ(differences.size(), 2u);  // rates drift with the machine
  EXPECT_EQ(differences[0].metric.name, "ratio");
  EXPECT_TRUE(differences[0].beyond_spread);
  EXPECT_FALSE(differences[0].better);
  EXPECT_FALSE(differences[1].beyond_spread);
}

TEST(BenchReport, LowerIsBetterWhereItIs) {
  const auto differences = compare(report({cpu({0.30, 0.31})}), report({cpu({0.10, 0.11})}));
  ASSERT_EQ(differences.size(), 1u);
  EXPECT_TRUE(differences[0].beyond_spread);
  EXPECT_TRUE(differences[0].better);
}

TEST(BenchReport, PassesOverWhatOneRunDoesNotHave) {
  BenchReport before = report({ratio({1, 1, 1})});
  before.cases.pop_back();
  EXPECT_TRUE(compare(before, report({ratio({2, 2, 2})})).empty());
  EXPECT_TRUE(compare(report({cpu({1})}), report({ratio({1})})).empty());
}

TEST(BenchReport, PageNeedsNothingElseAndEscapesNames) {
  const std::string page =
      html_of(report({ratio({0.9, 1.0, 0.8}, 0.92), cpu({0.01, 0.02, 0.03}), rate({1, 2, 3})}));
  EXPECT_THAT(page, HasSubstr("a &lt;machine&gt; &amp; &quot;more&quot;"));
  EXPECT_THAT(page, HasSubstr("prefers-color-scheme:dark"));
  EXPECT_THAT(page, HasSubstr("missed"));
  EXPECT_THAT(page, HasSubstr("one processor"));
  for (const char* outside : {"<script", "http:", "https:", "url(", "@import", "<link", "src="}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
}

TEST(BenchReport, FiguresHaveThreeDigits) {
  EXPECT_EQ(figure(0), "0");
  EXPECT_EQ(figure(0.0684), "0.068");
  EXPECT_EQ(figure(1.234), "1.23");
  EXPECT_EQ(figure(12.34), "12.3");
  EXPECT_EQ(figure(1234.4), "1234");
  EXPECT_EQ(figure(-12.34), "-12.3");
}

}  // namespace
}  // namespace caisson::bench

#include "bench/report_json.h"

#include <utility>

namespace caisson::bench {

namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSchema = "caisson.bench/2";

Json json_of(const MetricSamples& one) {
  const Spread spread = spread_of(one.samples);
  Json json = {{"name", one.metric.name},
               {"unit", one.metric.unit},
               {"better", one.metric.better == Better::kHigher ? "higher" : "lower"},
               {"comparable", one.metric.comparable}};
  if (one.metric.target) {
    json["target"] = *one.metric.target;
    json["met"] = meets_target(one);
  }
  json["median"] = spread.median;
  json["q1"] = spread.q1;
  json["q3"] = spread.q3;
  json["min"] = spread.min;
  json["max"] = spread.max;
  json["samples"] = one.samples;
  return json;
}

// Typed look-ups that never throw: the first thing missing is remembered and told.
class Reader {
 public:
  std::string text(const Json& json, const char* key) {
    if (!has(json, key) || !json[key].is_string()) return fail(key), std::string();
    return json[key].get<std::string>();
  }
  double number(const Json& json, const char* key) {
    if (!has(json, key) || !json[key].is_number()) return fail(key), 0;
    return json[key].get<double>();
  }
  const Json& list(const Json& json, const char* key) {
    if (!has(json, key) || !json[key].is_array()) return fail(key), empty_;
    return json[key];
  }
  std::vector<double> numbers(const Json& json, const char* key) {
    std::vector<double> values;
    for (const Json& value : list(json, key)) {
      if (!value.is_number()) fail(key);
      values.push_back(value.is_number() ? value.get<double>() : 0);
    }
    if (values.empty()) fail(key);
    return values;
  }
  void fail(const char* key) {
    if (status_.ok()) {
      status_ = invalid_argument("not a bench report of schema " + std::string(kSchema) + ": \"" +
                                 key + "\" is missing or of another type");
    }
  }
  const Status& status() const { return status_; }

 private:
  static bool has(const Json& json, const char* key) {
    return json.is_object() && json.contains(key);
  }
  const Json empty_ = Json::array();
  Status status_;
};

MetricSamples metric_of(Reader& reader, const Json& json) {
  MetricSamples one;
  one.metric.name = reader.text(json, "name");
  one.metric.unit = reader.text(json, "unit");
  one.metric.better = reader.text(json, "better") == "lower" ? Better::kLower : Better::kHigher;
  one.metric.comparable = json.is_object() && json.value("comparable", true);
  if (json.is_object() && json.contains("target"))
    one.metric.target = reader.number(json, "target");
  one.samples = reader.numbers(json, "samples");
  return one;
}

}  // namespace

bool meets_target(const MetricSamples& metric) {
  if (!metric.metric.target) return true;
  const double median = spread_of(metric.samples).median;
  return metric.metric.better == Better::kHigher ? median >= *metric.metric.target
                                                 : median <= *metric.metric.target;
}

TargetCount count_targets(const BenchReport& report) {
  TargetCount count;
  for (const CaseResult& one : report.cases) {
    for (const MetricSamples& metric : one.metrics) {
      if (!metric.metric.target) continue;
      ++count.all;
      if (meets_target(metric)) ++count.met;
    }
  }
  return count;
}

Json json_of(const BenchReport& report) {
  Json cases = Json::array();
  for (const CaseResult& one : report.cases) {
    Json metrics = Json::array();
    for (const MetricSamples& metric : one.metrics) metrics.push_back(json_of(metric));
    cases.push_back(
        {{"name", one.name}, {"summary", one.summary}, {"metrics", std::move(metrics)}});
  }
  Json skipped = Json::array();
  for (const SkippedCase& one : report.skipped) {
    skipped.push_back({{"name", one.name}, {"why", one.why}});
  }
  return {{"schema", kSchema},
          {"machine", report.machine},
          {"directory", report.directory},
          {"io_engine", report.io_engine},
          {"bytes", report.bytes},
          {"rounds", report.rounds},
          {"seconds", report.seconds},
          {"cases", std::move(cases)},
          {"skipped", std::move(skipped)}};
}

Result<BenchReport> report_of(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  Reader reader;
  if (reader.text(json, "schema") != kSchema) reader.fail("schema");
  BenchReport report;
  report.machine = reader.text(json, "machine");
  report.directory = reader.text(json, "directory");
  report.io_engine = reader.text(json, "io_engine");
  report.bytes = static_cast<uint64_t>(reader.number(json, "bytes"));
  report.rounds = static_cast<uint32_t>(reader.number(json, "rounds"));
  // Reports of earlier versions do not have it.
  if (json.is_object() && json.contains("seconds")) report.seconds = reader.number(json, "seconds");
  for (const Json& one : reader.list(json, "cases")) {
    CaseResult result{reader.text(one, "name"), reader.text(one, "summary"), {}};
    for (const Json& metric : reader.list(one, "metrics")) {
      result.metrics.push_back(metric_of(reader, metric));
    }
    report.cases.push_back(std::move(result));
  }
  for (const Json& one : reader.list(json, "skipped")) {
    report.skipped.push_back({reader.text(one, "name"), reader.text(one, "why")});
  }
  if (!reader.status().ok()) return reader.status();
  return report;
}

std::vector<Difference> compare(const BenchReport& before, const BenchReport& now) {
  std::vector<Difference> differences;
  for (const CaseResult& one : now.cases) {
    const CaseResult* known = before.find(one.name);
    if (known == nullptr) continue;
    for (const MetricSamples& metric : one.metrics) {
      const MetricSamples* old = known->find(metric.metric.name);
      if (old == nullptr || !metric.metric.comparable) continue;
      Difference difference{one.name, metric.metric, spread_of(old->samples),
                            spread_of(metric.samples)};
      difference.beyond_spread = differ_beyond_spread(difference.before, difference.now);
      const bool higher = difference.now.median > difference.before.median;
      difference.better = higher == (metric.metric.better == Better::kHigher);
      differences.push_back(std::move(difference));
    }
  }
  return differences;
}

}  // namespace caisson::bench

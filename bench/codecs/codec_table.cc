#include "bench/codecs/codec_table.h"

#include <fmt/format.h>

#include <cstdio>
#include <tuple>
#include <utility>

namespace caisson::bench {
namespace {

// What we want. Speeds are shares of memcpy in the same round, or GB/s where they say so.
struct Target {
  const char* data;
  const char* codec;
  double ratio, encode, decode;
  bool gigabytes = false;
};
constexpr Target kTargets[] = {
    {"bf16 weights", "planes", 1.40, 0.75, 0.80},
    {"bf16 weights", "entropy", 1.49, 1.8, 3.6, true},
    {"fp32 weights", "planes", 1.17, 0.6, 0.6},
    {"fp32 weights", "entropy", 1.195, 2.5, 0, true},
    {"Adam m", "planes", 1.13, 0.6, 0.6},
    {"Adam v", "planes", 1.17, 0.6, 0.6},
    {"master beside bf16", "twin", 1.98, 0.6, 0.6},
    {"whole 14 B state", "planes and twin", 1.35, 7, 0, true},
    {"whole 14 B state", "entropy and twin", 1.39, 2.2, 0, true},
    {"bf16, 1 step later", "delta", 5, 1, 1, true},
    {"bf16, 100 steps later", "delta", 1.9, 1, 1, true},
};
// Of the ratio that entropy codes reach on the same bytes, on any model.
constexpr double kPlanesShareMin = 0.93;

const Target* target_of(const std::string& data, std::string_view codec) {
  for (const Target& target : kTargets) {
    if (target.data == data && target.codec == codec) return &target;
  }
  return nullptr;
}

std::optional<double> wanted(double target) {
  return target == 0 ? std::nullopt : std::optional(target);
}

Spread exactly(double value) {
  return {.median = value, .q1 = value, .q3 = value, .min = value, .max = value};
}

double ratio_of(const Sample& sample, const Track& track) {
  return static_cast<double>(sample.raw_bytes) / static_cast<double>(track.stored_bytes);
}

std::vector<double> scaled(std::vector<double> values, double by) {
  for (double& value : values) value *= by;
  return values;
}

}  // namespace

void CodecTable::State::add(const Sample& sample, const Track& track,
                            const std::vector<double>& hash) {
  const auto bytes = static_cast<double>(sample.state_bytes);
  raw_bytes += bytes;
  stored_bytes += bytes / ratio_of(sample, track);
  seconds.resize(hash.size());
  for (size_t i = 0; i < hash.size(); ++i) seconds[i] += bytes / track.encode[i] + bytes / hash[i];
}

void CodecTable::add(const std::string& data, const Sample& sample,
                     const Measurement& measurement) {
  for (const Track& track : measurement.tracks()) {
    const std::string codec(track.name());
    const Target* const target = target_of(data, codec);
    const Target none{};
    const Target& want = target == nullptr ? none : *target;
    Row row{.data = data, .codec = codec, .figures = {}};
    row.figures.push_back({"ratio", "", exactly(ratio_of(sample, track)), wanted(want.ratio)});
    for (const auto& [name, speeds, least] : {std::tuple("encode", &track.encode, want.encode),
                                              std::tuple("decode", &track.decode, want.decode)}) {
      const bool in_gigabytes = want.gigabytes;
      row.figures.push_back({name, "of memcpy",
                             spread_of(paired_ratios(*speeds, measurement.copy())),
                             in_gigabytes ? std::nullopt : wanted(least), !in_gigabytes});
      row.figures.push_back({name, "GB/s", spread_of(scaled(*speeds, 1e-9)),
                             in_gigabytes ? wanted(least) : std::nullopt, in_gigabytes});
    }
    rows_.push_back(std::move(row));
  }
  const Track* const planes = measurement.find("planes");
  const Track* const entropy = measurement.find("entropy");
  const Track* const chosen = measurement.find("auto");
  if (planes == nullptr || entropy == nullptr || chosen == nullptr) return;
  rows_.push_back(
      {.data = data,
       .codec = "planes / entropy",
       .figures = {{"ratio", "", exactly(ratio_of(sample, *planes) / ratio_of(sample, *entropy)),
                    kPlanesShareMin}}});
  const Track* const twin = measurement.find("twin");
  fast_.add(sample, twin != nullptr ? *twin : *planes, measurement.hash());
  small_.add(sample, twin != nullptr ? *twin : *entropy, measurement.hash());
  chosen_.add(sample, twin != nullptr ? *twin : *chosen, measurement.hash());
}

void CodecTable::add_whole_state(const std::string& data) {
  for (const auto& [codec, state] :
       {std::pair("planes and twin", &fast_), std::pair("entropy and twin", &small_),
        std::pair("auto and twin", &chosen_)}) {
    std::vector<double> speeds;
    for (const double seconds : state->seconds) speeds.push_back(state->raw_bytes / seconds * 1e-9);
    const Target* const target = target_of(data, codec);
    const Target none{};
    const Target& want = target == nullptr ? none : *target;
    rows_.push_back(
        {.data = data,
         .codec = codec,
         .figures = {
             {"ratio", "", exactly(state->raw_bytes / state->stored_bytes), wanted(want.ratio)},
             {"encode", "GB/s with hashing", spread_of(speeds), wanted(want.encode)}}});
  }
  fast_ = {};
  small_ = {};
  chosen_ = {};
}

void CodecTable::print_new() {
  for (; printed_ < rows_.size(); ++printed_) {
    const Row& row = rows_[printed_];
    std::string line = fmt::format("{:<22} {:<16}", row.data, row.codec);
    for (const Figure& figure : row.figures) {
      if (!figure.printed) continue;
      const Spread& value = figure.value;
      std::string text = figure.name == "ratio"
                             ? fmt::format(" {:.3f}", value.median)
                             : fmt::format("  {} {:.2f} [{:.2f}-{:.2f}] {}", figure.name,
                                           value.median, value.q1, value.q3, figure.unit);
      if (figure.target) {
        text += fmt::format(" (>= {:g}: {})", *figure.target, figure.met() ? "pass" : "MISS");
      }
      line += text;
    }
    std::puts(line.c_str());
  }
  std::fflush(stdout);
}

nlohmann::ordered_json CodecTable::json() const {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Row& row : rows_) {
    nlohmann::ordered_json figures = nlohmann::ordered_json::array();
    for (const Figure& figure : row.figures) {
      nlohmann::ordered_json one = {{"name", figure.name}, {"unit", figure.unit}};
      if (figure.target) {
        one["target"] = *figure.target;
        one["met"] = figure.met();
      }
      one["median"] = figure.value.median;
      one["q1"] = figure.value.q1;
      one["q3"] = figure.value.q3;
      figures.push_back(std::move(one));
    }
    rows.push_back({{"data", row.data}, {"codec", row.codec}, {"figures", std::move(figures)}});
  }
  return rows;
}

}  // namespace caisson::bench

#include "engine/metrics.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "compression/codec.h"
#include "engine/save_codec.h"
#include "io/base/check.h"

namespace caisson {

namespace {

constexpr double kNanosecond = 1e-9;
constexpr uint64_t kMillisecond = 1'000'000;
constexpr uint64_t kSecond = 1000 * kMillisecond;

constexpr std::array<uint64_t, 12> kDepthBounds = {1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32, 64};
constexpr std::array<uint64_t, 15> kTimeBounds = {
    kMillisecond,       3 * kMillisecond, 10 * kMillisecond, 30 * kMillisecond, 100 * kMillisecond,
    300 * kMillisecond, kSecond,          3 * kSecond,       10 * kSecond,      30 * kSecond,
    100 * kSecond,      300 * kSecond,    1000 * kSecond,    3000 * kSecond,    10'000 * kSecond};

using Family = Metrics::State::Family;
using Series = Metrics::State::Series;

std::string label(std::string_view name, std::string_view value) {
  return std::string(name) + "=\"" + std::string(value) + "\"";
}

Series series(std::string labels, Counter& counter) {
  return {.labels = std::move(labels), .counter = &counter};
}

Family one(std::string name, std::string help, Counter& counter) {
  return {.name = std::move(name), .help = std::move(help), .series = {series({}, counter)}};
}

Family one(std::string name, std::string help, HighWater& high_water) {
  return {.name = std::move(name),
          .help = std::move(help),
          .series = {{.labels = {}, .high_water = &high_water}}};
}

Family one(std::string name, std::string help, double unit, Histogram& histogram) {
  return {.name = std::move(name),
          .help = std::move(help),
          .unit = unit,
          .series = {{.labels = {}, .histogram = &histogram}}};
}

Family by_codec(std::string name, std::string help,
                std::array<Counter, Metrics::State::kCodecs>& counters) {
  Family family{.name = std::move(name), .help = std::move(help), .series = {}};
  for (size_t id = 0; id < counters.size(); ++id) {
    const auto codec = find_codec(static_cast<uint8_t>(id));
    CAISSON_CHECK(codec.ok());
    family.series.push_back(series(label("codec", (*codec)->name()), counters[id]));
  }
  return family;
}

Family by_reason(std::string name, std::string help,
                 std::array<Counter, Metrics::State::kReasons>& counters) {
  static_assert(Metrics::State::kReasons == kCodecReasons);
  Family family{.name = std::move(name), .help = std::move(help), .series = {}};
  for (size_t i = 1; i < counters.size(); ++i) {  // but kNotTold
    std::string reason(to_string(static_cast<CodecReason>(i)));
    std::ranges::replace(reason, ' ', '_');
    family.series.push_back(series(label("reason", reason), counters[i]));
  }
  return family;
}

Family errors_family(Metrics::State& state) {
  Family family{.name = "caisson_errors_total",
                .help = "Saves and restores that failed, by status code.",
                .series = {}};
  constexpr std::array<std::string_view, Metrics::State::kOperations> kNames = {"save", "restore"};
  for (size_t i = 0; i < kNames.size(); ++i) {
    for (size_t code = 1; code < Metrics::State::kStatusCodes; ++code) {
      std::string name(status_code_name(static_cast<StatusCode>(code)));
      std::ranges::replace(name, ' ', '_');
      family.series.push_back(series(label("operation", kNames[i]) + "," + label("code", name),
                                     state.errors[i * Metrics::State::kStatusCodes + code]));
    }
  }
  return family;
}

std::string number(double value) {
  char text[40];
  std::snprintf(text, sizeof text, "%.17g", value);
  char shorter[40];
  std::snprintf(shorter, sizeof shorter, "%.12g", value);
  return std::strtod(shorter, nullptr) == value ? shorter : text;
}

// Calls `visit` with every name in the text and its value.
template <typename Visit>
void visit_series(const Family& family, const Series& series, Visit&& visit) {
  const auto full = [&](std::string_view suffix, const std::string& labels) {
    std::string name = family.name + std::string(suffix);
    return labels.empty() ? name : name + "{" + labels + "}";
  };
  const auto scaled = [&](uint64_t value) { return static_cast<double>(value) * family.unit; };
  if (series.counter != nullptr)
    return visit(full("", series.labels), scaled(series.counter->value()));
  if (series.high_water != nullptr) {
    return visit(full("", series.labels), scaled(series.high_water->value()));
  }
  Histogram& histogram = *series.histogram;
  const std::string before = series.labels.empty() ? "" : series.labels + ",";
  uint64_t below = 0;
  for (size_t i = 0; i < histogram.counts().size(); ++i) {
    below += histogram.counts()[i].value();
    const std::string bound =
        i < histogram.bounds().size() ? number(scaled(histogram.bounds()[i])) : "+Inf";
    visit(full("_bucket", before + label("le", bound)), static_cast<double>(below));
  }
  visit(full("_sum", series.labels), scaled(histogram.sum().value()));
  visit(full("_count", series.labels), static_cast<double>(below));
}

std::string_view type_of(const Family& family) {
  const Series& first = family.series.front();
  if (first.counter != nullptr) return "counter";
  return first.high_water != nullptr ? "gauge" : "histogram";
}

}  // namespace

void Histogram::observe(uint64_t value) {
  const auto bucket = std::ranges::lower_bound(bounds_, value) - bounds_.begin();
  counts_[static_cast<size_t>(bucket)].add();
  sum_.add(value);
}

void Histogram::observe(std::chrono::steady_clock::duration time) {
  observe(static_cast<uint64_t>(std::max<int64_t>(0, time / std::chrono::nanoseconds(1))));
}

Metrics::State::State()
    : write_depth(kDepthBounds),
      read_depth(kDepthBounds),
      save_seconds(kTimeBounds),
      stall_seconds(kTimeBounds),
      part_seconds(kTimeBounds),
      commit_seconds(kTimeBounds),
      restore_seconds(kTimeBounds) {
  families = {
      {.name = "caisson_save_bytes_total",
       .help = "Bytes through the stages of saves.",
       .series = {series(label("stage", "raw"), save_raw_bytes),
                  series(label("stage", "deduplicated"), save_deduplicated_bytes),
                  series(label("stage", "stored"), save_stored_bytes),
                  series(label("stage", "written"), save_written_bytes)}},
      {.name = "caisson_restore_bytes_total",
       .help = "Bytes through the stages of restores.",
       .series = {series(label("stage", "read"), restore_read_bytes),
                  series(label("stage", "stored"), restore_stored_bytes),
                  series(label("stage", "raw"), restore_raw_bytes)}},
      {.name = "caisson_save_chunks_total",
       .help = "Chunks of saves, by where they were found or went.",
       .series = {series(label("source", "new"), save_chunks[0]),
                  series(label("source", "inline"), save_chunks[1]),
                  series(label("source", "parent"), save_chunks[2]),
                  series(label("source", "save"), save_chunks[3]),
                  series(label("source", "store"), save_chunks[4])}},
      by_codec("caisson_codec_chunks_total", "New chunks, by the codec chosen.", codec_chunks),
      by_codec("caisson_codec_raw_bytes_total", "Bytes that went into each codec.",
               codec_raw_bytes),
      by_codec("caisson_codec_stored_bytes_total", "Bytes that came out of each codec.",
               codec_stored_bytes),
      by_reason("caisson_codec_reason_raw_bytes_total",
                "Bytes of new chunks, by why their codec was chosen.", codec_reason_raw_bytes),
      one("caisson_write_queue_depth", "Writes in flight when another one was submitted.", 1,
          write_depth),
      one("caisson_read_queue_depth", "Reads in flight when another one was submitted.", 1,
          read_depth),
      one("caisson_save_seconds", "From save() to durable and committed.", kNanosecond,
          save_seconds),
      one("caisson_save_stall_seconds", "How long save() held up its caller.", kNanosecond,
          stall_seconds),
      one("caisson_part_seconds", "From joining a save to the rank's part being durable.",
          kNanosecond, part_seconds),
      one("caisson_commit_seconds", "From the sealed parts to the commit record.", kNanosecond,
          commit_seconds),
      one("caisson_restore_seconds", "From restore() to every byte verified in its place.",
          kNanosecond, restore_seconds),
      errors_family(*this),
      one("caisson_restore_retried_chunks_total",
          "Chunks that failed their check and passed on a second reading.", retried_chunks),
      one("caisson_save_memory_yields_total",
          "Times that a save gave its staging memory to a restore that waited for it.",
          memory_yields),
      one("caisson_memory_peak_bytes", "Staging memory at most, as counted.", memory_peak_bytes),
      one("caisson_memory_max_bytes", "The bound of staging memory.", memory_max_bytes),
  };
}

void Metrics::State::count_error(Operation operation, const Status& status) {
  if (status.ok()) return;
  errors[static_cast<size_t>(operation) * kStatusCodes + static_cast<size_t>(status.code())].add();
}

std::vector<uint64_t> Metrics::State::numbers() {
  std::vector<uint64_t> all;
  for (const Family& family : families) {
    for (const Series& series : family.series) {
      if (series.counter != nullptr) all.push_back(series.counter->value());
      if (series.high_water != nullptr) all.push_back(series.high_water->value());
      if (series.histogram == nullptr) continue;
      for (const Counter& count : series.histogram->counts()) all.push_back(count.value());
      all.push_back(series.histogram->sum().value());
    }
  }
  return all;
}

void Metrics::State::add(std::span<const uint64_t> numbers) {
  CAISSON_CHECK(numbers.size() == this->numbers().size());
  auto next = numbers.begin();
  for (const Family& family : families) {
    for (const Series& series : family.series) {
      if (series.counter != nullptr) series.counter->add(*next++);
      if (series.high_water != nullptr) series.high_water->raise(*next++);
      if (series.histogram == nullptr) continue;
      for (Counter& count : series.histogram->counts()) count.add(*next++);
      series.histogram->sum().add(*next++);
    }
  }
}

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

std::string Metrics::to_prometheus() const {
  std::string text;
  for (const Family& family : state_->families) {
    text += "# HELP " + family.name + " " + family.help + "\n# TYPE " + family.name + " " +
            std::string(type_of(family)) + "\n";
    for (const Series& series : family.series) {
      visit_series(family, series, [&](const std::string& name, double value) {
        text += name + " " + number(value) + "\n";
      });
    }
  }
  return text;
}

std::optional<double> Metrics::value(std::string_view series) const {
  std::optional<double> found;
  for (const Family& family : state_->families) {
    if (!series.starts_with(family.name)) continue;
    for (const Series& one : family.series) {
      visit_series(family, one, [&](const std::string& name, double value) {
        if (name == series) found = value;
      });
    }
  }
  return found;
}

}  // namespace caisson

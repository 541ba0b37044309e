#include "caisson/trace.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <vector>

#include "io/base/sync.h"

namespace caisson {

namespace {

constexpr int64_t kLevel = -1;  // the duration of an event that is a level, not a span

struct Event {
  int64_t begin_ns = 0;
  int64_t duration_ns = 0;
  uint64_t value = 0;  // bytes, or the level
  const char* what = nullptr;
  uint32_t row = 0;
};

// Row names are ours, but a tensor's or run's name may come to be part of one.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out += '"';
}

std::string microseconds(int64_t ns) {
  char text[40];
  std::snprintf(text, sizeof text, "%lld.%03d", static_cast<long long>(ns / 1000),
                static_cast<int>(ns % 1000));
  return text;
}

// Rows in the order of their names.
std::vector<uint32_t> order_by_name(const std::vector<std::string>& rows) {
  std::vector<uint32_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0u);
  std::ranges::sort(order, {}, [&](uint32_t row) -> const std::string& { return rows[row]; });
  return order;
}

}  // namespace

struct Trace::State {
  explicit State(uint64_t max) : events_max(max) {}

  const uint64_t events_max;
  mutable Mutex mutex;
  std::vector<std::string> rows CAISSON_GUARDED_BY(mutex);
  std::vector<Event> events CAISSON_GUARDED_BY(mutex);
  uint64_t dropped CAISSON_GUARDED_BY(mutex) = 0;

  void add(const Event& event) CAISSON_EXCLUDES(mutex) {
    MutexLock lock(mutex);
    if (events.size() < events_max) {
      events.push_back(event);
    } else {
      ++dropped;
    }
  }
};

Trace::Trace(uint64_t events_max) : state_(std::make_unique<State>(events_max)) {}
Trace::~Trace() = default;

uint32_t Trace::row(std::string_view name) {
  MutexLock lock(state_->mutex);
  std::vector<std::string>& rows = state_->rows;
  const auto known = std::ranges::find(rows, name);
  if (known != rows.end()) return static_cast<uint32_t>(known - rows.begin());
  rows.emplace_back(name);
  return static_cast<uint32_t>(rows.size() - 1);
}

void Trace::span(uint32_t row, const char* what, Clock::time_point begin, Clock::time_point end,
                 uint64_t bytes) {
  state_->add({.begin_ns = begin.time_since_epoch() / std::chrono::nanoseconds(1),
               .duration_ns = std::max<int64_t>(0, (end - begin) / std::chrono::nanoseconds(1)),
               .value = bytes,
               .what = what,
               .row = row});
}

void Trace::level(uint32_t row, uint64_t value) {
  state_->add({.begin_ns = Clock::now().time_since_epoch() / std::chrono::nanoseconds(1),
               .duration_ns = kLevel,
               .value = value,
               .what = nullptr,
               .row = row});
}

uint64_t Trace::dropped() const {
  MutexLock lock(state_->mutex);
  return state_->dropped;
}

std::string Trace::to_json() const {
  const State& state = *state_;
  MutexLock lock(state.mutex);
  const std::vector<uint32_t> order = order_by_name(state.rows);

  std::vector<bool> has_spans(state.rows.size(), false);
  for (const Event& event : state.events) {
    if (event.duration_ns != kLevel) has_spans[event.row] = true;
  }
  const std::string pid = std::to_string(::getpid());
  std::string json = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  json += R"({"ph":"M","pid":)" + pid + R"(,"name":"process_name","args":{"name":"caisson"}})";
  for (size_t i = 0; i < order.size(); ++i) {
    if (!has_spans[order[i]]) continue;
    const std::string at = R"(,"pid":)" + pid + R"(,"tid":)" + std::to_string(order[i]);
    json += ",\n{\"ph\":\"M\"" + at + R"(,"name":"thread_name","args":{"name":)" +
            quoted(state.rows[order[i]]) + "}}";
    json += ",\n{\"ph\":\"M\"" + at + R"(,"name":"thread_sort_index","args":{"sort_index":)" +
            std::to_string(i) + "}}";
  }
  for (const Event& event : state.events) {
    const bool is_level = event.duration_ns == kLevel;
    json += is_level ? ",\n{\"ph\":\"C\",\"pid\":" : ",\n{\"ph\":\"X\",\"pid\":";
    json +=
        pid + ",\"tid\":" + std::to_string(event.row) + ",\"ts\":" + microseconds(event.begin_ns) +
        ",\"name\":" +
        quoted(is_level ? std::string_view(state.rows[event.row]) : std::string_view(event.what));
    if (!is_level) json += ",\"dur\":" + microseconds(event.duration_ns);
    const char* const value = is_level ? "value" : "bytes";
    json += ",\"args\":{\"" + std::string(value) + "\":" + std::to_string(event.value) + "}}";
  }
  return json + "\n]}\n";
}

}  // namespace caisson

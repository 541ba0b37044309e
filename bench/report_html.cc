#include "bench/report_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "bench/report_json.h"
#include "bench/spread.h"

namespace caisson::bench {

namespace {

constexpr double kLimitScale = 1.25;  // right end of the bars that are set against L
constexpr double kTargetScale = 2.0;  // of those that are set against their target
constexpr std::string_view kOfLimit = "of L";

constexpr std::string_view kStyle = R"(
:root{color-scheme:light dark;--page:#f6f7f9;--card:#fff;--ink:#16202c;--soft:#5b6877;--line:#dfe4ea;
--track:#edf0f4;--good:#1b7f5c;--bad:#b4472b;--plain:#5f7896;--mark:#16202c;--spread:#16202c}
@media(prefers-color-scheme:dark){:root{--page:#10151b;--card:#182029;--ink:#e8edf3;--soft:#9aa8b7;
--line:#2a3541;--track:#232d38;--good:#3fb58a;--bad:#e2785a;--plain:#7f9abb;--mark:#f4f7fa;--spread:#f4f7fa}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1040px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:28px;line-height:1.2;letter-spacing:-.02em;margin:0 0 6px}
h2{font-size:17px;margin:0 0 4px}
p{margin:0 0 14px;color:var(--soft);max-width:76ch}
section{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:22px 24px;margin-top:20px}
.tiles{display:flex;flex-wrap:wrap;gap:12px;margin-top:22px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:14px 18px;flex:1 1 150px}
.tile b{display:block;font-size:25px;font-weight:650;letter-spacing:-.02em;line-height:1.25}
.tile span{color:var(--soft);font-size:13px}
.row{display:grid;grid-template-columns:minmax(150px,250px) 1fr 212px;gap:18px;align-items:center;
padding:9px 0;border-top:1px solid var(--line)}
.row:first-of-type{border-top:0}
.what b{display:block;font-weight:600;line-height:1.35}
.what span{color:var(--soft);font-size:13px;line-height:1.35;display:block}
.row svg{display:block;width:100%;height:26px;overflow:visible}
.track{fill:var(--track)}.met{fill:var(--good)}.missed{fill:var(--bad)}.plain{fill:var(--plain)}
.limit{stroke:var(--mark);stroke-width:1.5;opacity:.5}
.target{stroke:var(--mark);stroke-width:2.5}
.spread{stroke:var(--spread);stroke-width:1.5}
.value{text-align:right;white-space:nowrap}
.value b{font-weight:650}.value span{color:var(--soft);font-size:13px;display:block}
.value .ok{color:var(--good)}.value .no{color:var(--bad)}
.key{display:flex;flex-wrap:wrap;gap:6px 20px;color:var(--soft);font-size:13px;margin:0 0 12px}
.key svg{width:26px;height:14px;vertical-align:-2px;margin-right:6px;overflow:visible}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:5px 14px 5px 0;border-top:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:500;border-top:0}
td.n,th.n{text-align:right}
td.ok{color:var(--good)}td.no{color:var(--bad);font-weight:600}
footer{color:var(--soft);font-size:13px;margin-top:24px}
@media(max-width:720px){.row{grid-template-columns:1fr auto}.row svg{grid-column:1/-1;grid-row:2}}
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return out;
}

std::string with_unit(double value, const Metric& metric) {
  if (metric.unit == kOfLimit || metric.unit == "x") return figure(value);
  return figure(value) + " " + metric.unit;
}

std::string target_text(const Metric& metric) {
  if (!metric.target) return {};
  return fmt::format("{} {}", metric.better == Better::kHigher ? "≥" : "≤",
                     with_unit(*metric.target, metric));
}

std::string_view bar_class(const MetricSamples& metric) {
  if (!metric.metric.target) return "plain";
  return meets_target(metric) ? "met" : "missed";
}

// One bar: the median, a whisker from quartile to quartile, a tick at the target; `unit` is the
// value at which the line stands that everything is set against, `scale` the right end in units.
std::string bar(const MetricSamples& metric, const Spread& spread, double unit, double scale,
                bool limit_line) {
  const auto x = [&](double value) { return std::clamp(value / unit / scale, 0.0, 1.0) * 100; };
  std::string svg = fmt::format(
      R"(<svg aria-hidden="true"><rect class="track" y="5" width="100%" height="16" rx="3"/>)"
      R"(<rect class="{}" y="5" width="{:.2f}%" height="16" rx="3"/>)",
      bar_class(metric), x(spread.median));
  const auto line = [&](const char* kind, double from, double to, int top, int bottom) {
    svg += fmt::format(R"(<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{}" y2="{}"/>)", kind,
                       from, to, top, bottom);
  };
  if (limit_line) line("limit", x(unit), x(unit), 0, 26);
  if (metric.metric.target)
    line("target", x(*metric.metric.target), x(*metric.metric.target), 1, 25);
  line("spread", x(spread.q1), x(spread.q3), 13, 13);
  line("spread", x(spread.q1), x(spread.q1), 9, 17);
  line("spread", x(spread.q3), x(spread.q3), 9, 17);
  return svg + "</svg>";
}

std::string row(const CaseResult& one, const MetricSamples& metric, bool against_limit) {
  const Spread spread = spread_of(metric.samples);
  // Set against its target; one of zero has no scale, so the bar is full when it is missed.
  const double target = metric.metric.target.value_or(0);
  const double unit = against_limit ? 1 : target > 0 ? target : std::max(spread.median, 1e-9);
  std::string status;
  if (metric.metric.target) {
    status = fmt::format(R"(<span><span class="{}" style="display:inline">{}</span>{}</span>)",
                         meets_target(metric) ? "ok" : "no",
                         meets_target(metric) ? "✓ met " : "✗ missed ",
                         escaped(target_text(metric.metric)));
  }
  const std::string sub = against_limit ? one.summary : metric.metric.name;
  return fmt::format(
      R"(<div class="row"><div class="what"><b>{}</b><span>{}</span></div>{}<div class="value"><b>{}</b> [{}–{}]{}</div></div>)",
      escaped(one.name), escaped(sub),
      bar(metric, spread, unit, against_limit ? kLimitScale : kTargetScale, against_limit),
      escaped(with_unit(spread.median, metric.metric)), figure(spread.q1), figure(spread.q3),
      status);
}

std::string rows(const BenchReport& report, bool against_limit) {
  std::string text;
  for (const CaseResult& one : report.cases) {
    for (const MetricSamples& metric : one.metrics) {
      const bool of_limit = metric.metric.unit == kOfLimit;
      if (of_limit != against_limit || (!of_limit && !metric.metric.target)) continue;
      text += row(one, metric, against_limit);
    }
  }
  return text;
}

std::string tile(std::string_view value, std::string_view what) {
  return fmt::format(R"(<div class="tile"><b>{}</b><span>{}</span></div>)", escaped(value),
                     escaped(what));
}

std::string tiles(const BenchReport& report) {
  const TargetCount targets = count_targets(report);
  std::string text;
  if (const CaseResult* limit = report.find("limit")) {
    for (const MetricSamples& metric : limit->metrics) {
      text += tile(figure(spread_of(metric.samples).median) + " GB/s",
                   "L, the device's " + metric.metric.name + " limit");
    }
  }
  if (targets.all > 0) {
    text += tile(fmt::format("{} of {}", targets.met, targets.all), "targets met");
  }
  return text + tile(std::to_string(report.rounds), "interleaved rounds, medians") +
         tile(fmt::format("{:.2f} GB", static_cast<double>(report.bytes) * 1e-9),
              "of tensors in most cases");
}

std::string full_table(const BenchReport& report) {
  std::string text =
      R"(<table><thead><tr><th>Case</th><th>Metric</th><th class="n">Median</th><th class="n">Q1</th>)"
      R"(<th class="n">Q3</th><th class="n">Min</th><th class="n">Max</th><th>Unit</th><th>Target</th><th></th></tr></thead><tbody>)";
  for (const CaseResult& one : report.cases) {
    for (const MetricSamples& metric : one.metrics) {
      const Spread spread = spread_of(metric.samples);
      text +=
          fmt::format("<tr><td>{}</td><td>{}</td>", escaped(one.name), escaped(metric.metric.name));
      for (const double value : {spread.median, spread.q1, spread.q3, spread.min, spread.max}) {
        text += fmt::format(R"(<td class="n">{}</td>)", figure(value));
      }
      const bool met = meets_target(metric);
      text += fmt::format(R"(<td>{}</td><td>{}</td><td class="{}">{}</td></tr>)",
                          escaped(metric.metric.unit), escaped(target_text(metric.metric)),
                          met ? "ok" : "no",
                          !metric.metric.target ? ""
                          : met                 ? "met"
                                                : "missed");
    }
  }
  return text + "</tbody></table>";
}

constexpr std::string_view kKey =
    R"(<div class="key"><span><svg><rect class="met" y="2" width="26" height="10" rx="2"/></svg>target met</span>)"
    R"(<span><svg><rect class="missed" y="2" width="26" height="10" rx="2"/></svg>missed</span>)"
    R"(<span><svg><rect class="plain" y="2" width="26" height="10" rx="2"/></svg>no target</span>)"
    R"(<span><svg><line class="target" x1="13" x2="13" y1="0" y2="14"/></svg>target</span>)"
    R"(<span><svg><line class="spread" x1="3" x2="23" y1="7" y2="7"/><line class="spread" x1="3" x2="3" y1="3" y2="11"/><line class="spread" x1="23" x2="23" y1="3" y2="11"/></svg>first to third quartile</span></div>)";

std::string section(std::string_view title, std::string_view text, const std::string& body) {
  if (body.empty()) return {};
  return fmt::format("<section><h2>{}</h2><p>{}</p>{}</section>", title, text, body);
}

std::string skipped(const BenchReport& report) {
  std::string text;
  for (const SkippedCase& one : report.skipped) {
    text += fmt::format("<tr><td>{}</td><td>{}</td></tr>", escaped(one.name), escaped(one.why));
  }
  return text.empty() ? text : "<div class=\"wide\"><table>" + text + "</table></div>";
}

}  // namespace

std::string figure(double value) {
  const double size = std::abs(value);
  if (size < 5e-4) return "0";
  if (size >= 100) return fmt::format("{:.0f}", value);
  return size >= 10 ? fmt::format("{:.1f}", value)
                    : fmt::format("{:.{}f}", value, size >= 1 ? 2 : 3);
}

std::string html_of(const BenchReport& report) {
  const std::string limited = rows(report, true);
  const std::string other = rows(report, false);
  std::string page = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">"
      "<title>Caisson bench</title><style>{}</style></head><body><main>"
      "<h1>Saves and restores against the device</h1><p>{}<br>{}, {}</p>"
      "<div class=\"tiles\">{}</div>",
      kStyle, escaped(report.machine), escaped(report.directory), escaped(report.io_engine),
      tiles(report));
  page += section("Against the device limit",
                  "1 is L: what the device did in the same round with nothing else to do "
                  "(io_uring, direct I/O, 4 MiB requests, 16 in flight). Hash, dedup, tables and "
                  "the durable commit are included.",
                  limited.empty() ? limited : std::string(kKey) + limited);
  page += section("Other targets",
                  "Every bar is drawn against its own target, which stands in the middle.",
                  other.empty() ? other : std::string(kKey) + other);
  page += section("Not measured here", "What this machine cannot do.", skipped(report));
  page += section("Every figure", "Medians and quartiles of the rounds; a warm-up is not counted.",
                  "<div class=\"wide\">" + full_table(report) + "</div>");
  return page + "<footer>Made by caisson bench.</footer></main></body></html>\n";
}

}  // namespace caisson::bench

#include "client/checkpoint_name.h"

#include <charconv>

#include "engine/format/names.h"

namespace caisson {

namespace {

// One number has one name: no leading zeros.
std::optional<uint64_t> number_of(std::string_view digits) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (digits.size() > 1 && digits.front() == '0') return std::nullopt;
  return number;
}

}  // namespace

Result<CheckpointName> parse_checkpoint_name(std::string_view name) {
  const size_t slash = name.rfind('/');
  if (slash == std::string_view::npos) {
    return invalid_argument("\"" + std::string(name) +
                            "\" is no checkpoint name: write run/step or run/latest");
  }
  CheckpointName parsed{.run = std::string(name.substr(0, slash)), .step = std::nullopt};
  CAISSON_RETURN_IF_ERROR(format::check_run_name(parsed.run));
  std::string_view step = name.substr(slash + 1);
  if (step == "latest") return parsed;
  if (const size_t at = step.find('@'); at != std::string_view::npos) {
    parsed.commit = number_of(step.substr(at + 1));
    if (!parsed.commit) {
      return invalid_argument("\"" + std::string(name) +
                              "\": the number of a log record follows the \"@\"");
    }
    step = step.substr(0, at);
  }
  parsed.step = number_of(step);
  if (parsed.step) return parsed;
  return invalid_argument("\"" + std::string(name) +
                          "\": the step is a decimal number or \"latest\"");
}

}  // namespace caisson

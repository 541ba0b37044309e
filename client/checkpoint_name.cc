#include "client/checkpoint_name.h"

#include <charconv>

#include "engine/format/names.h"

namespace caisson {

Result<CheckpointName> parse_checkpoint_name(std::string_view name) {
  const size_t slash = name.rfind('/');
  if (slash == std::string_view::npos) {
    return invalid_argument("\"" + std::string(name) +
                            "\" is no checkpoint name: write run/step or run/latest");
  }
  CheckpointName parsed{.run = std::string(name.substr(0, slash)), .step = std::nullopt};
  CAISSON_RETURN_IF_ERROR(format::check_run_name(parsed.run));
  const std::string_view step = name.substr(slash + 1);
  if (step == "latest") return parsed;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(step.data(), step.data() + step.size(), number);
  // One number has one name: no leading zeros.
  if (error != std::errc() || end != step.data() + step.size() ||
      (step.size() > 1 && step.front() == '0')) {
    return invalid_argument("\"" + std::string(name) +
                            "\": the step is a decimal number or \"latest\"");
  }
  parsed.step = number;
  return parsed;
}

}  // namespace caisson

// "run/step" and "run/latest", as people and programs write them. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "caisson/result.h"

namespace caisson {

struct CheckpointName {
  std::string run;               // may itself contain '/': the last one separates the step
  std::optional<uint64_t> step;  // nullopt: "latest"
};

// kInvalidArgument saying how a name looks.
Result<CheckpointName> parse_checkpoint_name(std::string_view name);
}  // namespace caisson

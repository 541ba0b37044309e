// "run/step" and "run/latest", as people and programs write them; "run/step@commit" is the one that
// the log record of that number committed, and no other of the same name. Pure.
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
  std::optional<uint64_t> commit{};
};

// kInvalidArgument saying how a name looks.
Result<CheckpointName> parse_checkpoint_name(std::string_view name);
}  // namespace caisson

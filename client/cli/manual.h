// The manual page and the shell completion, made from the very definitions that parse the command
// line. Pure.
#pragma once

#include <string>

#include "client/cli/command.h"

namespace caisson::cli {

std::string manual_page(const CLI::App& app, const std::string& version);  // roff, section 1
std::string bash_completion(const CLI::App& app);

}  // namespace caisson::cli

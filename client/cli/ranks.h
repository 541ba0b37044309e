// Several processes of this program that do one job together: a real checkpoint by many ranks, on
// one machine. Used by `import --ranks` and `restore --ranks`. The parent gives each child its task
// as a JSON document on standard input; the child answers on standard output, one JSON object a
// line:
//   {"progress": <bytes done>}*  then  {"result": {...}}  or  {"error": {"code": n, "message":
//   "..."}}
// A child dies with its parent. Standard error is shared.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "client/cli/command.h"

namespace caisson::cli {

// Runs `<this program> <verb>` once per task and waits for all. The results in the order of the
// tasks; or the first error, after the other children were ended. `progress` gets the sum.
Result<std::vector<Json>> run_ranks(const std::string& verb, std::span<const Json> tasks,
                                    uint64_t bytes_total, const ProgressFn& progress,
                                    const std::stop_token& stop);

// The child's side.
class RankChild {
 public:
  // Reads the task, and asks the kernel to end this process when the parent dies.
  static Result<Json> take_task();
  static ProgressFn progress();
  // Tells the outcome; the exit code for main.
  static int finish(const Result<Json>& outcome);
};

}  // namespace caisson::cli

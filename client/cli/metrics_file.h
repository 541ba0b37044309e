// --metrics FILE of every verb: what its saves and restores counted, rank processes included, as
// Prometheus text. main.cc makes one and writes it at the end; ranks.cc carries the children's
// numbers. Thread-compatible.
#pragma once

#include <memory>
#include <string>

#include "caisson/metrics.h"
#include "caisson/result.h"
#include "client/cli/command.h"

namespace caisson::cli {

class MetricsFile {
 public:
  // Nothing is counted until this is called.
  void start() { metrics_ = std::make_shared<Metrics>(); }
  const std::shared_ptr<Metrics>& metrics() const { return metrics_; }  // null: not started

  // This process's numbers, and adding those of another one, which ran the same program.
  Json numbers() const;
  void add(const Json& numbers);
  // A collector that reads at that moment finds the file before or after, never half of it.
  Status write(const std::string& path) const;

 private:
  std::shared_ptr<Metrics> metrics_;
};

}  // namespace caisson::cli

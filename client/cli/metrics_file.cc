#include "client/cli/metrics_file.h"

#include <vector>

#include "client/new_file.h"
#include "engine/metrics.h"
#include "io/base/bytes.h"

namespace caisson::cli {

Json MetricsFile::numbers() const {
  if (metrics_ == nullptr) return Json::array();
  return metrics_->state().numbers();
}

void MetricsFile::add(const Json& numbers) {
  if (metrics_ == nullptr || numbers.empty()) return;
  metrics_->state().add(numbers.get<std::vector<uint64_t>>());
}

Status MetricsFile::write(const std::string& path) const {
  const std::string text = metrics_->to_prometheus();
  CAISSON_ASSIGN_OR_RETURN(NewFile file, NewFile::create(path, text.size(), /*overwrite=*/true));
  CAISSON_RETURN_IF_ERROR(file.write(0, as_bytes(text)));
  return file.publish();
}

}  // namespace caisson::cli

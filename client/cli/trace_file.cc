#include "client/cli/trace_file.h"

#include "client/new_file.h"
#include "io/base/bytes.h"

namespace caisson::cli {

Json TraceFile::events() const {
  Json all = others_;
  if (trace_ == nullptr) return all;
  const Json own = Json::parse(trace_->to_json());
  for (const Json& event : own.at("traceEvents")) all.push_back(event);
  return all;
}

void TraceFile::add(const Json& events) {
  for (const Json& event : events) others_.push_back(event);
}

Status TraceFile::write(const std::string& path) const {
  const std::string text = Json{{"displayTimeUnit", "ms"}, {"traceEvents", events()}}.dump() + "\n";
  CAISSON_ASSIGN_OR_RETURN(NewFile file, NewFile::create(path, text.size(), /*overwrite=*/true));
  CAISSON_RETURN_IF_ERROR(file.write(0, as_bytes(text)));
  return file.publish();
}

}  // namespace caisson::cli

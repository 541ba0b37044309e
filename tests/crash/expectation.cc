#include "tests/crash/expectation.h"

namespace caisson::crash {

void Expectation::apply(const Event& event) {
  Expected& expected = names_[event.name];
  ++events_;
  switch (event.kind) {
    case EventKind::kSaveBegun:
      expected.versions.insert(event.version);
      expected.begun_at = events_;
      break;
    case EventKind::kSaved:
      expected = {{event.version}, false, expected.begun_at, events_};
      break;
    case EventKind::kSaveRefused:
      expected.versions.erase(event.version);
      break;
    case EventKind::kRemoveBegun:
      expected.may_be_absent = true;
      expected.acknowledged_at = 0;
      break;
    case EventKind::kRemoved:
      expected = {};
      break;
  }
}

std::string Expectation::newest_acknowledged(const std::string& run) const {
  std::string newest;
  uint64_t at = 0;
  for (const auto& [name, expected] : names_) {
    if (expected.acknowledged_at > at && name.substr(0, name.rfind('/')) == run) {
      newest = name;
      at = expected.acknowledged_at;
    }
  }
  return newest;
}

}  // namespace caisson::crash

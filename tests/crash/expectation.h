// What a crash test knows about a store: for every checkpoint name, which contents it may have and
// whether it may be missing, given what had been begun and what had been acknowledged by then.
// Pure; thread-compatible.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace caisson::crash {

enum class EventKind : uint8_t {
  kSaveBegun,    // `name` may get content `version` from now on
  kSaved,        // acknowledged: `name` has content `version`
  kSaveRefused,  // this save certainly did not and will not commit
  kRemoveBegun,  // `name` may go
  kRemoved,      // acknowledged: `name` is gone
};
struct Event {
  EventKind kind;
  std::string name;  // "run/step"
  uint32_t version = 0;
};

struct Expected {
  std::set<uint32_t> versions;  // what it may hold when it is there
  bool may_be_absent = true;
  uint64_t begun_at = 0;         // when, in events, its latest save was begun
  uint64_t acknowledged_at = 0;  // and acknowledged; 0: it was not
};

class Expectation {
 public:
  void apply(const Event& event);
  const std::map<std::string, Expected>& names() const { return names_; }
  // The name acknowledged last of those in `run` that must be there; empty if none.
  std::string newest_acknowledged(const std::string& run) const;

 private:
  std::map<std::string, Expected> names_;
  uint64_t events_ = 0;
};

}  // namespace caisson::crash

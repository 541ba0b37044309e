// CAISSON_MUTANT(name) marks a check that the mutant test takes out, one at a time, to show that
// the corruption tests notice. It is false in every build but those with the CMake option
// CAISSON_MUTANTS, which the development presets set; nothing else may depend on it.
#pragma once

#ifdef CAISSON_MUTANTS

#include <atomic>
#include <string_view>

namespace caisson {
// The check that is out; null: none. Set by tests alone.
std::atomic<const char*>& active_mutant();
inline bool is_active_mutant(std::string_view name) {
  const char* const active = active_mutant().load(std::memory_order_relaxed);
  return active != nullptr && name == active;
}
}  // namespace caisson

#define CAISSON_MUTANT(name) ::caisson::is_active_mutant(#name)

#else

#define CAISSON_MUTANT(name) false

#endif

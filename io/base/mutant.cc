#include "io/base/mutant.h"

#ifdef CAISSON_MUTANTS
namespace caisson {
std::atomic<const char*>& active_mutant() {
  static std::atomic<const char*> active{nullptr};
  return active;
}
}  // namespace caisson
#endif

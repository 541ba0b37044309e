#include "io/base/mutant.h"

#ifdef CAISSON_MUTANTS
namespace caisson {
std::atomic<const char*> active_mutant{nullptr};
}  // namespace caisson
#endif

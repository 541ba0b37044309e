// The store's index, opened and caught up, for the verbs that can use one. A verb works without:
// the index only saves reading. Single-threaded.
#pragma once

#include <memory>

#include "client/cli/store_access.h"
#include "engine/index.h"

namespace caisson::cli {

// Null when the index cannot be used now: another process has it open, or its directory cannot be
// written. A rebuild is said once on standard error, with its reason.
std::unique_ptr<Index> open_index(StoreAccess& access, const Session& session);

}  // namespace caisson::cli

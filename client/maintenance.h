// What keeps a store in order, for the command line and for the C ABI alike: which checkpoints a
// verification covers, and the documents that both report in (docs/operations.md).
// Thread-compatible.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

#include "engine/gc.h"
#include "engine/log.h"
#include "engine/scrub.h"

namespace caisson {

// Verifies the named checkpoints ("run/step" or "run/latest"), or all of them and whatever else
// lies in the store when none is named. Damage is in the report; a Status says that the check could
// not be made. A checkpoint that is given up meanwhile is no damage: kFenced if it was named, else
// it is left out and `left_out` told.
Result<ScrubReport> verify_store(ObjectStore& objects, Log& log, MemoryBudget& budget,
                                 std::span<const std::string> names, const ScrubOptions& options,
                                 const std::function<void(const std::string&)>& left_out = {});

// The documents "caisson.verify/1" and "caisson.gc/1".
nlohmann::ordered_json document_of(const ScrubReport& report, ScrubDepth depth);
nlohmann::ordered_json document_of(const GcReport& report, bool dry_run);

}  // namespace caisson

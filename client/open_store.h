// Opens a store over any ObjectStore: what Store::open calls once it has made one for the URL, and
// what tests call with a simulated file system, fixed uuids and a fixed clock.
#pragma once

#include <memory>

#include "caisson/store.h"
#include "engine/store_dedup.h"
#include "io/base/clock.h"
#include "io/base/hash.h"
#include "io/object_store.h"

namespace caisson {

class StoreContext;

// Creates the store file where there is none and options.create allows it. `uuids` and `clock`
// outlive the store, and so do `hints`: with them every save also dedups against the whole store.
Result<std::unique_ptr<Store>> open_store(std::unique_ptr<ObjectStore> objects, UuidSource& uuids,
                                          Clock& clock, const StoreOptions& options,
                                          ChunkHints* hints = nullptr);

// Store::open with hints: for a command that owns the store's index.
Result<std::unique_ptr<Store>> open_store_at(const std::string& url, const StoreOptions& options,
                                             ChunkHints* hints);

// What stands behind a Store, for maintenance that Store itself does not offer. kInvalidArgument in
// a forked child.
Result<StoreContext*> context_of(Store& store);

}  // namespace caisson

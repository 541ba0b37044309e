// A directory as an ObjectStore, the reference implementation. Whoever opens a store makes one over
// a FileSystem, real or simulated. Thread-safe, as object_store.h says. object_dir.cc opens with
// the protocol.
//
// A key is the path below the root. "tmp/" holds what put_new has not linked yet, "index/" belongs
// to others: neither can be created in or read, and only list("tmp/") and remove() see the former.
#pragma once

#include <memory>
#include <string>

#include "caisson/result.h"
#include "io/base/hash.h"
#include "io/file_system.h"
#include "io/object_store.h"

namespace caisson {

// REQUIRES: `root` is absolute. It need not exist; its parent must once something is created.
// Nothing is touched before the first call. `uuids` names temporary files and outlives the store.
std::unique_ptr<ObjectStore> make_object_dir(std::shared_ptr<FileSystem> files, std::string root,
                                             UuidSource& uuids);

// Removes the temporary files that dead writers left; how many. Safe at any time: a put_new whose
// file is taken away writes another.
Result<uint64_t> sweep_temporary(ObjectStore& store);

}  // namespace caisson

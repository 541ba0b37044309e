// From a store's URL to its objects: one directory, or several that are one store. The one way in
// for Store::open and for the command line. Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caisson/result.h"
#include "io/base/clock.h"
#include "io/base/hash.h"
#include "io/file_system.h"
#include "io/object_store.h"

namespace caisson {

struct StoreUrl {
  std::string root;                      // the first directory, absolute
  std::vector<std::string> directories;  // the further ones, absolute; none: those it has
};
// "/data/ckpt", "file:///data/ckpt", and either with "?dirs=/disk2/ckpt,/disk3/ckpt" behind it.
Result<StoreUrl> parse_store_url(const std::string& url);

// kNotFound when a directory of the store is missing, kInvalidArgument when one belongs to another
// store: nothing is read or written then. With `create`, and directories in the URL, a store of
// these directories is made where there is none. Where there is no store else, the objects of the
// empty first directory.
Result<std::unique_ptr<ObjectStore>> open_objects(const std::shared_ptr<FileSystem>& files,
                                                  const StoreUrl& url, UuidSource& uuids,
                                                  Clock& clock, bool create);

// All directories of the store at `url`, the first one first, as open_objects would look for them.
Result<std::vector<std::string>> directories_of_store(const std::shared_ptr<FileSystem>& files,
                                                      const StoreUrl& url);

}  // namespace caisson

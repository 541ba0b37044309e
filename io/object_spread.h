// Several ObjectStores as one: every key belongs to one of them, as a function says. Whoever opens
// a store that has several directories makes one over them. Thread-safe, as object_store.h says.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "io/object_store.h"

namespace caisson {

// The number of the store that a key belongs to, below `count`. Always the same.
using PlaceOfKey = std::function<uint32_t(std::string_view key, uint32_t count)>;

// REQUIRES: at least one store, and that a queue of any of them takes the objects of all: they are
// directories over one FileSystem. What lies in a store that its key does not belong to is not
// seen.
std::unique_ptr<ObjectStore> make_object_spread(std::vector<std::unique_ptr<ObjectStore>> stores,
                                                PlaceOfKey place);

}  // namespace caisson

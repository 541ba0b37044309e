// Which objects of a store are needed and which are garbage: the deciding half of gc, without I/O,
// so that tests/model can drive it. Used by gc.cc. Thread-compatible.
#pragma once

#include <set>
#include <span>
#include <unordered_set>
#include <vector>

#include "engine/format/log_record.h"
#include "engine/format/root.h"
#include "engine/log_state.h"

namespace caisson {

// What the roots to keep refer to. Roots are only ever added: one that was pruned meanwhile keeps
// its objects for this run of gc, which costs nothing but time.
class LiveObjects {
 public:
  bool has_root(const format::ObjectRef& root) const { return roots_.contains(root); }
  // `root` and `packs`, all that it lists, are the content of `sealed`, checked against its digest.
  void add(const format::SealedRef& sealed, const format::Root& root,
           std::span<const format::SealedRef> packs);

  bool contains(const format::ObjectRef& object) const { return objects_.contains(object); }
  bool contains_any_of(const Uuid& save) const { return saves_.contains(save); }

 private:
  struct RefHash {
    size_t operator()(const format::ObjectRef& ref) const {
      return UuidHash()(ref.writer) + ref.number * size_t{31} + static_cast<size_t>(ref.kind);
    }
  };
  std::set<format::ObjectRef> roots_;
  std::unordered_set<format::ObjectRef, RefHash> objects_;
  std::unordered_set<Uuid, UuidHash> saves_;
};

enum class Fate : uint8_t {
  kLive,        // a root to keep refers to it
  kInProgress,  // of an open save
  kGarbage,     // of a save that is over, and nothing refers to it: to be condemned
  kCondemned,   // a condemn record in the log says that it may be deleted
  kUnknown,     // of a save that the log has not opened, as far as it was read: left alone
};
// REQUIRES: `live` holds every root of state.roots_to_keep().
Fate fate_of(const LogState& state, const LiveObjects& live, const format::ObjectRef& object);

// The next condemn record that may follow `state`; empty when there is nothing to condemn. Saves of
// which nothing is needed go whole; `listed` says what there may be of the others.
// REQUIRES: as fate_of.
format::CondemnRecord next_condemn(const LogState& state, const LiveObjects& live,
                                   std::span<const format::ObjectRef> listed);

}  // namespace caisson

#include "engine/gc_plan.h"

namespace caisson {

using format::ObjectRef;

void LiveObjects::add(const format::SealedRef& sealed, const format::Root& root,
                      std::span<const format::SealedRef> packs) {
  const auto keep = [this](const ObjectRef& object) {
    objects_.insert(object);
    saves_.insert(object.save);
  };
  roots_.insert(sealed.object);
  keep(sealed.object);
  keep(root.directory.object);
  for (const format::RootPart& part : root.parts) keep(part.part.object);
  for (const format::SealedRef& pack : packs) keep(pack.object);
}

Fate fate_of(const LogState& state, const LiveObjects& live, const ObjectRef& object) {
  // First, whatever else is said of it.
  if (live.contains(object)) return Fate::kLive;
  if (state.is_condemned(object)) return Fate::kCondemned;
  if (state.open_saves().contains(object.save)) return Fate::kInProgress;
  if (state.ended_saves().contains(object.save) || state.is_committed(object.save)) {
    return Fate::kGarbage;
  }
  return Fate::kUnknown;
}

format::CondemnRecord next_condemn(const LogState& state, const LiveObjects& live,
                                   std::span<const ObjectRef> listed) {
  format::CondemnRecord record;
  for (const Uuid& save : state.ended_saves()) {
    if (record.saves.size() == format::kCondemnedMax) return record;
    if (!live.contains_any_of(save)) record.saves.push_back(save);
  }
  for (const ObjectRef& object : listed) {
    if (record.objects.size() == format::kCondemnedMax) return record;
    if (fate_of(state, live, object) != Fate::kGarbage) continue;
    const bool goes_whole =
        state.ended_saves().contains(object.save) && !live.contains_any_of(object.save);
    if (!goes_whole) record.objects.push_back(object);
  }
  return record;
}

}  // namespace caisson

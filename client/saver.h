// The writing half of a Store: begins saves, runs one rank's side of them, commits. Called by
// store.cc. A whole save by one process is the same as one by many ranks, with one rank.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "caisson/store.h"
#include "client/store_context.h"
#include "client/ticket.h"
#include "engine/save_pipeline.h"

namespace caisson {

// A SaveInput whose names and places are owned; its bytes are the caller's, or `arena`'s.
struct OwnedInput {
  std::vector<SaveItem> items;
  AlignedBuffer arena;
};
OwnedInput own_input(const SaveInput& input);
// Copies every byte into memory of its own. This arena is as large as the tensors and is not part
// of the Store's memory budget: the caller asked for a second copy. It goes back with
// StoreContext::keep_staging. False when the host has no room for it: nothing was copied. An error
// when no host could have.
Result<bool> stage_input(StoreContext& context, OwnedInput& input);

// What can be refused before anything is written: a bad name or option, a name that is taken, a run
// that somebody else claimed.
Status check_save(StoreContext& context, const std::string& name, const SaveOptions& options);
// Appends the open record.
Result<Ticket> begin_save(StoreContext& context, const std::string& name,
                          const SaveOptions& options);
Result<std::unique_ptr<SaveTransaction>> join_save(StoreContext& context, const Ticket& ticket,
                                                   uint32_t rank, const SaveOptions& options);
Result<SaveReport> commit_save(StoreContext& context, const Ticket& ticket, uint32_t ranks,
                               std::span<const SealedPart> parts, const SaveOptions& options);
// Ends the save without a commit: its objects are garbage from then on.
Status abort_save(StoreContext& context, const Ticket& ticket);

// All of it, for one process.
Result<SaveReport> save_whole(StoreContext& context, const std::string& name,
                              std::span<const SaveItem> items, const SaveOptions& options);

}  // namespace caisson

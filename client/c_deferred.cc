// caisson/c.h: saves of shards whose memory is filled while the save goes on. What is ready is put
// in one batch; blobs, which are there from the beginning, first, and aliases, which refer to
// tensors, last.
#include <utility>

#include "client/c_future.h"
#include "client/c_handles.h"

namespace caisson::c {

Status put_when_ready(SaveTransaction& transaction, const OwnedSave& save, ReadyGate& gate,
                      const std::stop_token& stop) {
  CAISSON_RETURN_IF_ERROR(transaction.put({.blobs = save.blobs}));
  for (;;) {
    CAISSON_ASSIGN_OR_RETURN(const std::vector<uint64_t> places, gate.take(stop));
    if (places.empty()) break;
    std::vector<TensorShard> batch;
    batch.reserve(places.size());
    for (const uint64_t place : places) batch.push_back(save.shards[place]);
    CAISSON_RETURN_IF_ERROR(transaction.put({.tensors = batch}));
  }
  return transaction.put({.aliases = save.aliases});
}

Result<SaveReport> save_when_ready(Store& store, const std::string& ticket, const OwnedSave& save,
                                   ReadyGate& gate, const SaveOptions& options) {
  const auto write_part = [&]() -> Result<std::pair<SealedPart, std::string>> {
    CAISSON_ASSIGN_OR_RETURN(const auto rank, store.join_save(ticket, 0, options));
    CAISSON_RETURN_IF_ERROR(put_when_ready(*rank, save, gate, options.stop));
    CAISSON_ASSIGN_OR_RETURN(SealedPart part, rank->seal());
    return std::pair(std::move(part), rank->report().warning);
  };
  const auto part = write_part();
  if (!part.ok()) {
    (void)store.abort_save(ticket);  // spares gc the wait; the error that counts is the first
    return part.status();
  }
  CAISSON_ASSIGN_OR_RETURN(SaveReport report,
                           store.commit_save(ticket, 1, {&part->first, 1}, options));
  report.warning = part->second;
  return report;
}

}  // namespace caisson::c

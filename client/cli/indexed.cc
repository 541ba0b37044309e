#include "client/cli/indexed.h"

#include <fmt/format.h>

#include <cstdio>

#include "client/cli/text.h"

namespace caisson::cli {

std::unique_ptr<Index> open_index(StoreAccess& access, const Session& session) {
  const auto note = [&](const std::string& words) {
    if (!session.globals.quiet) fmt::print(stderr, "caisson: {}\n", printable(words));
  };
  auto index = Index::open(access.root() + "/index", access.uuid(), access.objects());
  if (!index.ok()) {
    note("working without the index: " + std::string(index.status().message()));
    return nullptr;
  }
  const auto synced = (*index)->sync(*access.state(), [&](const Status& skipped) {
    note(std::string(skipped.message()) + "; skipped, see caisson verify");
  });
  if (!synced.ok()) {
    note("working without the index: " + synced.status().to_string());
    return nullptr;
  }
  if (synced->rebuilt) {
    note(fmt::format("the index was rebuilt from the log ({} chunks of {} checkpoints): {}",
                     synced->places, synced->commits, synced->rebuild_reason));
  }
  return std::move(index).value();
}

}  // namespace caisson::cli

#include "client/cli/indexed.h"

#include <fmt/format.h>

#include <cstdio>

#include "client/cli/text.h"
#include "engine/live_read.h"

namespace caisson::cli {
namespace {

void note(const Session& session, const std::string& words) {
  if (!session.globals.quiet) fmt::print(stderr, "caisson: {}\n", printable(words));
}

}  // namespace

Result<std::unique_ptr<Index>> open_index(StoreAccess& access, const Session& session) {
  CAISSON_ASSIGN_OR_RETURN(auto index,
                           Index::open(access.root() + "/index", access.uuid(), access.objects()));
  // What others did before this process got the index, it may know already.
  CAISSON_ASSIGN_OR_RETURN(const auto newest, access.log().refresh());
  const auto complain = [&](const Status& skipped) {
    note(session, std::string(skipped.message()) + "; skipped, see caisson verify");
  };
  CAISSON_ASSIGN_OR_RETURN(const IndexSync synced, index->sync(*newest, complain));
  if (synced.rebuilt && synced.commits > 0) {
    note(session, fmt::format("the index was built from the log ({} chunks of {} checkpoints): {}",
                              synced.places, synced.commits, synced.rebuild_reason));
  }
  return index;
}

std::unique_ptr<Index> index_if_any(StoreAccess& access, const Session& session) {
  auto index = open_index(access, session);
  if (index.ok()) return std::move(index).value();
  note(session, "working without the index: " + index.status().to_string());
  return nullptr;
}

IndexedAnswers::~IndexedAnswers() {
  if (index_ != nullptr) static_cast<void>(index_->close());  // it would only be rebuilt
}

// Without a close the directory counts as unsound.
void IndexedAnswers::give_up(const Status& why) {
  note(session_, "going on without the index, which the next command rebuilds: " + why.to_string());
  index_.reset();
}

Result<CatalogEntry> IndexedAnswers::catalog(const Checkpoint& checkpoint) {
  if (index_ != nullptr) {
    auto known = index_->catalog(checkpoint.seq);
    if (!known.ok()) give_up(known.status());
    if (known.ok() && known->has_value() && (*known)->root == checkpoint.root.object) {
      return **std::move(known);
    }
  }
  const auto read = [&](const Checkpoint& now) { return access_.manifest(now); };
  CAISSON_ASSIGN_OR_RETURN(const auto manifest, read_live(access_.log(), checkpoint, read));
  return catalog_entry_of(manifest->root(), checkpoint.seq);
}

std::optional<std::string> IndexedAnswers::recall(const std::string& question) {
  if (index_ == nullptr) return std::nullopt;
  auto known = index_->recall(question);
  if (known.ok()) return std::move(known).value();
  give_up(known.status());
  return std::nullopt;
}

void IndexedAnswers::remember(const std::string& question, Bytes answer) {
  if (index_ == nullptr) return;
  const Status kept = index_->remember(question, as_text(answer));
  if (!kept.ok()) give_up(kept);
}

}  // namespace caisson::cli

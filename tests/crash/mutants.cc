#include "tests/crash/mutants.h"

#include <map>
#include <utility>

#include "tests/crash/world.h"

namespace caisson::crash {
namespace {

using sim::History;
using sim::NodeId;
using sim::Op;
using sim::OpKind;

const std::string kRoot = kStoreRoot;

// The name that a file ends up with: small objects are synced under tmp/ and linked later.
std::map<NodeId, std::string> final_names(const History& history) {
  std::map<NodeId, std::string> names;
  for (const Op& op : history) {
    for (const sim::Effect& effect : op.effects) {
      if (effect.kind == sim::EffectKind::kAdd) names[effect.target] = op.path;
    }
  }
  return names;
}

bool is_object(const std::string& path, std::string_view kind) {
  if (kind.starts_with('.')) return path.ends_with(kind);
  return path.starts_with(kRoot + "/" + std::string(kind));
}

History without(const History& history, const std::function<bool(const Op&)>& drop) {
  History kept;
  for (const Op& op : history) {
    if (!drop(op)) kept.push_back(op);
  }
  return kept;
}

DurabilityMutant no_file_sync(const std::string& what, std::string kind, bool harmless = false) {
  return {"no sync of " + what,
          [kind](const History& history) {
            const auto names = final_names(history);
            return without(history, [&](const Op& op) {
              const auto name = names.find(op.node);
              return op.kind == OpKind::kSyncFile && name != names.end() &&
                     is_object(name->second, kind);
            });
          },
          false, harmless};
}

DurabilityMutant no_directory_sync(const std::string& what,
                                   std::function<bool(const std::string&)> matches,
                                   bool harmless = false) {
  return {"no sync of the directory " + what,
          [matches](const History& history) {
            return without(history, [&](const Op& op) {
              return op.kind == OpKind::kSyncDirectory && matches(op.path);
            });
          },
          false, harmless};
}

std::function<bool(const std::string&)> is(const std::string& path) {
  return [path](const std::string& at) { return at == path; };
}

// Everything that makes data objects durable comes only after the log record that refers to them.
History data_after_commit(const History& history) {
  History changed;
  std::vector<Op> late;
  for (const Op& op : history) {
    const bool data = op.path.starts_with(kRoot + "/data");
    if (data && (op.kind == OpKind::kSyncFile || op.kind == OpKind::kSyncDirectory)) {
      late.push_back(op);
      continue;
    }
    changed.push_back(op);
    if (op.kind == OpKind::kSyncDirectory && op.path == kRoot + "/log") {
      changed.insert(changed.end(), late.begin(), late.end());
      late.clear();
    }
  }
  return changed;
}

// The name is made durable first, the bytes after: the order of 2 and 3 in put_new turned round.
History content_after_name(const History& history) {
  const auto names = final_names(history);
  History changed;
  std::map<NodeId, Op> late;
  for (const Op& op : history) {
    const auto name = names.find(op.node);
    if (op.kind == OpKind::kSyncFile && name != names.end() && is_object(name->second, "log/")) {
      late.emplace(op.node, op);
      continue;
    }
    changed.push_back(op);
    if (op.kind == OpKind::kMark) {
      for (auto& [node, sync] : late) changed.push_back(std::move(sync));
      late.clear();
    }
  }
  return changed;
}

std::vector<DurabilityMutant> make_mutants() {
  std::vector<DurabilityMutant> all = {
      no_file_sync("caisson.store", "caisson.store"),
      no_file_sync("log records", "log/"),
      no_file_sync("packs", ".pack"),
      no_file_sync("parts", ".part"),
      no_file_sync("checkpoint directories", ".dir"),
      no_file_sync("roots", ".root"),
      no_directory_sync("that holds the store", is("/disk")),
      no_directory_sync("of the store", is(kRoot)),
      no_directory_sync("log/", is(kRoot + "/log")),
      no_directory_sync("data/", is(kRoot + "/data")),
      no_directory_sync("data/<save>/",
                        [](const std::string& at) { return at.starts_with(kRoot + "/data/"); }),
      {"data durable only after the commit record", data_after_commit},
      {"log records linked before their bytes are durable", content_after_name},
      {"link that replaces what is there", [](const History& history) { return history; }, true},
      no_file_sync("log snapshots", "snapshots/", true),
      no_directory_sync("snapshots/", is(kRoot + "/snapshots"), true),
      no_directory_sync("tmp/", is(kRoot + "/tmp"), true),
  };
  return all;
}

}  // namespace

const std::vector<DurabilityMutant>& durability_mutants() {
  static const std::vector<DurabilityMutant> all = make_mutants();
  return all;
}

}  // namespace caisson::crash

// caisson stat: where the bytes of a store are, and what sharing and coding saved.
#include <fmt/format.h>

#include <map>
#include <set>
#include <unordered_map>

#include "client/cli/commands.h"
#include "client/cli/store_access.h"
#include "client/cli/text.h"
#include "engine/live_read.h"

namespace caisson::cli {
namespace {

struct Amount {
  uint64_t objects = 0;
  uint64_t bytes = 0;
  void add(uint64_t more) {
    ++objects;
    bytes += more;
  }
};

// What objects of a store are for.
struct Usage {
  Amount data, metadata, log, in_progress, reclaimable, other;
};

struct Totals {
  uint64_t checkpoints = 0;
  uint64_t logical_bytes = 0;        // what restoring every checkpoint would give
  uint64_t unique_bytes = 0;         // of distinct chunks, raw
  uint64_t unique_stored_bytes = 0;  // the same, as stored
  uint64_t unique_chunks = 0;
};

class StatCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    Counted counted;
    Checkpoint reading;
    for (;;) {
      const Status status = count(access, session, counted, reading);
      if (status.ok()) break;
      // The store moved under us: what was counted of that checkpoint is void, so from the start.
      const auto moved = after_failed_read(access.log(), reading, status);
      if (!moved.ok() && moved.status().code() != StatusCode::kFenced) return moved.status();
    }
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, count_objects(access, counted));
    const Totals& totals = counted.totals;
    session.globals.json ? print_document(usage, totals) : print(usage, totals);
    return 0;
  }

 private:
  struct Counted {
    Totals totals;
    std::set<std::string> data, metadata;  // keys that checkpoints need
    std::shared_ptr<const LogState> state;
  };

  static Status count(StoreAccess& access, const Session& session, Counted& counted,
                      Checkpoint& reading) {
    counted = {.totals = {}, .data = {}, .metadata = {}, .state = access.state()};
    std::set<Digest> ids;
    for (const auto& [seq, checkpoint] : counted.state->checkpoints()) {
      if (session.stop.stop_requested()) return cancelled("interrupted");
      reading = checkpoint;
      CAISSON_ASSIGN_OR_RETURN(const auto manifest, access.manifest(checkpoint));
      ++counted.totals.checkpoints;
      const format::Root& root = manifest->root();
      counted.metadata.insert(checkpoint.root.object.key());
      counted.metadata.insert(root.directory.object.key());
      CAISSON_ASSIGN_OR_RETURN(const format::PackTables tables, manifest->packs().all());
      for (const format::SealedRef& pack : tables.packs) counted.data.insert(pack.object.key());
      for (const format::RootPart& part : root.parts) {
        counted.metadata.insert(part.part.object.key());
      }
      CAISSON_RETURN_IF_ERROR(count_chunks(*manifest, ids, counted.totals));
    }
    return ok_status();
  }

  // Sixteen bytes a distinct chunk are held; the index answers the same without.
  static Status count_chunks(Manifest& manifest, std::set<Digest>& ids, Totals& totals) {
    constexpr uint64_t kEntriesAtOnce = 1 << 16;
    const std::vector<format::RootPart>& parts = manifest.root().parts;
    for (uint32_t part = 0; part < parts.size(); ++part) {
      for (uint64_t first = 0; first < parts[part].entries; first += kEntriesAtOnce) {
        const uint64_t count = std::min(kEntriesAtOnce, parts[part].entries - first);
        CAISSON_ASSIGN_OR_RETURN(const auto entries, manifest.entries(part, first, count));
        for (const format::ChunkEntry& entry : entries) {
          totals.logical_bytes += entry.raw_bytes;
          if (!ids.insert(entry.id).second) continue;
          ++totals.unique_chunks;
          totals.unique_bytes += entry.raw_bytes;
          totals.unique_stored_bytes += entry.stored_bytes;
        }
      }
    }
    return ok_status();
  }

  static Result<Usage> count_objects(StoreAccess& access, const Counted& counted) {
    Usage usage;
    CAISSON_RETURN_IF_ERROR(access.objects().list("", [&](const ObjectInfo& info) {
      if (counted.data.contains(info.key)) {
        usage.data.add(info.bytes);
      } else if (counted.metadata.contains(info.key) || info.key == format::kStoreKey) {
        usage.metadata.add(info.bytes);
      } else if (info.key.starts_with("log/") || info.key.starts_with("snapshots/")) {
        usage.log.add(info.bytes);
      } else if (const auto ref = format::object_ref_of(info.key); ref.ok()) {
        const bool open = counted.state->open_saves().contains(ref->save);
        (open ? usage.in_progress : usage.reclaimable).add(info.bytes);
      } else {
        usage.other.add(info.bytes);
      }
      return ok_status();
    }));
    return usage;
  }

  void print_document(const Usage& usage, const Totals& totals) const {
    const auto amount = [](const Amount& of) {
      return Json{{"objects", of.objects}, {"bytes", of.bytes}};
    };
    print_json({{"schema", "caisson.stat/1"},
                {"store", store_},
                {"checkpoints", totals.checkpoints},
                {"logical_bytes", totals.logical_bytes},
                {"unique_bytes", totals.unique_bytes},
                {"unique_stored_bytes", totals.unique_stored_bytes},
                {"unique_chunks", totals.unique_chunks},
                {"data", amount(usage.data)},
                {"metadata", amount(usage.metadata)},
                {"log", amount(usage.log)},
                {"in_progress", amount(usage.in_progress)},
                {"reclaimable", amount(usage.reclaimable)},
                {"other", amount(usage.other)}});
  }

  void print(const Usage& usage, const Totals& totals) const {
    fmt::print("{} checkpoints hold {}; {} of it distinct, in {} chunks\n", totals.checkpoints,
               human_bytes(totals.logical_bytes), human_bytes(totals.unique_bytes),
               totals.unique_chunks);
    fmt::print("sharing saves {} ({}), coding {} ({} of the rest)\n",
               human_bytes(totals.logical_bytes - totals.unique_bytes),
               percent(totals.logical_bytes - totals.unique_bytes, totals.logical_bytes),
               human_bytes(coding_saves(totals)),
               percent(coding_saves(totals), totals.unique_bytes));
    Table table({"WHERE", "OBJECTS", "SIZE"}, {false, true, true});
    const auto add = [&table](const char* name, const Amount& amount) {
      if (amount.objects == 0) return;
      table.add({name, std::to_string(amount.objects), human_bytes(amount.bytes)});
    };
    add("data", usage.data);
    add("metadata", usage.metadata);
    add("log", usage.log);
    add("saves in progress or interrupted", usage.in_progress);
    add("reclaimable by gc", usage.reclaimable);
    add("temporary and other", usage.other);
    table.print();
  }

  static uint64_t coding_saves(const Totals& totals) {
    return totals.unique_bytes - std::min(totals.unique_bytes, totals.unique_stored_bytes);
  }

  std::string store_;
};

}  // namespace

std::unique_ptr<Command> make_stat() { return std::make_unique<StatCommand>(); }

}  // namespace caisson::cli

// caisson index: brings the store's index up to date, shows it, and answers where a chunk is. A
// training job may start `caisson index sync` after a commit; import and ls do the same.
#include <fmt/format.h>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/indexed.h"
#include "client/cli/text.h"

namespace caisson::cli {
namespace {

Result<Digest> digest_from_hex(const std::string& text) {
  auto parsed = uuid_from_hex(text);  // sixteen bytes in hex, too
  if (!parsed.ok()) {
    return invalid_argument("\"" + text + "\": a content id has 32 lower-case hex digits, as " +
                            "caisson verify --json prints them");
  }
  return Digest{parsed->bytes};
}

class IndexCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("action", action_, "sync, stat or find")
        ->required()
        ->check(CLI::IsMember({"sync", "stat", "find"}));
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("id", id_, "find: the content id of a chunk, 32 hex digits");
    app.add_option("--bytes", raw_bytes_, "find: the raw length of the chunk");
  }

  Result<int> run(const Session& session) override {
    if ((action_ == "find") == (id_.empty() || raw_bytes_ == 0)) {
      return invalid_argument(
          "find needs a content id and --bytes, sync and stat take neither; for example: "
          "caisson index find /ckpt 0123456789abcdef0123456789abcdef --bytes 1048576");
    }
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<Index> index, open_index(access, session));
    Result<int> answered =
        action_ == "find" ? find(*index, *access.state(), session) : stat(*index, session);
    CAISSON_RETURN_IF_ERROR(index->close());
    return answered;
  }

 private:
  Result<int> stat(Index& index, const Session& session) const {
    CAISSON_ASSIGN_OR_RETURN(const IndexStats stats, index.stats());
    if (session.globals.json) {
      print_json({{"schema", "caisson.index/1"},
                  {"checkpoints", stats.checkpoints},
                  {"packs", stats.packs},
                  {"places", stats.places},
                  {"disk_bytes", stats.disk_bytes},
                  {"log_seq", stats.caught_up_to}});
    } else if (action_ == "stat") {
      fmt::print("{} places of chunks in {} packs, {} checkpoints; {} on disk; log record {}\n",
                 stats.places, stats.packs, stats.checkpoints, human_bytes(stats.disk_bytes),
                 stats.caught_up_to);
    }
    return kExitOk;
  }

  Result<int> find(Index& index, const LogState& log, const Session& session) const {
    CAISSON_ASSIGN_OR_RETURN(const Digest id, digest_from_hex(id_));
    CAISSON_ASSIGN_OR_RETURN(const auto places, index.places(id, raw_bytes_, log));
    Json rows = Json::array();
    for (const ChunkPlace& place : places) {
      const uint64_t offset = uint64_t{place.offset_units} * format::kOffsetUnit;
      if (session.globals.json) {
        rows.push_back({{"pack", place.pack.key()},
                        {"offset", offset},
                        {"stored_bytes", place.stored_bytes},
                        {"codec", place.codec}});
      } else {
        fmt::print("{} {} {}\n", place.pack.key(), offset, place.stored_bytes);
      }
    }
    if (session.globals.json) {
      print_json({{"schema", "caisson.index.find/1"}, {"places", std::move(rows)}});
      return places.empty() ? kExitNotFound : kExitOk;
    }
    if (places.empty()) return not_found("no pack of the store holds chunk " + id_);
    return kExitOk;
  }

  std::string action_;
  std::string store_;
  std::string id_;
  uint32_t raw_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Command> make_index() { return std::make_unique<IndexCommand>(); }

}  // namespace caisson::cli

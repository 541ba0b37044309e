// See usage.h.
#include "client/cli/usage.h"

#include <algorithm>
#include <optional>
#include <set>
#include <vector>

#include "engine/gc_plan.h"
#include "engine/manifest.h"
#include "engine/pack_scan.h"

namespace caisson::cli {
namespace {

using format::ObjectKind;
using format::ObjectRef;
using format::SealedRef;

// Sums over the chunks of a pack.
struct PackFacts {
  uint64_t chunks = 0;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;
};

void put_answer(ByteWriter& out, const PackFacts& facts) {
  out.put(facts.chunks);
  out.put(facts.raw_bytes);
  out.put(facts.stored_bytes);
}

void get_answer(ByteReader& in, PackFacts& facts) {
  facts.chunks = in.get<uint64_t>();
  facts.raw_bytes = in.get<uint64_t>();
  facts.stored_bytes = in.get<uint64_t>();
}

// Which checkpoints need a pack.
struct PackNeed {
  SealedRef pack;
  SealedRef root;  // of one of them
  uint64_t checkpoints = 0;
  std::set<std::string> runs;
};

class Measure {
 public:
  Measure(StoreAccess& access, IndexedAnswers& answers, const std::stop_token& stop)
      : access_(access),
        answers_(answers),
        stop_(stop),
        reads_(access.objects()),
        footers_(reads_) {}

  Result<Usage> run() {
    const auto state = access_.state();
    for (const auto& [seq, checkpoint] : state->checkpoints()) {
      CAISSON_RETURN_IF_ERROR(add_checkpoint(checkpoint).with_context(checkpoint.name()));
    }
    for (const SealedRef& root : state->roots_to_keep()) {
      if (live_.has_root(root.object)) continue;  // else pruned, and the base of an open save
      CAISSON_RETURN_IF_ERROR(keep(root).status());
    }
    for (const auto& [object, need] : needs_) {
      reading_ = need.root;
      CAISSON_RETURN_IF_ERROR(add_chunks(need.pack));
    }
    reading_.reset();
    CAISSON_RETURN_IF_ERROR(add_objects(*state));
    return std::move(usage_);
  }

  // The root that what was read last is vouched for by, if any.
  const std::optional<SealedRef>& reading() const { return reading_; }

 private:
  Status check_stop() const {
    return stop_.stop_requested() ? cancelled("interrupted") : ok_status();
  }

  Result<WholeRoot> keep(const SealedRef& root) {
    CAISSON_RETURN_IF_ERROR(check_stop());
    reading_ = root;
    CAISSON_ASSIGN_OR_RETURN(WholeRoot whole, read_root(access_.objects(), root));
    live_.add(root, whole.root, whole.tables.packs);
    return whole;
  }

  Status add_checkpoint(const Checkpoint& checkpoint) {
    CAISSON_ASSIGN_OR_RETURN(const WholeRoot whole, keep(checkpoint.root));
    uint64_t inline_bytes = 0;
    for (const format::RootPart& part : whole.root.parts) inline_bytes += part.inline_bytes;
    ++usage_.checkpoints;
    usage_.logical_bytes += whole.root.raw_bytes;
    usage_.chunk_raw_bytes += inline_bytes;
    usage_.chunk_stored_bytes += inline_bytes;
    RunUsage& run = usage_.runs[checkpoint.run];
    ++run.checkpoints;
    run.logical_bytes += whole.root.raw_bytes;
    run.newly_stored_bytes += whole.root.stored_bytes;
    for (const SealedRef& pack : whole.tables.packs) {
      PackNeed& need = needs_[pack.object];
      need.pack = pack;
      need.root = checkpoint.root;
      ++need.checkpoints;
      need.runs.insert(checkpoint.run);
    }
    return ok_status();
  }

  Status add_chunks(const SealedRef& pack) {
    CAISSON_RETURN_IF_ERROR(check_stop());
    const auto find_out = [&]() -> Result<PackFacts> {
      CAISSON_ASSIGN_OR_RETURN(const auto footer, footers_.get(pack));
      PackFacts facts;
      for (const format::Segment& segment : footer->segments) {
        for (const format::ChunkEntry& entry : segment.entries) {
          ++facts.chunks;
          facts.raw_bytes += entry.raw_bytes;
          facts.stored_bytes += entry.stored_bytes;
        }
      }
      return facts;
    };
    CAISSON_ASSIGN_OR_RETURN(
        const PackFacts facts,
        answers_.answer<PackFacts>("pack " + pack.object.key() + " " + to_hex(pack.digest),
                                   find_out));
    usage_.chunks += facts.chunks;
    usage_.chunk_raw_bytes += facts.raw_bytes;
    usage_.chunk_stored_bytes += facts.stored_bytes;
    return ok_status();
  }

  Status add_objects(const LogState& state) {
    return access_.objects().list("", [&](const ObjectInfo& info) {
      if (info.key == format::kStoreKey) {
        usage_.metadata.add(info.bytes);
      } else if (info.key.starts_with("log/") || info.key.starts_with("snapshots/")) {
        usage_.log.add(info.bytes);
      } else if (const auto object = format::object_ref_of(info.key); object.ok()) {
        add_object(state, *object, info.bytes);
      } else {
        usage_.other.add(info.bytes);
      }
      return check_stop();
    });
  }

  void add_object(const LogState& state, const ObjectRef& object, uint64_t bytes) {
    switch (fate_of(state, live_, object)) {
      case Fate::kLive:
        object.kind == ObjectKind::kPack ? add_pack(object, bytes) : usage_.metadata.add(bytes);
        break;
      case Fate::kInProgress:
        usage_.in_progress.add(bytes);
        break;
      case Fate::kGarbage:
      case Fate::kCondemned:
        usage_.reclaimable.add(bytes);
        break;
      case Fate::kUnknown:
        usage_.other.add(bytes);
        break;
    }
  }

  void add_pack(const ObjectRef& object, uint64_t bytes) {
    const auto found = needs_.find(object);
    if (found == needs_.end()) return usage_.in_progress.add(bytes);  // of an open save's base
    const PackNeed& need = found->second;
    (need.checkpoints > 1 ? usage_.shared_packs : usage_.own_packs).add(bytes);
    for (const std::string& name : need.runs) {
      RunUsage& run = usage_.runs[name];
      (need.runs.size() > 1 ? run.shared_packs : run.own_packs).add(bytes);
    }
  }

  StoreAccess& access_;
  IndexedAnswers& answers_;
  const std::stop_token& stop_;
  ObjectReads reads_;
  PackFooters footers_;
  LiveObjects live_;
  std::map<ObjectRef, PackNeed> needs_;
  std::optional<SealedRef> reading_;
  Usage usage_;
};

}  // namespace

Result<Usage> measure_usage(StoreAccess& access, IndexedAnswers& answers,
                            const std::stop_token& stop) {
  for (;;) {
    Measure measure(access, answers, stop);
    auto usage = measure.run();
    if (usage.ok() || stop.stop_requested() || !measure.reading().has_value()) return usage;
    // What is missing may have been given up and collected meanwhile: then the log says so.
    const auto now = access.log().refresh();
    if (!now.ok()) return usage;  // the first failure tells more
    const std::vector<SealedRef> kept = (*now)->roots_to_keep();
    if (std::find(kept.begin(), kept.end(), *measure.reading()) != kept.end()) return usage;
  }
}

}  // namespace caisson::cli

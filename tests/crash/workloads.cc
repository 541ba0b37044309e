#include "tests/crash/workloads.h"

#include "io/base/check.h"

namespace caisson::crash {
namespace {

Status single_saves(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  return world.save(*store, "other/1", 2);
}

// The frozen tensor, then everything, comes from the parent.
Status deduplicated_saves(World& world) {
  {
    CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
    CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
    CAISSON_RETURN_IF_ERROR(world.save(*store, "run/2", 2));
  }
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/3", 2));
  SaveOptions fork;
  fork.base = "run/1";
  return world.save(*store, "fork/1", 1, fork);
}

Status many_ranks(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  CAISSON_ASSIGN_OR_RETURN(RankSave save, world.begin(*store, "run/2", 2, 4));
  for (uint32_t rank : {2u, 0u, 3u, 1u}) {
    CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, rank));
  }
  return world.commit(*store, save);
}

// Another process takes the run over while a save is open; the old one must not commit.
Status takeover(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto first, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*first, "run/1", 1));
  CAISSON_ASSIGN_OR_RETURN(RankSave save, world.begin(*first, "run/2", 2, 2));
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*first, save, 0));
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*first, save, 1));
  CAISSON_ASSIGN_OR_RETURN(auto second, world.open());
  CAISSON_RETURN_IF_ERROR(second->claim("run"));
  CAISSON_RETURN_IF_ERROR(world.save(*second, "run/3", 3));
  const Status late = world.commit(*first, save);
  if (late.ok()) return corruption("a fenced save was committed");
  if (late.code() != StatusCode::kFenced) return late;
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  return world.save(*second, "run/4", 4);
}

Status overwrite(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  SaveOptions again;
  again.overwrite = true;
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 2, again));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  return world.save(*store, "run/1", 3, again);
}

// The second checkpoint shares packs with the first, which is given up.
Status prune_and_gc(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/2", 2));
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/1"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/3", 3));
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/2"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  return world.save(*store, "run/1", 4);
}

// Packs go to either of two directories, whichever the save's uuid says.
Status two_directories(World& world) {
  CAISSON_RETURN_IF_ERROR(world.spread());
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  CAISSON_ASSIGN_OR_RETURN(RankSave save, world.begin(*store, "run/2", 2, 4));
  for (uint32_t rank : {1u, 0u, 3u, 2u}) {
    CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, rank));
  }
  CAISSON_RETURN_IF_ERROR(world.commit(*store, save));
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/1"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_RETURN_IF_ERROR(world.rewrite("run/2"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  return world.save(*store, "run/3", 3);
}

// The base of an open save is given up and collected under it.
Status gc_beside_save(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  CAISSON_ASSIGN_OR_RETURN(RankSave save, world.begin(*store, "run/2", 2, 2));
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, 0));
  CAISSON_ASSIGN_OR_RETURN(auto other, world.open());
  CAISSON_RETURN_IF_ERROR(world.remove(*other, "run/1"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, 1));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_RETURN_IF_ERROR(world.commit(*store, save));
  return world.collect_garbage();
}

// Two processes append in turn, each to a log that it last read before the other wrote.
Status two_writers(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto first, world.open());
  CAISSON_ASSIGN_OR_RETURN(auto second, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*first, "run/1", 1));
  CAISSON_RETURN_IF_ERROR(world.save(*second, "other/1", 2));
  CAISSON_RETURN_IF_ERROR(world.save(*first, "run/2", 3));
  return world.save(*second, "other/2", 4);
}

// The second does all of its work just before the first links its next record: exactly one of two
// records for the same place may win.
Status raced_append(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto first, world.open());
  CAISSON_ASSIGN_OR_RETURN(auto second, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*first, "run/1", 1));
  bool raced = false;
  Status other;
  world.disk().set_interloper([&](const sim::Call& call) {
    const bool is_append =
        call.kind == sim::CallKind::kLink && call.path.find("/log/") != call.path.npos;
    if (raced || !is_append) return;
    raced = true;
    other = world.save(*second, "other/1", 2);
  });
  const Status status = world.save(*first, "run/2", 3);
  world.disk().set_interloper({});
  CAISSON_RETURN_IF_ERROR(other);
  return status;
}

Status snapshots(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  CAISSON_RETURN_IF_ERROR(world.write_snapshot());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/2", 2));
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/1"));
  CAISSON_RETURN_IF_ERROR(world.write_snapshot());
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_ASSIGN_OR_RETURN(auto later, world.open());
  return world.save(*later, "run/3", 3);
}

// A save that its owner gives up leaves nothing that gc keeps.
Status abandoned_save(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  CAISSON_ASSIGN_OR_RETURN(RankSave save, world.begin(*store, "run/2", 2, 2));
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, 0));
  CAISSON_RETURN_IF_ERROR(world.abort(*store, save));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  return world.save(*store, "run/2", 3);
}

// A checkpoint that shares packs gets its own; a save that dedups against it is open meanwhile, and
// another one comes after.
Status rewrite(World& world) {
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", 1));
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/2", 2));
  CAISSON_ASSIGN_OR_RETURN(RankSave save, world.begin(*store, "run/3", 3, 2));
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, 0));
  CAISSON_RETURN_IF_ERROR(world.rewrite("run/2"));
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/1"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_RETURN_IF_ERROR(world.put_and_seal(*store, save, 1));
  CAISSON_RETURN_IF_ERROR(world.commit(*store, save));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  SaveOptions fork;
  fork.base = "run/2";
  return world.save(*store, "fork/1", 2, fork);
}

// That the save did store chunks so: a workload of raw chunks alone would prove nothing.
Status stored_as(const SaveReport& report, std::string_view codec) {
  for (const CodecUse& use : report.codecs) {
    if (use.codec == codec && use.chunks > 0) return {};
  }
  return {StatusCode::kInvalidArgument,
          report.name + " has no chunk stored as " + std::string(codec)};
}

// Twins beside their bases, and deltas whose anchor's checkpoint is given up under them.
Status coded_saves(World& world) {
  SaveOptions coded;
  coded.codec_deterministic = true;
  coded.delta = "slow";
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  SaveReport report;
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/1", kCodedVersions + 1, coded, &report));
  CAISSON_RETURN_IF_ERROR(stored_as(report, "planes"));
  CAISSON_RETURN_IF_ERROR(stored_as(report, "twin"));
  CAISSON_RETURN_IF_ERROR(stored_as(report, "sparse"));
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/2", kCodedVersions + 2, coded, &report));
  CAISSON_RETURN_IF_ERROR(stored_as(report, "delta"));
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/1"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/3", kCodedVersions + 3, coded));
  CAISSON_RETURN_IF_ERROR(world.remove(*store, "run/2"));
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  CAISSON_RETURN_IF_ERROR(world.rewrite("run/3"));
  return world.collect_garbage();
}

}  // namespace

const std::vector<Workload>& workloads() {
  static const std::vector<Workload> all = {
      {"single_saves", single_saves},
      {"deduplicated_saves", deduplicated_saves},
      {"many_ranks", many_ranks},
      {"takeover", takeover},
      {"overwrite", overwrite},
      {"prune_and_gc", prune_and_gc},
      {"two_directories", two_directories},
      {"gc_beside_save", gc_beside_save},
      {"two_writers", two_writers},
      {"raced_append", raced_append},
      {"snapshots", snapshots},
      {"abandoned_save", abandoned_save},
      {"rewrite", rewrite},
      {"coded_saves", coded_saves},
  };
  return all;
}

const Workload& workload(const std::string& name) {
  for (const Workload& known : workloads()) {
    if (known.name == name) return known;
  }
  CAISSON_CHECK(false && "no such workload");
  return workloads().front();
}

Status recover(World& world, uint32_t generation) {
  const std::string step = std::to_string(500 + generation * 10);
  CAISSON_ASSIGN_OR_RETURN(auto store, world.open());
  CAISSON_RETURN_IF_ERROR(world.save(*store, "run/" + step, 50 + generation));
  const auto names = world.expectation().names();
  for (const auto& [name, expected] : names) {
    if (expected.may_be_absent || name == "run/" + step) continue;
    CAISSON_RETURN_IF_ERROR(world.remove(*store, name));
    break;
  }
  CAISSON_RETURN_IF_ERROR(world.collect_garbage());
  return world.save(*store, "run/" + step + "1", 60 + generation);
}

}  // namespace caisson::crash

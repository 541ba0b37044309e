//   1. read the log; end the saves whose writer is certainly dead (`close`)
//   2. list data/. The listing may be stale: what it lacks is found next time, and being listed
//      condemns nothing by itself
//   3. read every root to keep: of live checkpoints, and the bases of open saves. One that cannot
//      be read, or is newer than this build, ends the run here, with nothing deleted
//   4. append `condemn` for what is garbage in exactly the state that the record follows: when
//      another record got in first, 3 is done again for the roots that it brought
//   5. sync_names("log/"): a condemn record of another run may not be durable yet
//   6. delete what is condemned, root objects first, so that whoever still reads the checkpoint
//      learns early that it is gone
// Stopped anywhere, the next run takes up what is condemned and still listed.
#include "engine/gc.h"

#include <algorithm>
#include <map>
#include <utility>

#include "engine/gc_plan.h"
#include "engine/manifest.h"
#include "io/object_dir.h"

namespace caisson {

using format::ObjectRef;

namespace {

struct Listed {
  ObjectRef object;
  uint64_t bytes = 0;
};

class Collector {
 public:
  Collector(ObjectStore& objects, Log& log, const GcOptions& options)
      : objects_(objects), log_(log), options_(options) {}

  Result<GcReport> run() {
    CAISSON_ASSIGN_OR_RETURN(auto state, log_.refresh());
    if (!options_.dry_run) CAISSON_RETURN_IF_ERROR(close_dead(*state));
    CAISSON_RETURN_IF_ERROR(list_objects());
    if (!options_.dry_run) {
      CAISSON_RETURN_IF_ERROR(while_log_moves([this] { return condemn(); }));
    }
    CAISSON_RETURN_IF_ERROR(while_log_moves([&] {
      state = log_.state();
      return read_roots(*state);
    }));
    if (options_.dry_run) {
      report_on(*state);
      return report_;
    }
    report_on(*state);
    CAISSON_RETURN_IF_ERROR(remove_condemned(*state));
    CAISSON_ASSIGN_OR_RETURN(report_.temporary_removed, sweep_temporary(objects_));
    return report_;
  }

 private:
  // A root that is missing may have been given up and deleted since we read the log: then the log
  // says so, and the step is done again on what it says now.
  template <typename Step>
  Status while_log_moves(const Step& step) {
    for (;;) {
      const uint64_t seq = log_.state()->seq();
      const Status status = step();
      if (status.code() != StatusCode::kCorruption) return status;
      CAISSON_ASSIGN_OR_RETURN(const auto newest, log_.refresh());
      if (newest->seq() == seq) return status;
    }
  }

  // Step 1. Of a save by many ranks only the process that opened it is known; closing is safe all
  // the same, because the log refuses the commit of a closed save.
  Status close_dead(const LogState& seen) {
    for (const auto& [save, open] : seen.open_saves()) {
      if (!is_provably_dead(open.writer)) continue;
      bool over = false;
      const auto closed = log_.append([&, id = save](const LogState& state) {
        const format::CloseRecord close{.save = id};
        over = !state.check(close).ok();  // it ended meanwhile: as well
        return over ? Result<format::LogBody>(cancelled("the save is over"))
                    : Result<format::LogBody>(close);
      });
      if (!closed.ok() && !over) return closed.status();
      if (closed.ok()) ++report_.saves_closed;
    }
    return ok_status();
  }

  // Step 2.
  Status list_objects() {
    return objects_.list("data/", [&](const ObjectInfo& info) {
      const Result<ObjectRef> object = format::object_ref_of(info.key);
      if (object.ok()) {
        listed_.push_back({*object, info.bytes});
        refs_.push_back(*object);
      } else {
        report_.unknown.add(info.bytes);
      }
      return ok_status();
    });
  }

  // Step 3.
  Status read_roots(const LogState& state) {
    for (const format::SealedRef& sealed : state.roots_to_keep()) {
      if (live_.has_root(sealed.object)) continue;
      const Result<WholeRoot> root = read_root(objects_, sealed);
      if (!root.ok()) {
        return root.status().with_context(
            "gc stopped, because a checkpoint that it must keep cannot be read");
      }
      live_.add(sealed, root->root, root->tables.packs);
    }
    return ok_status();
  }

  // Step 4.
  Status condemn() {
    for (bool done = false; !done;) {
      format::CondemnRecord record;
      const auto appended = log_.append([&](const LogState& state) -> Result<format::LogBody> {
        CAISSON_RETURN_IF_ERROR(read_roots(state));
        record = next_condemn(state, live_, refs_);
        done = record.objects.empty() && record.saves.empty();
        if (done) return cancelled("nothing to condemn");
        return format::LogBody(record);
      });
      if (done) return ok_status();
      CAISSON_RETURN_IF_ERROR(appended.status());
      report_.saves_condemned += record.saves.size();
      report_.objects_condemned += record.objects.size();
    }
    return ok_status();
  }

  void report_on(const LogState& state) {
    std::map<Uuid, GcCount> in_progress;
    for (const Listed& listed : listed_) {
      switch (fate_of(state, live_, listed.object)) {
        case Fate::kLive:
          report_.kept.add(listed.bytes);
          break;
        case Fate::kInProgress:
          in_progress[listed.object.save].add(listed.bytes);
          break;
        case Fate::kGarbage:  // at most in a dry run, or when it became so just now
          if (options_.dry_run) report_.reclaimed.add(listed.bytes);
          break;
        case Fate::kCondemned:
          report_.reclaimed.add(listed.bytes);
          break;
        case Fate::kUnknown:
          report_.unknown.add(listed.bytes);
          break;
      }
    }
    for (const auto& [save, open] : state.open_saves()) {
      const bool dead = is_provably_dead(open.writer);
      if (dead && options_.dry_run) {
        // A run that is not dry closes this save first.
        report_.reclaimed.objects += in_progress[save].objects;
        report_.reclaimed.bytes += in_progress[save].bytes;
      }
      report_.open_saves.push_back({.save = save,
                                    .run = open.run,
                                    .step = open.step,
                                    .writer = open.writer,
                                    .provably_dead = dead,
                                    .written = in_progress[save]});
    }
  }

  // Steps 5 and 6.
  Status remove_condemned(const LogState& state) {
    std::vector<ObjectRef> condemned;
    for (const ObjectRef& object : refs_) {
      if (fate_of(state, live_, object) == Fate::kCondemned) condemned.push_back(object);
    }
    if (condemned.empty()) return ok_status();
    std::stable_partition(condemned.begin(), condemned.end(), [](const ObjectRef& object) {
      return object.kind == format::ObjectKind::kRoot;
    });
    CAISSON_RETURN_IF_ERROR(objects_.sync_names("log/"));
    for (const ObjectRef& object : condemned) {
      CAISSON_RETURN_IF_ERROR(objects_.remove(object.key()));
    }
    return ok_status();
  }

  ObjectStore& objects_;
  Log& log_;
  const GcOptions options_;
  GcReport report_;
  std::vector<Listed> listed_;
  std::vector<ObjectRef> refs_;  // of listed_
  LiveObjects live_;
};

}  // namespace

Result<GcReport> run_gc(ObjectStore& objects, Log& log, const GcOptions& options) {
  return Collector(objects, log, options).run();
}

}  // namespace caisson

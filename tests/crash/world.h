// One store on a simulated disk, with deterministic uuids and clock, and a journal of what was
// begun and acknowledged when. Workloads act through it; the explorer (explore.h) then takes its
// record apart. Thread-compatible.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "caisson/store.h"
#include "io/base/clock.h"
#include "io/object_store.h"
#include "tests/crash/content.h"
#include "tests/crash/expectation.h"
#include "tests/support/crash_states.h"
#include "tests/support/seeded.h"
#include "tests/support/sim_file_system.h"

namespace caisson::crash {

// A save by several ranks, between its begin and its commit.
struct RankSave {
  std::string name;
  uint32_t version = 0;
  std::string ticket;
  uint32_t ranks = 0;
  std::vector<SealedPart> parts;
};

class World {
 public:
  explicit World(uint64_t seed, sim::Image image = {}, Expectation expectation = {},
                 const sim::SimOptions& options = {});

  // As another process would: nothing is shared with other Stores but the disk.
  Result<std::unique_ptr<Store>> open();

  // The same store as objects, as maintenance opens it.
  Result<std::unique_ptr<ObjectStore>> objects();

  // From now on, and after every crash from now on, the store has a second directory.
  Status spread();

  // Each notes in the journal what it began and what was acknowledged.
  Status save(Store& store, const std::string& name, uint32_t version,
              const SaveOptions& options = {}, SaveReport* report = nullptr);
  Result<RankSave> begin(Store& store, const std::string& name, uint32_t version, uint32_t ranks);
  Status put_and_seal(Store& store, RankSave& save, uint32_t rank);
  Status commit(Store& store, RankSave& save);
  Status abort(Store& store, RankSave& save);
  Status remove(Store& store, const std::string& name);
  // Maintenance, as the command line does it: a process of its own.
  Status collect_garbage();
  // Changes no content, so there is nothing to note.
  Status rewrite(const std::string& name);
  Status write_snapshot();

  void note(Event event);
  sim::SimFileSystem& disk() { return *disk_; }
  const std::vector<Event>& journal() const { return journal_; }
  const Expectation& initial() const { return initial_; }
  // All of the journal so far.
  Expectation expectation() const;

 private:
  Status finish(const std::string& name, uint32_t version, const Status& status);

  bool spread_ = false;
  std::shared_ptr<sim::SimFileSystem> disk_;
  SeededUuids uuids_;
  FixedClock clock_;
  Expectation initial_;
  std::vector<Event> journal_;
};

inline constexpr char kStoreRoot[] = "/disk/store";
inline constexpr char kSecondDisk[] = "/disk2";
inline constexpr char kSecondRoot[] = "/disk2/store";

}  // namespace caisson::crash

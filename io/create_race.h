// Races create-once on a target, for `caisson doctor`: a store may have many writers only where
// every racing put_new has exactly one winner. Called by one thread of a process that has no other.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "caisson/result.h"
#include "io/base/hash.h"
#include "io/object_store.h"

namespace caisson {

struct CreateRaceOptions {
  uint32_t threads = 2;    // in this process
  uint32_t processes = 2;  // forked, one racer each
  uint32_t rounds = 50;
};

struct CreateRaceReport {
  uint32_t racers = 0;
  uint32_t rounds = 0;
  uint32_t rounds_with_one_winner = 0;  // whose bytes were read back, too
  std::vector<std::string> violations;  // in words, the first few
  bool atomic() const { return rounds_with_one_winner == rounds; }
};

// `open` gives each racer a store of its own on the same target. The
// raced keys are "race-<hex>-<round>" and are removed afterwards.
// REQUIRES: no other thread runs when options.processes > 0.
Result<CreateRaceReport> race_creates(
    const std::function<Result<std::unique_ptr<ObjectStore>>()>& open, UuidSource& uuids,
    const CreateRaceOptions& options = {});

}  // namespace caisson

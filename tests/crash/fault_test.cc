// Every file operation of every workload fails once, in each way that the platform can fail. Then:
// the workload ends with a typed error, or did not need the operation; nothing was acknowledged
// that is not there, nothing acknowledged before is lost, neither now nor after a crash; no
// descriptor leaks; the next process goes on from there.
//
// CAISSON_FAULT_REPLAY=<workload>:<fault>:<call> runs one case alone; CAISSON_SOAK=1 runs every
// fault at every call.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "tests/crash/explore.h"
#include "tests/crash/workloads.h"
#include "tests/support/sanitized.h"

namespace caisson::crash {
namespace {

constexpr uint64_t kSeed = 2;

struct FaultKind {
  std::string name;
  StatusCode code = StatusCode::kIoError;
  bool applied = false;  // the call happened, only its reply was lost
  bool lasting = false;  // this call and every later one: the device is gone
  bool syncs_only = false;
};
const FaultKind kFaults[] = {
    {"EIO"},
    {"ENOSPC", StatusCode::kNoSpace},
    {"lost reply", StatusCode::kIoError, true},
    {"device gone", StatusCode::kIoError, false, true},
    {"sync fails for ever", StatusCode::kIoError, false, true, true},
};

bool is_sync(sim::CallKind kind) {
  return kind == sim::CallKind::kSync || kind == sim::CallKind::kSyncDirectory;
}

struct Counts {
  uint64_t cases = 0;
  uint64_t reported = 0;  // the workload ended in an error
  uint64_t states = 0;
};

uint64_t calls_of(const Workload& each) {
  World world(kSeed);
  EXPECT_TRUE(each.run(world).ok()) << each.name;
  return world.disk().calls();
}

// Empty when all is well.
std::string run_case(const Workload& each, const FaultKind& fault, uint64_t at, Counts& counts) {
  World world(kSeed);
  world.disk().set_fault_hook([&](const sim::Call& call) -> sim::Outcome {
    const bool now = fault.lasting ? call.index >= at : call.index == at;
    if (!now || (fault.syncs_only && !is_sync(call.kind))) return {};
    std::string what = "injected " + fault.name + ": " + std::string(sim::call_name(call.kind)) +
                       " " + std::string(call.path);
    return {Status(fault.code, std::move(what)), fault.applied};
  });
  const Status status = each.run(world);
  world.disk().set_fault_hook({});
  ++counts.cases;
  if (!status.ok()) ++counts.reported;
  if (world.disk().open_files() != 0) {
    return std::to_string(world.disk().open_files()) + " files left open after " +
           status.to_string();
  }
  if (status.code() == StatusCode::kCorruption) return "called corruption: " + status.to_string();
  const Expectation expectation = world.expectation();
  // The process ended, the machine did not.
  if (std::string wrong = check_crashed(world.disk().image(), expectation, at + 1);
      !wrong.empty()) {
    return "afterwards: " + wrong;
  }
  // The machine did, too.
  sim::CrashStates states(world.disk().base(), world.disk().history(),
                          {.subset_max = 2, .torn = 0, .recent = 0, .samples = 1}, at);
  states.advance_to(states.prefixes() - 1);
  for (uint32_t variant = 0; variant < states.variants(); ++variant) {
    ++counts.states;
    std::string wrong = check_crashed(states.build(variant), expectation, at * 10 + variant);
    if (!wrong.empty()) return "after a crash, variant " + std::to_string(variant) + ": " + wrong;
  }
  return {};
}

TEST(Faults, EveryFailedOperationIsReportedAndLosesNothing) {
  const char* const replay = std::getenv("CAISSON_FAULT_REPLAY");
  const bool all = std::getenv("CAISSON_SOAK") != nullptr;
  Counts total;
  int failures = 0;
  for (const Workload& each : workloads()) {
    const uint64_t calls = calls_of(each);
    Counts counts;
    // A stride that no kind of fault divides, so that all are met.
    const uint64_t stride = testing::kSanitized && replay == nullptr ? 7 : 1;
    for (uint64_t at = 0; at < calls && failures < 5; at += stride) {
      for (size_t kind = 0; kind < std::size(kFaults); ++kind) {
        const std::string id = each.name + ":" + kFaults[kind].name + ":" + std::to_string(at);
        if (replay != nullptr ? id != replay : !all && at % std::size(kFaults) != kind) continue;
        const std::string wrong = run_case(each, kFaults[kind], at, counts);
        if (!wrong.empty() && ++failures <= 5) ADD_FAILURE() << id << ": " << wrong;
      }
    }
    std::printf("  %-24s %6llu calls %6llu cases %6llu reported %6llu crash states\n",
                each.name.c_str(), static_cast<unsigned long long>(calls),
                static_cast<unsigned long long>(counts.cases),
                static_cast<unsigned long long>(counts.reported),
                static_cast<unsigned long long>(counts.states));
    std::fflush(stdout);
    total.cases += counts.cases;
    total.reported += counts.reported;
    total.states += counts.states;
  }
  std::printf(
      "failed operations: %llu cases, %llu reported as errors, %llu crash states after them\n",
      static_cast<unsigned long long>(total.cases), static_cast<unsigned long long>(total.reported),
      static_cast<unsigned long long>(total.states));
}

}  // namespace
}  // namespace caisson::crash

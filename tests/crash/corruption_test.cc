// Single-bit flips and truncations over every object of a small store: detected as an error, or the
// restore is identical; never wrong bytes, never a checkpoint missing in silence, never a crash.
// A seeded sample of each kind of object; CAISSON_SOAK=SECONDS goes on for so long in each store,
// on a seed that is printed and that CAISSON_SEED sets. All bits would be hours of it.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <map>
#include <random>

#include "tests/crash/workloads.h"
#include "tests/crash/world.h"

namespace caisson::crash {
namespace {

constexpr uint64_t kSeed = 3;

struct Counts {
  uint64_t objects = 0;
  uint64_t flips = 0;
  uint64_t cuts = 0;
  uint64_t detected = 0;
  uint64_t identical = 0;  // the damage lies where nothing is read, or another copy serves
};

std::string kind_of(const std::string& path) {
  const std::string key = path.substr(std::string(kStoreRoot).size() + 1);
  const size_t dot = key.rfind('.');
  if (dot != std::string::npos) return key.substr(dot);
  return key.substr(0, key.find('/') + 1);
}

// Nothing: identical. "detected": some error. Anything else is what went wrong.
std::string damaged(const sim::Image& image, const Expectation& expectation, uint64_t seed) {
  World world(seed, image, expectation);
  Result<std::unique_ptr<Store>> store = world.open();
  if (!store.ok()) return "detected";
  const Result<std::vector<CheckpointInfo>> list = (*store)->checkpoints();
  if (!list.ok()) return "detected";
  bool detected = false;
  std::set<std::string> listed;
  for (const CheckpointInfo& info : *list) listed.insert(info.name);
  for (const auto& [name, expected] : expectation.names()) {
    if (expected.versions.empty()) {
      if (listed.contains(name)) return name + ": removed, but listed";
      continue;
    }
    if (!listed.contains(name)) return name + ": gone without an error";
    const std::string wrong =
        verify_checkpoint(**store, name, {expected.versions.begin(), expected.versions.end()});
    if (wrong.find("differ") != std::string::npos) return wrong;
    detected = detected || !wrong.empty();
  }
  return detected ? "detected" : "";
}

using Kinds = std::map<std::string, std::vector<std::string>>;  // of objects: their paths

class Sweep {
 public:
  explicit Sweep(const std::string& life) : world_(kSeed) {
    const Status status = workload(life).run(world_);
    EXPECT_TRUE(status.ok()) << status.to_string();
    image_ = world_.disk().image();
    expectation_ = world_.expectation();
    EXPECT_EQ(damaged(image_, expectation_, 1), "") << "before any damage";
  }
  const sim::Image& image() const { return image_; }

  void flip(const std::string& path, uint64_t bit, Counts& counts) {
    const sim::NodeId node = *image_.find(path);
    auto bytes = std::make_shared<ByteVector>(1);
    image_.read(node, bit / 8, *bytes);
    (*bytes)[0] ^= static_cast<std::byte>(1u << (bit % 8));
    sim::Image copy = image_;
    copy.apply({.kind = sim::EffectKind::kData, .node = node, .offset = bit / 8, .bytes = bytes});
    ++counts.flips;
    judge(copy, path + ": bit " + std::to_string(bit), counts);
  }
  void cut(const std::string& path, uint64_t size, Counts& counts) {
    sim::Image copy = image_;
    copy.apply({.kind = sim::EffectKind::kResize, .node = *image_.find(path), .size = size});
    ++counts.cuts;
    judge(copy, path + ": cut to " + std::to_string(size), counts);
  }
  // Whatever kind an object is of, it is hit as often; one time in six it is cut.
  void go_on(const Kinds& kinds, std::chrono::seconds length, Counts& counts) {
    const char* const given = std::getenv("CAISSON_SEED");
    const uint64_t seed =
        given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    std::printf("  CAISSON_SEED=%llu\n", static_cast<unsigned long long>(seed));
    std::mt19937_64 random(seed);
    const auto end = std::chrono::steady_clock::now() + length;
    while (std::chrono::steady_clock::now() < end && !testing::Test::HasFailure()) {
      const auto& paths =
          std::next(kinds.begin(), static_cast<ptrdiff_t>(random() % kinds.size()))->second;
      const std::string& path = paths[random() % paths.size()];
      const uint64_t size = image_.size(*image_.find(path));
      if (random() % 6 == 0) {
        cut(path, random() % size, counts);
      } else {
        flip(path, random() % (size * 8), counts);
      }
    }
  }

 private:
  void judge(const sim::Image& image, const std::string& what, Counts& counts) {
    const std::string outcome = damaged(image, expectation_, counts.flips * 2 + counts.cuts);
    if (outcome == "detected") {
      ++counts.detected;
    } else if (outcome.empty()) {
      ++counts.identical;
    } else {
      ADD_FAILURE() << what << ": " << outcome;
    }
  }

  World world_;
  sim::Image image_;
  Expectation expectation_;
};

// With snapshots older log records are not read; without, every record counts.
class Corruption : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Stores, Corruption, testing::Values("snapshots", "prune_and_gc"),
                         [](const auto& store) { return store.param; });

TEST_P(Corruption, IsDetectedOrHarmless) {
  Sweep sweep(GetParam());
  Kinds kinds;
  for (const std::string& path : sweep.image().files()) {
    if (path.starts_with(std::string(kStoreRoot) + "/tmp/")) continue;
    kinds[kind_of(path)].push_back(path);
  }
  for (const std::string kind : {".store", "log/", ".pack", ".part", ".dir", ".root"}) {
    ASSERT_TRUE(kinds.contains(kind)) << "the store has no object of this kind: " << kind;
  }
  std::mt19937_64 random(kSeed);
  Counts total;
  for (const auto& [kind, paths] : kinds) {
    Counts counts;
    counts.objects = paths.size();
    for (const std::string& path : paths) {
      const uint64_t size = sweep.image().size(*sweep.image().find(path));
      const uint64_t flips = 2000 / paths.size() + 1;
      for (uint64_t i = 0; i < flips; ++i) sweep.flip(path, random() % (size * 8), counts);
      const uint64_t cuts = 400 / paths.size() + 1;
      for (uint64_t i = 0; i < cuts; ++i) sweep.cut(path, random() % size, counts);
      sweep.cut(path, 0, counts);
      sweep.cut(path, size - 1, counts);
    }
    std::printf("  %-12s %4llu objects %7llu flips %6llu cuts: %7llu detected %6llu identical\n",
                kind.c_str(), static_cast<unsigned long long>(counts.objects),
                static_cast<unsigned long long>(counts.flips),
                static_cast<unsigned long long>(counts.cuts),
                static_cast<unsigned long long>(counts.detected),
                static_cast<unsigned long long>(counts.identical));
    std::fflush(stdout);
    total.flips += counts.flips;
    total.cuts += counts.cuts;
    total.detected += counts.detected;
  }
  if (const char* const seconds = std::getenv("CAISSON_SOAK")) {
    sweep.go_on(kinds, std::chrono::seconds(std::strtoll(seconds, nullptr, 10)), total);
  }
  std::printf("corruption: %llu flips and %llu truncations, %llu detected, 0 wrong bytes\n",
              static_cast<unsigned long long>(total.flips),
              static_cast<unsigned long long>(total.cuts),
              static_cast<unsigned long long>(total.detected));
}

}  // namespace
}  // namespace caisson::crash

#include "tests/crash/explore.h"

#include <algorithm>
#include <map>

namespace caisson::crash {
namespace {

// What the store says that it holds: name -> version, after restoring all of it.
using Held = std::map<std::string, uint32_t>;

std::string check_listing(Store& store, const Expectation& expectation, Held& held) {
  const Result<std::vector<CheckpointInfo>> list = store.checkpoints();
  if (!list.ok()) return "listing failed: " + list.status().to_string();
  std::map<std::string, const CheckpointInfo*> newest;  // of each run, by commit
  for (const CheckpointInfo& info : *list) {
    const auto known = expectation.names().find(info.name);
    if (known == expectation.names().end() || known->second.versions.empty()) {
      return info.name + ": listed, but it was never saved or its removal was acknowledged";
    }
    const std::set<uint32_t>& versions = known->second.versions;
    std::string wrong =
        verify_checkpoint(store, info.name, {versions.begin(), versions.end()}, &held[info.name]);
    if (!wrong.empty()) return wrong;
    const CheckpointInfo*& best = newest[info.run];
    if (!info.rolled_back && (best == nullptr || info.commit_seq > best->commit_seq)) best = &info;
  }
  for (const auto& [name, expected] : expectation.names()) {
    if (!expected.may_be_absent && !held.contains(name)) return name + ": acknowledged, but gone";
  }
  for (const auto& [run, info] : newest) {
    if (info == nullptr) continue;
    const Result<CheckpointInfo> latest = store.info(run + "/latest");
    if (!latest.ok()) return run + "/latest: " + latest.status().to_string();
    if (latest->name != info->name) {
      return run + "/latest is " + latest->name + ", but the newest commit is " + info->name;
    }
    // Of two saves at the same time either may be the later one.
    const std::string acknowledged = expectation.newest_acknowledged(run);
    if (acknowledged.empty() || acknowledged == info->name) continue;
    const uint64_t at = expectation.names().at(info->name).acknowledged_at;
    if (at != 0 && at < expectation.names().at(acknowledged).begun_at) {
      return run + "/latest is " + info->name + ", older than the acknowledged " + acknowledged;
    }
  }
  return {};
}

std::string check_same(Store& store, const Held& held, std::string_view when) {
  Held now;
  const Result<std::vector<CheckpointInfo>> list = store.checkpoints();
  if (!list.ok()) return std::string(when) + ": listing failed: " + list.status().to_string();
  for (const CheckpointInfo& info : *list) {
    const auto before = held.find(info.name);
    if (before == held.end()) return info.name + ": appeared " + std::string(when);
    std::string wrong = verify_checkpoint(store, info.name, {before->second}, &now[info.name]);
    if (!wrong.empty()) return std::string(when) + ": " + wrong;
  }
  if (now.size() == held.size()) return {};
  for (const auto& [name, version] : held) {
    if (!now.contains(name)) return name + ": gone " + std::string(when);
  }
  return {};
}

}  // namespace

std::string check_crashed(const sim::Image& image, const Expectation& expectation, uint64_t seed) {
  World world(seed, image, expectation);
  Held held;
  {
    Result<std::unique_ptr<Store>> store = world.open();
    if (!store.ok()) return "open failed: " + store.status().to_string();
    if (std::string wrong = check_listing(**store, expectation, held); !wrong.empty()) return wrong;
    // The run goes on. The new save finds its parent in what the crash left.
    const std::string next = "run/900" + std::to_string(seed % 7);
    const auto version = static_cast<uint32_t>(9000 + seed % 7);
    if (const Status saved = world.save(**store, next, version); !saved.ok()) {
      return "the next save failed: " + saved.to_string();
    }
    held[next] = version;
    if (const Status swept = world.collect_garbage(); !swept.ok()) {
      return "gc failed: " + swept.to_string();
    }
  }
  Result<std::unique_ptr<Store>> again = world.open();
  if (!again.ok()) return "second open failed: " + again.status().to_string();
  if (std::string wrong = check_same(**again, held, "after the next save and gc"); !wrong.empty()) {
    return wrong;
  }
  again->reset();
  if (world.disk().open_files() != 0) {
    return std::to_string(world.disk().open_files()) + " files left open";
  }
  return {};
}

Recording record_of(const std::string& workload, uint64_t seed, const World& world) {
  auto& disk = const_cast<World&>(world).disk();
  return {workload, seed, disk.base(), disk.history(), world.journal(), world.initial()};
}

void Explored::add(const Explored& other) {
  prefixes += other.prefixes;
  states += other.states;
  distinct += other.distinct;
  failures.insert(failures.end(), other.failures.begin(), other.failures.end());
}

Explored explore(const Recording& recording, const ExploreOptions& options) {
  Explored done;
  std::unordered_set<Digest, DigestHash> seen;
  sim::CrashStates states(recording.base, recording.history, options.limits, recording.seed);
  Expectation expectation = recording.initial;
  size_t events = 0;
  for (size_t prefix = options.only ? options.prefix : options.first; prefix < states.prefixes();
       prefix += options.stride) {
    states.advance_to(prefix);
    ++done.prefixes;
    const uint64_t known = states.marks().empty() ? 0 : states.marks().back();
    for (; events < known; ++events) expectation.apply(recording.journal[events]);
    for (uint32_t variant = 0; variant < states.variants(); ++variant) {
      if (options.only && variant != options.variant) continue;
      const sim::Image image = states.build(variant);
      ++done.states;
      // What is known decides what is right: the same disk counts again when more is known.
      Digest key = image.digest();
      key.bytes[0] ^= static_cast<std::byte>(events);
      if (!seen.insert(key).second) continue;
      ++done.distinct;
      const uint64_t seed = recording.seed * 1'000'003 + prefix * 1009 + variant + 7;
      std::string wrong = check_crashed(image, expectation, seed);
      const std::string id = recording.workload + ":" + std::to_string(recording.seed) + ":" +
                             std::to_string(prefix) + ":" + std::to_string(variant);
      if (!wrong.empty()) {
        done.failures.push_back(id + " " + states.describe() + ": " + wrong);
        if (done.failures.size() >= options.failures_max) return done;
      } else if (options.visit) {
        options.visit(image, expectation, id);
      }
    }
    if (options.only) break;
  }
  return done;
}

}  // namespace caisson::crash

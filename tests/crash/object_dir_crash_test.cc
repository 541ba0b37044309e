// The directory as an object store, stopped at every file operation and with every operation
// failing once: an object whose creation was acknowledged is there, byte for byte, after any crash;
// one that put_new did not acknowledge is whole or absent.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>

#include "io/object_dir.h"
#include "tests/support/crash_states.h"
#include "tests/support/seeded.h"
#include "tests/support/sim_file_system.h"

namespace caisson {
namespace {

using sim::SimFileSystem;

const std::string kRoot = "/disk/store";

ByteVector content_of(const std::string& key, size_t bytes) {
  ByteVector made(bytes);
  for (size_t i = 0; i < bytes; ++i)
    made[i] = static_cast<std::byte>(key[i % key.size()] + i / 512);
  return made;
}

struct Objects {
  std::map<std::string, size_t> begun;  // put_new: whole or absent
  std::vector<std::string> acknowledged;
  std::map<std::string, size_t> sizes;
};

// Small objects and large ones, from two processes, in directories that come and go.
void use(const std::shared_ptr<SimFileSystem>& files, SeededUuids& uuids, Objects& objects) {
  auto first = make_object_dir(files, kRoot, uuids);
  auto second = make_object_dir(files, kRoot, uuids);
  const auto acknowledge = [&](const std::string& key) {
    objects.acknowledged.push_back(key);
    files->mark(objects.acknowledged.size());
  };
  const auto put = [&](ObjectStore& store, const std::string& key, size_t bytes) {
    objects.begun[key] = objects.sizes[key] = bytes;
    if (store.put_new(key, content_of(key, bytes)).ok()) acknowledge(key);
  };
  const auto write = [&](ObjectStore& store, const std::string& key, size_t bytes) {
    objects.sizes[key] = bytes;
    const ByteVector content = content_of(key, bytes);
    auto writer = store.create(key, bytes + 10'000);
    if (!writer.ok()) return;
    if (!(*writer)->write(0, Bytes(content).first(bytes / 2)).ok()) return;
    if (!(*writer)->write(bytes / 2, Bytes(content).subspan(bytes / 2)).ok()) return;
    if ((*writer)->publish(bytes).ok()) acknowledge(key);
  };
  put(*first, "store", 100);
  put(*first, "log/1", 700);
  put(*second, "log/2", 300);
  write(*second, "data/a/0.pack", 5000);
  put(*second, "log/3", 10);
  write(*first, "data/a/1.pack", 3000);
  write(*first, "data/b/0.pack", 2000);
  if (second->remove("data/c/none").ok()) put(*first, "log/4", 1500);
}

// Empty, or what is wrong with the objects on this disk.
std::string check(const sim::Image& image, const Objects& objects, size_t acknowledged) {
  auto files = std::make_shared<SimFileSystem>(sim::SimOptions{}, image);
  SeededUuids uuids(99);
  auto store = make_object_dir(files, kRoot, uuids);
  for (size_t i = 0; i < acknowledged; ++i) {
    const std::string& key = objects.acknowledged[i];
    const Result<ByteVector> got = store->get(key, 1 << 20);
    if (!got.ok()) return key + ": acknowledged, but " + got.status().to_string();
    if (*got != content_of(key, objects.sizes.at(key))) return key + ": other bytes";
  }
  for (const auto& [key, bytes] : objects.begun) {
    const Result<ByteVector> got = store->get(key, 1 << 20);
    if (got.ok() && *got != content_of(key, bytes)) return key + ": there, but not whole";
    if (!got.ok() && got.status().code() != StatusCode::kNotFound) return got.status().to_string();
  }
  return {};
}

std::shared_ptr<SimFileSystem> new_disk() {
  sim::Image image;
  const sim::NodeId made = image.add_node(true);
  image.apply({.kind = sim::EffectKind::kAdd, .node = sim::kRoot, .target = made, .name = "disk"});
  return std::make_shared<SimFileSystem>(sim::SimOptions{}, std::move(image));
}

TEST(ObjectDirCrash, AcknowledgedObjectsAreThereAfterEveryCrash) {
  auto files = new_disk();
  SeededUuids uuids(1);
  Objects objects;
  use(files, uuids, objects);
  ASSERT_EQ(objects.acknowledged.size(), 8u);
  sim::CrashStates states(files->base(), files->history(), {.subset_max = 10, .torn = 20}, 1);
  uint64_t count = 0;
  for (size_t prefix = 0; prefix < states.prefixes(); ++prefix) {
    states.advance_to(prefix);
    for (uint32_t variant = 0; variant < states.variants(); ++variant, ++count) {
      ASSERT_EQ(check(states.build(variant), objects, states.marks().size()), "")
          << "prefix " << prefix << ", variant " << variant << ", " << states.describe();
    }
  }
  std::printf("  %llu crash states\n", static_cast<unsigned long long>(count));
}

TEST(ObjectDirCrash, NothingIsAcknowledgedThatAFailureUndid) {
  uint64_t calls = 0;
  {
    auto files = new_disk();
    SeededUuids uuids(1);
    Objects objects;
    use(files, uuids, objects);
    calls = files->calls();
  }
  uint64_t count = 0;
  for (uint64_t at = 0; at < calls; ++at) {
    for (const bool applied : {false, true}) {
      for (const bool lasting : {false, true}) {
        auto files = new_disk();
        files->set_fault_hook([&](const sim::Call& call) -> sim::Outcome {
          if (lasting ? call.index < at : call.index != at) return {};
          return {io_error("injected"), applied};
        });
        SeededUuids uuids(1);
        Objects objects;
        use(files, uuids, objects);
        ASSERT_EQ(files->open_files(), 0);
        sim::CrashStates states(files->base(), files->history(), {.subset_max = 6, .torn = 2}, at);
        states.advance_to(states.prefixes() - 1);
        for (uint32_t variant = 0; variant < states.variants(); ++variant, ++count) {
          ASSERT_EQ(check(states.build(variant), objects, objects.acknowledged.size()), "")
              << "call " << at << (applied ? ", reply lost" : "") << (lasting ? ", lasting" : "")
              << ", variant " << variant;
        }
      }
    }
  }
  std::printf("  %llu calls failed, %llu crash states\n", static_cast<unsigned long long>(calls),
              static_cast<unsigned long long>(count));
}

// Whoever made the root may not have lived to make its name durable.
TEST(ObjectDirCrash, RootThatStandsIsNotTrustedToBeDurable) {
  auto files = new_disk();
  files->set_fault_hook([](const sim::Call& call) -> sim::Outcome {
    if (call.kind != sim::CallKind::kSyncDirectory || call.path != "/disk") return {};
    return {io_error("injected"), false};
  });
  SeededUuids uuids(1);
  EXPECT_FALSE(make_object_dir(files, kRoot, uuids)->put_new("a", as_bytes("a")).ok());
  EXPECT_FALSE(make_object_dir(files, kRoot, uuids)->put_new("a", as_bytes("a")).ok());
}

}  // namespace
}  // namespace caisson

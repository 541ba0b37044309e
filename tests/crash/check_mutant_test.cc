// Every checksum, digest and identity check is needed: damage of every kind is done to a small
// store, once with all checks and once with each check taken out (io/base/mutant.h). Each must
// change what restore and verify say about some damage: it is not noticed at all, or only by a
// later check, or wrong bytes come out. Prints the list.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <random>

#include "engine/log.h"
#include "engine/scrub.h"
#include "io/base/mutant.h"
#include "io/object_dir.h"
#include "tests/crash/workloads.h"
#include "tests/crash/world.h"

namespace caisson::crash {
namespace {

constexpr uint64_t kSeed = 4;
constexpr int kFlipsPerObject = 6;

const char* const kChecks[] = {
    "header_checksum",     "payload_checksum",     "root_digest",        "page_checksum",
    "part_trailer_digest", "entry_block_checksum", "inline_content_id",  "content_id",
    "object_size",         "object_digest",        "pack_footer_digest", "segment_checksum",
    "stored_checksum",     "pack_tables_digest",
};

struct Damage {
  std::string what;
  sim::Image image;
};

// What a damaged store says: about opening, about each checkpoint, and in a full verify.
struct Outcome {
  bool noticed = false;
  bool wrong = false;
  std::string text;
};

Outcome outcome_of(const sim::Image& image, const Expectation& expectation) {
  Outcome outcome;
  World world(kSeed + 1, image, expectation);
  const auto say = [&](const std::string& text) {
    outcome.noticed = true;
    outcome.text += text + "\n";
  };
  Result<std::unique_ptr<Store>> store = world.open();
  if (!store.ok()) {
    say(store.status().to_string());
    return outcome;
  }
  for (const auto& [name, expected] : expectation.names()) {
    if (expected.versions.empty()) continue;
    const std::string text =
        verify_checkpoint(**store, name, {expected.versions.begin(), expected.versions.end()});
    if (text.find("differ") != std::string::npos) outcome.wrong = true;
    if (!text.empty()) say(text);
  }
  SeededUuids uuids(kSeed);
  FixedClock clock;
  const std::unique_ptr<ObjectStore> objects = world.objects().value();
  MemoryBudget budget(1 << 20);
  Scrubber scrubber(*objects, budget, {.depth = ScrubDepth::kFull});
  const auto log = Log::open(*objects, uuids, this_process(), clock);
  if (!log.ok()) {
    say(log.status().to_string());
    return outcome;
  }
  for (const auto& [seq, checkpoint] : (*log)->state()->checkpoints()) {
    const Status status = scrubber.check_checkpoint(checkpoint.name(), checkpoint.root);
    if (!status.ok()) say(status.to_string());
  }
  for (const ScrubFinding& finding : scrubber.report().findings) {
    if (!finding.damage) continue;
    say(finding.object + " at " + std::to_string(finding.offset) + ": " + finding.what);
  }
  return outcome;
}

class CheckMutants : public testing::Test {
 protected:
  void SetUp() override {
    World world(kSeed);
    const Status status = workload("snapshots").run(world);
    ASSERT_TRUE(status.ok()) << status.to_string();
    image_ = world.disk().image();
    expectation_ = world.expectation();
    ASSERT_EQ(outcome_of(image_, expectation_).text, "");
  }

  ByteVector bytes_of(const std::string& path) const {
    const sim::NodeId node = *image_.find(path);
    ByteVector bytes(image_.size(node));
    image_.read(node, 0, bytes);
    return bytes;
  }
  void add(std::string what, const std::string& path, ByteVector bytes) {
    sim::Image copy = image_;
    const sim::NodeId node = *image_.find(path);
    copy.apply({.kind = sim::EffectKind::kResize, .node = node, .size = bytes.size()});
    copy.apply({.kind = sim::EffectKind::kData,
                .node = node,
                .bytes = std::make_shared<ByteVector>(std::move(bytes))});
    damages_.push_back({path + ": " + std::move(what), std::move(copy)});
  }
  void make_damages();
  void replace_with_valid(const std::string& path);

  sim::Image image_;
  Expectation expectation_;
  std::vector<Damage> damages_;
};

// Bytes that every checksum inside them vouches for, but that are not what was sealed: another
// version of the same object.
void CheckMutants::replace_with_valid(const std::string& path) {
  const std::string key = path.substr(std::string(kStoreRoot).size() + 1);
  const Result<format::ObjectRef> ref = format::object_ref_of(key);
  if (!ref.ok()) return;
  const ByteVector bytes = bytes_of(path);
  if (ref->kind == format::ObjectKind::kRoot) {
    const uint64_t head = format::root_head_bytes(bytes, key).value();
    format::Root root =
        format::decode_root(*ref, bytes.size(), Bytes(bytes).first(head), key).value();
    const format::PackTables tables =
        format::decode_pack_tables(root, Bytes(bytes).subspan(head), key).value();
    root.created_unix_ns ^= 1;
    add("another valid root", path, format::encode_root(root, tables).bytes);
    format::PackTables others = tables;
    for (format::SealedRef& pack : others.packs) pack.digest.bytes[0] ^= std::byte{1};
    const ByteVector behind = format::encode_pack_tables(ref->writer, head, others);
    ByteVector changed(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(head));
    changed.insert(changed.end(), behind.begin(), behind.end());
    add("another valid table of packs", path, std::move(changed));
  } else if (ref->kind == format::ObjectKind::kPart) {
    const Bytes block = Bytes(bytes).last(format::kBlockBytes);
    auto trailer = format::decode_part_trailer(*ref, bytes.size(), block, key).value();
    trailer.stored_bytes ^= 1;
    ByteVector changed = bytes;
    const ByteVector encoded = format::encode_part_trailer(trailer);
    std::copy(encoded.begin(), encoded.end(), changed.end() - format::kBlockBytes);
    add("another valid trailer", path, std::move(changed));
    if (trailer.inline_bytes == 0) return;
    ByteVector flipped = bytes;
    flipped[trailer.inline_offset] ^= std::byte{1};
    add("inline data", path, std::move(flipped));
  } else if (ref->kind == format::ObjectKind::kPack) {
    const Bytes trailer = Bytes(bytes).last(format::kBlockBytes);
    const uint64_t at = format::footer_offset_of(*ref, bytes.size(), trailer).value();
    auto footer = format::decode_pack_footer(*ref, bytes.size(), Bytes(bytes).subspan(at)).value();
    footer.segments.front().entries.front().stored_checksum ^= 1;
    const ByteVector encoded = format::encode_pack_footer(*ref, at, footer.segments);
    ByteVector changed(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(at));
    changed.insert(changed.end(), encoded.begin(), encoded.end());
    add("another valid footer", path, std::move(changed));
  }
}

void CheckMutants::make_damages() {
  std::mt19937_64 random(kSeed);
  std::map<std::string, std::string> last_of_kind;
  for (const std::string& path : image_.files()) {
    if (path.starts_with(std::string(kStoreRoot) + "/tmp/")) continue;
    const ByteVector bytes = bytes_of(path);
    for (int i = 0; i < kFlipsPerObject; ++i) {
      ByteVector changed = bytes;
      const uint64_t bit = random() % (bytes.size() * 8);
      changed[bit / 8] ^= static_cast<std::byte>(1u << (bit % 8));
      add("bit " + std::to_string(bit), path, std::move(changed));
    }
    ByteVector longer = bytes;
    longer.resize(bytes.size() + 4096);
    add("longer", path, std::move(longer));
    const size_t slash = path.rfind('/'), dot = path.rfind('.');
    const bool has_dot = dot != std::string::npos && dot > slash;
    std::string& other = last_of_kind[has_dot ? path.substr(dot) : path.substr(0, slash)];
    if (!other.empty()) add("the bytes of " + other, path, bytes_of(other));
    other = path;
    replace_with_valid(path);
  }
}

#ifdef CAISSON_MUTANTS
TEST_F(CheckMutants, EveryCheckIsNeeded) {
  make_damages();
  std::vector<Outcome> whole;
  for (const Damage& damage : damages_) {
    whole.push_back(outcome_of(damage.image, expectation_));
    EXPECT_FALSE(whole.back().wrong) << damage.what << ": " << whole.back().text;
  }
  size_t caught = 0;
  for (const char* const check : kChecks) {
    active_mutant() = check;
    size_t unnoticed = 0, wrong = 0, later = 0;
    std::string first;
    for (size_t i = 0; i < damages_.size(); ++i) {
      const Outcome now = outcome_of(damages_[i].image, expectation_);
      if (now.text == whole[i].text) continue;
      if (first.empty()) first = damages_[i].what;
      ++(now.wrong ? wrong : now.noticed ? later : unnoticed);
    }
    active_mutant() = nullptr;
    const bool seen = unnoticed + wrong + later > 0;
    if (seen) ++caught;
    std::printf(
        "  no check of %-22s %s: %zu wrong bytes, %zu unnoticed, %zu noticed otherwise; %s\n",
        check, seen ? "caught" : "SURVIVED", wrong, unnoticed, later, first.c_str());
    std::fflush(stdout);
    EXPECT_TRUE(seen) << check;
  }
  // A record in another's place would break the fold's own invariant: without this check the
  // process stops rather than go on.
  const auto swapped = std::find_if(damages_.rbegin(), damages_.rend(), [](const Damage& damage) {
    return damage.what.find("/log/") != std::string::npos &&
           damage.what.find("the bytes of") != std::string::npos;
  });
  ASSERT_NE(swapped, damages_.rend());
  active_mutant() = "log_record_seq";
  EXPECT_DEATH(outcome_of(swapped->image, expectation_), "record.seq");
  active_mutant() = nullptr;
  std::printf("  no check of %-22s caught: the process stops; %s\n", "log_record_seq",
              swapped->what.c_str());
  ++caught;
  EXPECT_EQ(caught, std::size(kChecks) + 1);
  std::printf("check mutants: %zu of %zu caught, over %zu kinds of damage\n", caught,
              std::size(kChecks) + 1, damages_.size());
}
#else
TEST_F(CheckMutants, EveryCheckIsNeeded) {
  GTEST_SKIP() << "this build keeps its checks; configure with -DCAISSON_MUTANTS=ON";
}
#endif

}  // namespace
}  // namespace caisson::crash

// The tables behind a root's head: one tensor's packs are found with few small reads, damage
// elsewhere does not matter to it, and the complete list is never anything but what was committed.
#include "engine/root_packs.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/manifest.h"
#include "io/base/mutant.h"
#include "tests/support/memory_object_store.h"

namespace caisson {
namespace {

using format::ObjectKind;
using format::ObjectRef;
using format::SealedRef;

class RootPacksTest : public testing::Test {
 protected:
  static constexpr uint32_t kPacks = 40'000;
  static constexpr uint32_t kParts = 3;

  // Three parts: two share the packs between them, the third refers to all in reverse.
  RootPacksTest() {
    format::Root root;
    root.object = {.kind = ObjectKind::kRoot, .save = {}, .writer = {}, .number = 0};
    root.run = "r";
    root.metadata_json = "{}";
    root.directory.object = root.object;
    root.directory.object.kind = ObjectKind::kDirectory;
    for (uint32_t i = 0; i < kPacks; ++i) {
      tables_.packs.push_back({.object = pack(i), .bytes = 4096 + i, .digest = {}});
    }
    const uint32_t counts[kParts] = {kPacks / 2, kPacks / 2, kPacks};
    for (uint32_t part = 0; part < kParts; ++part) {
      format::RootPart info;
      info.part.object = root.object;
      info.part.object.kind = ObjectKind::kPart;
      info.part.object.number = part;
      info.packs = counts[part];
      root.parts.push_back(info);
      for (uint32_t i = 0; i < counts[part]; ++i) tables_.of_parts.push_back(expected(part, i));
    }
    format::EncodedRoot encoded = format::encode_root(root, tables_);
    sealed_ = encoded.sealed;
    objects_.objects()[root.object.key()] = std::move(encoded.bytes);
    root_ = read_root_head(reads_, sealed_).value().root;
    objects_.set_read_hook([this](const std::string&, uint64_t, MutableBytes into) {
      ++count_;
      bytes_ += into.size();
      return ok_status();
    });
  }
  static ObjectRef pack(uint32_t i) {
    return {.kind = ObjectKind::kPack, .save = {}, .writer = {}, .number = i * 2};
  }
  static uint32_t expected(uint32_t part, uint32_t i) {
    return part == 0 ? i : part == 1 ? kPacks / 2 + i : kPacks - 1 - i;
  }
  ByteVector& bytes() { return objects_.objects()[sealed_.object.key()]; }

  MemoryObjectStore objects_;
  ObjectReads reads_{objects_};
  format::PackTables tables_;
  SealedRef sealed_;
  format::Root root_;
  uint64_t count_ = 0, bytes_ = 0;
};

TEST_F(RootPacksTest, OnePackTakesTwoSmallReads) {
  RootPacks packs(reads_, sealed_, root_);
  for (const uint32_t i : {17u, 18u, 300u}) ASSERT_TRUE(packs.need(1, i).ok());
  EXPECT_EQ(packs.at(packs.index_of(1, 300)), tables_.packs[kPacks / 2 + 300]);
  EXPECT_LE(count_, 3u);
  EXPECT_LE(bytes_, 3u * 64 * 1024);
  EXPECT_GT(sealed_.bytes, 2'000'000u) << "of which most is not needed";
}

TEST_F(RootPacksTest, EveryPackOfEveryPart) {
  RootPacks packs(reads_, sealed_, root_);
  for (uint32_t part = 0; part < kParts; ++part) {
    for (uint32_t i = 0; i < root_.parts[part].packs; ++i) {
      const Status known = packs.need(part, i);
      ASSERT_TRUE(known.ok()) << known.to_string();
      ASSERT_EQ(packs.index_of(part, i), expected(part, i));
      ASSERT_EQ(packs.at(expected(part, i)), tables_.packs[expected(part, i)]);
    }
  }
  const uint64_t reads = count_;
  const format::PackTables all = packs.all().value();
  EXPECT_EQ(all.packs, tables_.packs);
  EXPECT_EQ(all.of_parts, tables_.of_parts);
  EXPECT_EQ(count_, reads + 1);
}

TEST_F(RootPacksTest, TablesAtHandAnswerTheSame) {
  RootPacks packs(root_, tables_);
  ASSERT_TRUE(packs.need(2, 7).ok());
  EXPECT_EQ(packs.at(packs.index_of(2, 7)), tables_.packs[kPacks - 8]);
  EXPECT_EQ(packs.all().value().packs, tables_.packs);
  EXPECT_EQ(packs.all().value().of_parts, tables_.of_parts);
  EXPECT_EQ(count_, 0u);
}

TEST_F(RootPacksTest, FindsBasesByName) {
  RootPacks packs(reads_, sealed_, root_);
  for (const uint32_t i : {0u, 1u, 65u, 66u, 20'000u, kPacks - 1}) {
    const auto found = packs.find(pack(i));
    ASSERT_TRUE(found.ok() && *found != nullptr) << i;
    EXPECT_EQ(**found, tables_.packs[i]);
  }
  ObjectRef other = pack(5);
  ++other.number;
  EXPECT_EQ(packs.find(other).value(), nullptr);
  other.number = UINT32_MAX;
  EXPECT_EQ(packs.find(other).value(), nullptr);
}

TEST_F(RootPacksTest, DamageMattersWhereItIs) {
  const uint64_t at =
      root_.tables_offset + 2 * format::kTableBlockBytes + 16 + 37;  // its first pack's length
  bytes()[at] ^= std::byte{1};
  RootPacks packs(reads_, sealed_, root_);
  EXPECT_TRUE(packs.need(1, 17).ok());
  const Status damaged = packs.need(0, 2 * format::kPacksPerBlock);
  EXPECT_EQ(damaged.code(), StatusCode::kCorruption);
  EXPECT_NE(damaged.message().find(sealed_.object.key()), std::string_view::npos);
  EXPECT_EQ(packs.all().status().code(), StatusCode::kCorruption);
  EXPECT_EQ(read_root(objects_, sealed_).status().code(), StatusCode::kCorruption);
#ifdef CAISSON_MUTANTS
  // Where blocks are read one by one, their checksums alone see it; the digest is of them all. The
  // other checks are taken out by tests/crash/check_mutant_test.cc, whose roots are small.
  active_mutant() = "pack_table_checksum";
  EXPECT_TRUE(packs.need(0, 2 * format::kPacksPerBlock).ok());
  active_mutant() = nullptr;
#endif
  bytes()[at] ^= std::byte{1};
  EXPECT_TRUE(RootPacks(reads_, sealed_, root_).need(0, 2 * format::kPacksPerBlock).ok());
  EXPECT_TRUE(read_root(objects_, sealed_).ok());
}

// Blocks of another list, each sound by itself: only the digest in the head tells.
TEST_F(RootPacksTest, TheCompleteListIsTheCommittedOne) {
  format::PackTables others = tables_;
  others.packs[kPacks / 3].bytes += 1;
  const ByteVector behind =
      format::encode_pack_tables(sealed_.object.writer, root_.tables_offset, others);
  std::copy(behind.begin(), behind.end(),
            bytes().begin() + static_cast<ptrdiff_t>(root_.tables_offset));
  EXPECT_EQ(RootPacks(reads_, sealed_, root_).all().status().code(), StatusCode::kCorruption);
  const Status status = read_root(objects_, sealed_).status();
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_NE(status.message().find("caisson verify"), std::string_view::npos);
}

TEST_F(RootPacksTest, ServesManyThreads) {
  objects_.set_read_hook({});
  RootPacks packs(reads_, sealed_, root_);
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> threads;
    for (uint32_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        for (uint32_t i = t; i < kPacks; i += 37) {
          if (!packs.need(2, i).ok() ||
              packs.at(packs.index_of(2, i)).object != pack(kPacks - 1 - i))
            ++wrong;
        }
      });
    }
  }
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace caisson

// Every loop that this processor can run against xxHash itself: the hash, and the copy that is made
// on the way, for all short lengths, random cuts, sources and destinations at any alignment.
#include "io/base/hash.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace caisson {
namespace {

Digest reference(Bytes bytes) {
  XXH128_canonical_t raw;
  XXH128_canonicalFromHash(&raw, XXH3_128bits(bytes.data(), bytes.size()));
  Digest digest;
  std::memcpy(digest.bytes.data(), raw.digest, digest.bytes.size());
  return digest;
}

ByteVector random_bytes(std::mt19937_64& random, size_t bytes) {
  ByteVector out(bytes);
  for (std::byte& byte : out) byte = static_cast<std::byte>(random());
  return out;
}

TEST(Hash, IsXxHashForEveryLengthAroundTheSteps) {
  std::mt19937_64 random(1);
  const ByteVector bytes = random_bytes(random, 9000);
  for (size_t size = 0; size < 8 * kHashBlockBytes; ++size) {
    const Bytes part = Bytes(bytes).subspan(size % 67, size);
    ASSERT_EQ(to_hex(digest_of(part)), to_hex(reference(part))) << size << " bytes";
  }
}

TEST(Hash, StreamsCopyAndHashWhateverTheCuts) {
  const uint64_t seed = 20250;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);
  constexpr std::byte kGuard{0xa5};
  const ByteVector bytes = random_bytes(random, 1 << 16);
  ByteVector copy(bytes.size() + 256);
  for (int round = 0; round < 2000; ++round) {
    const size_t size = random() % (round % 2 == 0 ? bytes.size() : 3000);
    const Bytes input = Bytes(bytes).subspan(random() % (bytes.size() - size + 1), size);
    const size_t slack = 64 - reinterpret_cast<uintptr_t>(copy.data()) % 64;
    const size_t at = slack + (round % 3 == 0 ? 0 : random() % 64);
    std::ranges::fill(copy, kGuard);
    DigestStream stream(copy.data() + at,
                        round % 5 == 0 ? CopyStores::kCached : CopyStores::kPastCaches);
    DigestStream only_hash;
    for (size_t done = 0; done < size;) {
      const size_t cut = std::min<size_t>(size - done, random() % (round % 7 == 0 ? 90 : 5000));
      stream.add(input.subspan(done, cut));
      only_hash.add(input.subspan(done, cut));
      done += cut;
    }
    ASSERT_EQ(to_hex(stream.finish()), to_hex(reference(input))) << size << " bytes at " << at;
    ASSERT_EQ(to_hex(only_hash.finish()), to_hex(reference(input))) << size << " bytes";
    ASSERT_TRUE(std::ranges::equal(input, Bytes(copy).subspan(at, size)));
    ASSERT_EQ(copy[at - 1], kGuard);
    ASSERT_EQ(copy[at + size], kGuard);
  }
}

TEST(Hash, StreamsCopyEveryPieceToAPlaceOfItsOwn) {
  std::mt19937_64 random(3);
  const ByteVector bytes = random_bytes(random, 40'000);
  for (int round = 0; round < 500; ++round) {
    const uint64_t apart = random() % 100;
    ByteVector copy(bytes.size() + 40'000), expected(copy.size());
    DigestStream stream(round % 2 == 0 ? bytes.size() : 0, nullptr, CopyStores::kPastCaches);
    for (size_t done = 0, at = 0; done < bytes.size();) {
      const size_t cut = std::min<size_t>(
          bytes.size() - done, round % 3 == 0 ? kHashBlockBytes * 4 : 100 + random() % 5000);
      const Bytes piece = Bytes(bytes).subspan(done, cut);
      stream.add_copied(piece, copy.data() + at);
      std::ranges::copy(piece, expected.begin() + static_cast<ptrdiff_t>(at));
      done += cut;
      at += cut + apart;
    }
    ASSERT_EQ(stream.finish(), reference(bytes)) << round;
    ASSERT_TRUE(copy == expected) << round;
  }
}

// The loops that were not chosen: all of them do what the portable one does.
TEST(Hash, EveryLoopIsTheSame) {
  std::mt19937_64 random(2);
  const ByteVector bytes = random_bytes(random, 5 * kHashBlockBytes + 7);
  const ByteVector secret = random_bytes(random, kHashSecretBytes);
  HashLanes first{};
  for (size_t i = 0; i < all_hash_blocks().size(); ++i) {
    for (const CopyStores stores : {CopyStores::kCached, CopyStores::kPastCaches}) {
      HashLanes lanes{{1, 2, 3, 4, 5, 6, 7, 8}};
      ByteVector copy(5 * kHashBlockBytes + 64);
      std::byte* const to = copy.data() + 64 - reinterpret_cast<uintptr_t>(copy.data()) % 64;
      all_hash_blocks()[i](lanes, bytes.data() + 7, to, stores, 5, secret.data());
      finish_copies();
      EXPECT_TRUE(std::equal(to, to + 5 * kHashBlockBytes, bytes.data() + 7));
      HashLanes plain{{1, 2, 3, 4, 5, 6, 7, 8}};
      all_hash_blocks()[i](plain, bytes.data() + 7, nullptr, stores, 5, secret.data());
      EXPECT_EQ(plain.lanes, lanes.lanes);
      if (i == 0) first = lanes;
      EXPECT_EQ(lanes.lanes, first.lanes) << "loop " << i;
    }
  }
  EXPECT_NE(first.lanes[0], 1u);
}

TEST(Hash, AChunkHasOneDigestForItsIdAndItsChecksum) {
  const Digest digest = digest_of(as_bytes("tile"));
  EXPECT_NE(content_id(digest, 16), content_id(digest, 32));
  EXPECT_NE(content_id(digest, 16), digest);
  EXPECT_EQ(content_id(as_bytes("tile"), 16), content_id(digest, 16));
  EXPECT_EQ(chunk_checksum(digest, 7), checksum64(digest.bytes, 7));
  EXPECT_NE(chunk_checksum(digest, 7), chunk_checksum(digest, 8));
}

}  // namespace
}  // namespace caisson

// Codec 6, which leaves blocks of zeros out: every chunk comes back, wherever its zeros are and
// however long it is; what is zero costs a bit a block; hostile bytes are corruption.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <random>
#include <string>

#include "compression/codec.h"

namespace caisson {
namespace {

constexpr ElementFormat kFp32{.code = 2, .bits = 32};
constexpr ElementFormat kBytes{.code = 1, .bits = 8};
constexpr size_t kBlock = 64;

const Codec& sparse() { return *find_codec("sparse").value(); }

ByteVector normal_fp32(size_t bytes, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> value(0, 0.02f);
  ByteVector data(bytes, std::byte{1});
  for (size_t at = 0; at + 4 <= bytes; at += 4) {
    const float x = value(random);
    std::memcpy(data.data() + at, &x, sizeof x);
  }
  return data;
}

using Keeps = std::function<bool(size_t block)>;
void clear_blocks(ByteVector& raw, const Keeps& keeps) {
  for (size_t at = 0; at < raw.size(); at += kBlock) {
    if (keeps(at / kBlock)) continue;
    std::fill_n(raw.data() + at, std::min(kBlock, raw.size() - at), std::byte{0});
  }
}

// What `codec` makes of it; empty when that is not smaller than `room`.
ByteVector encode_with(const Codec& codec, ElementFormat format, Bytes raw, size_t room) {
  CodecContext context;
  ByteVector stored(room + kBlock, std::byte{0x5a});
  const Result<size_t> size =
      codec.encode(context, format, raw, {}, MutableBytes(stored).first(room));
  EXPECT_TRUE(size.ok()) << size.status().to_string();
  for (size_t i = room; i < stored.size(); ++i) EXPECT_EQ(stored[i], std::byte{0x5a});
  stored.resize(size.ok() ? *size : 0);
  stored.shrink_to_fit();  // so that a sanitizer sees a read behind it
  return stored;
}
ByteVector encode(ElementFormat format, Bytes raw) {
  return encode_with(sparse(), format, raw, raw.size() + 1024);
}

Status decode(Bytes stored, MutableBytes raw) {
  CodecContext context;
  return sparse().decode(context, {}, stored, {}, raw);
}

void expect_back(Bytes stored, Bytes raw) {
  ByteVector out(raw.size() + 1 + kBlock, std::byte{0x5a});
  const MutableBytes odd = MutableBytes(out).subspan(1, raw.size());
  const Status status = decode(stored, odd);
  ASSERT_TRUE(status.ok()) << status.to_string();
  ASSERT_TRUE(std::equal(odd.begin(), odd.end(), raw.begin()));
  ASSERT_EQ(out.front(), std::byte{0x5a});
  for (size_t i = raw.size() + 1; i < out.size(); ++i) ASSERT_EQ(out[i], std::byte{0x5a});
}

TEST(SparseCodec, KeepsEveryByteWhereverTheZerosAre) {
  std::mt19937_64 random(1);
  const std::pair<const char*, Keeps> patterns[] = {
      {"all", [](size_t) { return true; }},
      {"none", [](size_t) { return false; }},
      {"the first", [](size_t i) { return i == 0; }},
      {"all but the first", [](size_t i) { return i != 0; }},
      {"every other", [](size_t i) { return i % 2 == 0; }},
      {"the others", [](size_t i) { return i % 2 == 1; }},
      {"rows", [](size_t i) { return i / 32 % 3 == 1; }},
      {"words", [](size_t i) { return i / 64 % 2 == 1; }},
      {"one in nine", [&](size_t) { return random() % 9 == 0; }},
      {"eight in nine", [&](size_t) { return random() % 9 != 0; }},
  };
  std::vector<size_t> lengths;
  for (size_t bytes = 0; bytes <= 3 * kBlock; ++bytes) lengths.push_back(bytes);
  for (const size_t blocks : {63, 64, 65, 127, 128, 129, 400, 5000}) {
    for (const size_t more : {0, 1, 63}) lengths.push_back(kBlock * blocks + more);
  }
  for (const auto& [name, keeps] : patterns) {
    for (const size_t bytes : lengths) {
      for (const ElementFormat format : {kFp32, kBytes}) {
        SCOPED_TRACE(std::string(name) + ", " + std::to_string(bytes) + " bytes");
        ByteVector raw = normal_fp32(bytes, bytes);
        clear_blocks(raw, keeps);
        const ByteVector stored = encode(format, raw);
        ASSERT_FALSE(stored.empty());
        expect_back(stored, raw);
        if (HasFatalFailure()) return;
      }
    }
  }
  // A byte alone, in whichever place of a block.
  for (size_t at = 0; at < 230; ++at) {
    ByteVector raw(230);
    raw[at] = std::byte{0x80};
    expect_back(encode(kBytes, raw), raw);
  }
}

TEST(SparseCodec, ZerosCostABitABlock) {
  constexpr size_t kBytesOfChunk = 2u << 20;
  ByteVector raw = normal_fp32(kBytesOfChunk, 3);
  clear_blocks(raw, [](size_t block) { return block / 32 % 4 != 0; });
  ByteVector kept;
  for (size_t at = 0; at < raw.size(); at += 128 * kBlock) {
    kept.insert(kept.end(), raw.begin() + static_cast<ptrdiff_t>(at + 32 * kBlock),
                raw.begin() + static_cast<ptrdiff_t>(at + 128 * kBlock));
  }
  const Codec& planes = *find_codec("planes").value();
  const size_t of_kept = encode_with(planes, kFp32, kept, kept.size()).size();
  ASSERT_GT(of_kept, 0u);
  constexpr size_t kBitmap = kBytesOfChunk / kBlock / 8;
  EXPECT_EQ(encode(kFp32, raw).size(), of_kept + kBitmap + kBlock);
  EXPECT_EQ(encode(kFp32, ByteVector(kBytesOfChunk)).size(), kBitmap + kBlock);
}

TEST(SparseCodec, SaysWhereNothingIsGained) {
  std::mt19937_64 random(5);
  ByteVector noise(1 << 16);
  for (std::byte& byte : noise) byte = static_cast<std::byte>(random());
  EXPECT_TRUE(encode_with(sparse(), kFp32, noise, noise.size()).empty());
  std::fill_n(noise.data(), 1 << 14, std::byte{0});
  const ByteVector stored = encode_with(sparse(), kFp32, noise, noise.size());
  ASSERT_FALSE(stored.empty());
  // Into less room than it needs: nothing, and not a byte beyond.
  for (const size_t room : {size_t{0}, size_t{1}, size_t{64}, size_t{192}, stored.size()}) {
    EXPECT_TRUE(encode_with(sparse(), kFp32, noise, room).empty()) << room;
  }
  EXPECT_EQ(encode_with(sparse(), kFp32, noise, stored.size() + 1), stored);
}

// By the specification: the blocks of `raw` that `keeps` names, stored by `inner`.
ByteVector store_by_hand(const Codec& inner, Bytes raw, const Keeps& keeps) {
  const size_t blocks = (raw.size() + kBlock - 1) / kBlock;
  ByteVector stored(align_up(16 + (blocks + 63) / 64 * 8, 64)), kept;
  uint32_t count = 0;
  for (size_t i = 0; i < blocks; ++i) {
    if (!keeps(i)) continue;
    ++count;
    stored[16 + i / 8] |= std::byte{1} << (i % 8);
    const Bytes block = raw.subspan(kBlock * i, std::min(kBlock, raw.size() - kBlock * i));
    kept.insert(kept.end(), block.begin(), block.end());
  }
  store_le(stored.data(), static_cast<uint32_t>(raw.size()));
  store_le(stored.data() + 4, count);
  stored[8] = static_cast<std::byte>(inner.id());
  const ByteVector form = encode_with(inner, kFp32, kept, kept.size() + 1);
  stored.insert(stored.end(), form.begin(), form.end());
  return stored;
}

TEST(SparseCodec, EveryInnerCodecDecodes) {
  ByteVector raw = normal_fp32(100'001, 7);
  const Keeps keeps = [](size_t block) { return block % 3 != 0 || block == 300; };
  clear_blocks(raw, keeps);
  std::fill_n(raw.data() + 300 * kBlock, kBlock, std::byte{0});  // kept, and zero all the same
  for (const char* inner : {"raw", "planes", "entropy"}) {
    SCOPED_TRACE(inner);
    expect_back(store_by_hand(*find_codec(inner).value(), raw, keeps), raw);
  }
  EXPECT_EQ(decode(store_by_hand(*find_codec("zstd").value(), raw, keeps), raw).code(),
            StatusCode::kCorruption);
}

TEST(SparseCodec, HostileBytesAreCorruption) {
  ByteVector raw = normal_fp32(20'003, 9);  // 313 blocks, 5 words, and 8 zeros up to the sections
  clear_blocks(raw, [](size_t block) { return block % 5 != 2; });
  const ByteVector stored = encode(kFp32, raw);
  const auto refused = [&](Bytes bytes, size_t raw_bytes) {
    ByteVector into(raw_bytes);
    return decode(bytes, into).code() == StatusCode::kCorruption;
  };
  const auto changed = [&](size_t at, unsigned value) {
    ByteVector bad = stored;
    bad[at] ^= static_cast<std::byte>(value);
    return refused(bad, raw.size());
  };
  for (size_t size = 0; size < stored.size(); size += size < 200 ? 1 : 97) {
    EXPECT_TRUE(refused(ByteVector(stored.begin(), stored.begin() + static_cast<ptrdiff_t>(size)),
                        raw.size()))
        << size;
  }
  ByteVector longer = stored;
  longer.push_back(std::byte{0});
  EXPECT_TRUE(refused(longer, raw.size()));
  for (const size_t bytes : {size_t{0}, size_t{1}, raw.size() - kBlock, raw.size() + kBlock,
                             raw.size() + 64 * kBlock, raw.size() * 100}) {
    EXPECT_TRUE(refused(stored, bytes)) << bytes;
  }
  // The header, the bitmap, and the zeros behind it: no bit of them may be another.
  for (size_t at = 0; at < 16; ++at) EXPECT_TRUE(changed(at, 1)) << at;
  for (size_t at = 16; at < 64; ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) EXPECT_TRUE(changed(at, 1u << bit)) << at;
  }
  for (unsigned inner = 0; inner < 256; ++inner) {
    const auto is = static_cast<unsigned>(stored[8]);
    EXPECT_TRUE(inner == is || changed(8, inner ^ is)) << inner;
  }
  // A block that is not there instead of one that is.
  ByteVector beyond = stored;
  beyond[16] ^= std::byte{1};
  beyond[16 + 313 / 8] |= std::byte{1} << (313 % 8);
  EXPECT_TRUE(refused(beyond, raw.size()));
  // Any byte anywhere decodes to something or is refused; it never reads or writes outside.
  std::mt19937_64 random(11);
  ByteVector out(raw.size());
  for (int i = 0; i < 3000; ++i) {
    ByteVector bad = stored;
    for (uint64_t n = 1 + random() % 2; n > 0; --n) {
      bad[random() % (random() % 2 == 0 ? bad.size() : 128)] = static_cast<std::byte>(random());
    }
    (void)decode(bad, out);
  }
  expect_back(stored, raw);
}

TEST(SparseCodec, TheExampleOfTheSpecification) {
  ByteVector raw(230);
  raw[64] = std::byte{7};
  raw[229] = std::byte{9};
  ByteVector stored(64 + 64 + 38);
  stored[0] = std::byte{230};
  stored[4] = std::byte{2};
  stored[16] = std::byte{0x0a};
  stored[64] = std::byte{7};
  stored.back() = std::byte{9};
  EXPECT_EQ(encode(kFp32, raw), stored);
  expect_back(stored, raw);
}

}  // namespace
}  // namespace caisson

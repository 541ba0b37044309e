#include "io/base/bytes.h"

#include <gtest/gtest.h>

namespace caisson {
namespace {

TEST(ByteReader, GivesBackWhatTheWriterPut) {
  ByteWriter out;
  out.put<uint32_t>(7);
  out.put_varint(0);
  out.put_varint(300);
  out.put_varint(UINT64_MAX);
  out.put_string("caisson");
  ByteReader in(out.bytes());
  EXPECT_EQ(in.get<uint32_t>(), 7u);
  EXPECT_EQ(in.get_varint(), 0u);
  EXPECT_EQ(in.get_varint(), 300u);
  EXPECT_EQ(in.get_varint(), UINT64_MAX);
  EXPECT_EQ(in.get_string(16), "caisson");
  EXPECT_TRUE(in.ok());
  EXPECT_EQ(in.remaining(), 0u);
}

TEST(ByteReader, StaysFailedPastTheEnd) {
  ByteWriter out;
  out.put<uint16_t>(1);
  ByteReader in(out.bytes());
  EXPECT_EQ(in.get<uint32_t>(), 0u);
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.get<uint16_t>(), 0u);
  EXPECT_EQ(in.remaining(), 0u);
}

TEST(ByteReader, RefusesVarintsThatOverflowOrAreNotShortest) {
  const std::byte overlong[] = {std::byte{0x80}, std::byte{0x00}};
  ByteReader a{Bytes(overlong)};
  a.get_varint();
  EXPECT_FALSE(a.ok());
  ByteVector wide(9, std::byte{0xff});
  wide.push_back(std::byte{0x02});
  ByteReader b{Bytes(wide)};
  b.get_varint();
  EXPECT_FALSE(b.ok());
}

TEST(ByteReader, CountsNeverExceedWhatIsLeft) {
  ByteWriter out;
  out.put_varint(1u << 30);
  out.put_zeros(16);
  ByteReader in(out.bytes());
  EXPECT_EQ(in.get_count(4), 0u);
  EXPECT_FALSE(in.ok());
}

}  // namespace
}  // namespace caisson

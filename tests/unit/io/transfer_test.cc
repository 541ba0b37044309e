#include "io/transfer.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace caisson {
namespace {

const std::string kPath = "/the/file";

Transfer transfer(bool write, uint64_t bytes, uint32_t alignment) {
  return {.write = write,
          .fd = -1,
          .data = nullptr,
          .offset = 4096,
          .bytes = bytes,
          .enough = bytes,
          .alignment = alignment,
          .path = &kPath};
}

TEST(Transfer, IsOverWhenAllIsDone) {
  Transfer t = transfer(true, 8192, 4096);
  const auto over = t.advance(8192);
  ASSERT_TRUE(over.has_value());
  EXPECT_TRUE(over->ok());
}

TEST(Transfer, GoesOnAfterAShortOne) {
  Transfer t = transfer(false, 10'000, 1);
  EXPECT_FALSE(t.advance(1).has_value());
  EXPECT_EQ(t.next_offset(), 4097u);
  EXPECT_EQ(t.next_bytes(), 9'999u);
  EXPECT_FALSE(t.advance(-EINTR).has_value());
  EXPECT_FALSE(t.advance(-EAGAIN).has_value());
  EXPECT_EQ(t.next_bytes(), 9'999u);
  EXPECT_TRUE(t.advance(9'999)->ok());
}

TEST(Transfer, GoesOnAtAMultipleOfTheAlignment) {
  Transfer t = transfer(true, 3 * 4096, 4096);
  EXPECT_FALSE(t.advance(5000).has_value());
  EXPECT_EQ(t.next_offset(), 8192u);
  EXPECT_FALSE(t.advance(4096).has_value());
  EXPECT_TRUE(t.advance(4096)->ok());
}

TEST(Transfer, EndsAtTheEndOfTheFile) {
  Transfer read = transfer(false, 8192, 4096);
  EXPECT_FALSE(read.advance(5000).has_value());
  const Status status = *read.advance(904);  // the same partial block again
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_NE(status.message().find("offset 8192 of /the/file"), std::string_view::npos)
      << status.to_string();
  Transfer nothing = transfer(false, 10, 1);
  EXPECT_EQ(nothing.advance(0)->code(), StatusCode::kCorruption);
  Transfer write = transfer(true, 10, 1);
  EXPECT_EQ(write.advance(0)->code(), StatusCode::kIoError);
}

TEST(Transfer, TakesEnoughForAll) {
  Transfer t = transfer(false, 8192, 4096);
  t.enough = 5000;
  EXPECT_TRUE(t.advance(5000)->ok());
}

TEST(Transfer, ReportsWhatTheKernelSaid) {
  EXPECT_EQ(transfer(true, 10, 1).advance(-ENOSPC)->code(), StatusCode::kNoSpace);
  EXPECT_EQ(transfer(true, 10, 1).advance(-EIO)->code(), StatusCode::kIoError);
}

TEST(Transfer, DoesNotTryForEver) {
  Transfer t = transfer(false, 10, 1);
  int tries = 1;
  while (!t.advance(-EAGAIN)) ASSERT_LT(++tries, 1'000'000);
  EXPECT_GT(tries, 1000);
}

TEST(Transfer, StaysBelowWhatOneCallMoves) {
  const Transfer t = transfer(false, uint64_t{5} << 30, 4096);
  EXPECT_EQ(t.next_bytes(), 1u << 30);
}

}  // namespace
}  // namespace caisson

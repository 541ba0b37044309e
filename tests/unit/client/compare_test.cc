// What the index keeps of a comparison comes back as it was; whatever else stands there is refused.
#include "client/cli/compare.h"

#include <gtest/gtest.h>

namespace caisson::cli {
namespace {

TensorSpec spec(const std::string& name, DType dtype, std::vector<uint64_t> extents) {
  return {.name = name, .dtype = dtype, .shape = Shape::of(extents)};
}

Comparison sample() {
  const DType f32{DTypeCode::kFloat, 32}, u8{DTypeCode::kUInt, 8};
  Comparison sample{.changes = {},
                    .same_tensors = 1,
                    .raw_bytes_a = 1ull << 40,
                    .raw_bytes_b = 3,
                    .shared_bytes = 4};
  const auto add = [&](Change change, const TensorSpec& before, const TensorSpec& after, bool blob,
                       uint64_t bytes) {
    sample.changes.push_back({.change = change,
                              .name = after.name,
                              .blob = blob,
                              .before = before,
                              .after = after,
                              .changed_bytes = bytes});
  };
  add(Change::kAdded, spec("a", f32, {}), spec("a", f32, {}), false, 0);
  add(Change::kRemoved, spec("b\n\xc3\xa4", u8, {7}), spec("b\n\xc3\xa4", u8, {7}), true, 0);
  add(Change::kRetyped, spec("c", f32, {0, 1, 2, 3, 4, 5, 6, 7}), spec("c", u8, {1ull << 60}),
      false, 300);
  add(Change::kChanged, spec("d", f32, {2, 3}), spec("d", f32, {2, 3}), false, 1ull << 33);
  return sample;
}

ByteVector kept(const Comparison& comparison) {
  ByteWriter out;
  put_answer(out, comparison);
  return out.take();
}

bool parses(Bytes bytes) {
  ByteReader in(bytes);
  Comparison comparison;
  get_answer(in, comparison);
  return in.ok() && in.remaining() == 0;
}

TEST(CompareTest, AnAnswerComesBackAsItWas) {
  const Comparison want = sample();
  const ByteVector bytes = kept(want);
  ByteReader in(bytes);
  Comparison got;
  get_answer(in, got);
  ASSERT_TRUE(in.ok());
  EXPECT_EQ(in.remaining(), 0u);
  EXPECT_EQ(got.same_tensors, want.same_tensors);
  EXPECT_EQ(got.raw_bytes_a, want.raw_bytes_a);
  EXPECT_EQ(got.raw_bytes_b, want.raw_bytes_b);
  EXPECT_EQ(got.shared_bytes, want.shared_bytes);
  ASSERT_EQ(got.changes.size(), want.changes.size());
  for (size_t i = 0; i < want.changes.size(); ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ(got.changes[i].change, want.changes[i].change);
    EXPECT_EQ(got.changes[i].name, want.changes[i].name);
    EXPECT_EQ(got.changes[i].blob, want.changes[i].blob);
    EXPECT_TRUE(got.changes[i].before == want.changes[i].before);
    EXPECT_TRUE(got.changes[i].after == want.changes[i].after);
    EXPECT_EQ(got.changes[i].changed_bytes, want.changes[i].changed_bytes);
  }
}

TEST(CompareTest, HostileAnswersAreRefused) {
  const ByteVector bytes = kept(sample());
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(parses(Bytes(bytes).first(length))) << length;
  }
  // Any byte replaced by any other: parsed or refused, but nothing worse.
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (int value = 0; value < 256; ++value) {
      ByteVector changed = bytes;
      changed[at] = static_cast<std::byte>(value);
      static_cast<void>(parses(changed));
    }
  }
}

}  // namespace
}  // namespace caisson::cli

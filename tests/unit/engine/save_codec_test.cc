// Which codec a piece gets, by what the worker met at the device and by what time it may spend.
#include "engine/save_codec.h"

#include <gtest/gtest.h>

#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

class SaveCodecTest : public ::testing::Test {
 protected:
  SaveCodecTest() : numbers_(testing::random_bytes(1 << 20, 1)) {
    spec_ = {"weight", testing::kBf16, testing::shape_of({1024, 512})};
    for (size_t at = 1; at < numbers_.size(); at += 2) {
      numbers_[at] = (numbers_[at] & std::byte{0x81}) | std::byte{0x3c};
    }
  }
  CodecChoice choose(CodecPolicy& policy, const std::vector<std::byte>& raw) {
    return policy.choose(spec_, context_, raw).value();
  }
  CodecChoice choose(CodecPolicy& policy) { return choose(policy, numbers_); }
  // A second of a worker that does nothing but gather and code, at these rates in bytes a second.
  static void work(CodecPolicy& policy, double gather, double code, double stored) {
    const uint64_t raw = 64u << 20;
    policy.on_gathered(raw, static_cast<double>(raw) / gather);
    policy.on_coded(raw, static_cast<uint64_t>(static_cast<double>(raw) * stored),
                    static_cast<double>(raw) / code);
  }
  // A GiB that the device took, at this rate; before the first one, another that its cache took.
  void device(CodecPolicy& policy, double rate, uint64_t waits = 0, double level = 0.7) {
    const uint64_t bytes = 1u << 30;
    if (use_.written_bytes == 0) {
      use_ = {.written_bytes = bytes, .busy_seconds = 0.01};
      policy.on_device(use_);
    }
    use_.written_bytes += bytes;
    use_.busy_seconds += static_cast<double>(bytes) / rate;
    use_.waits += waits;
    use_.queue_level = level;
    policy.on_device(use_);
  }

  TensorSpec spec_;
  std::vector<std::byte> numbers_;
  CodecContext context_;
  DeviceUse use_;
};

constexpr double kGB = 1e9;

TEST_F(SaveCodecTest, CodesUntilTheRatesAreKnown) {
  CodecPolicy policy({});
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
  EXPECT_EQ(choose(policy).reason, CodecReason::kDevicePaces);
  device(policy, 100 * kGB, 0, 0);  // what coding costs is not known
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
}

TEST_F(SaveCodecTest, CodesWhileThatIsFasterThanTheRawDevice) {
  CodecPolicy policy({});
  work(policy, 10 * kGB, 10 * kGB, 0.7);  // 5 GB/s of raw bytes
  device(policy, 4 * kGB);
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
  // The queue is empty each time, but raw bytes would not go much faster either.
  device(policy, 5 * kGB, 0, 0);
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
}

TEST_F(SaveCodecTest, WhatACacheTakesAtFirstSaysNothing) {
  CodecPolicy policy({});
  work(policy, 10 * kGB, 10 * kGB, 0.7);
  for (uint64_t step = 1; step <= 1024; ++step) {
    policy.on_device({.written_bytes = step << 20,
                      .busy_seconds = static_cast<double>(step << 20) / (20 * kGB)});
    ASSERT_EQ(choose(policy).codec, CodecId::kBitPlanes) << step;
  }
  CodecPolicy one_of_four({.workers = 4});
  work(one_of_four, 10 * kGB, 10 * kGB, 0.7);
  for (uint64_t step = 1; step <= 768; ++step) {
    one_of_four.on_device({.written_bytes = step << 20,
                           .busy_seconds = static_cast<double>(step << 20) / (20 * kGB)});
  }
  EXPECT_EQ(choose(one_of_four).codec, CodecId::kRaw) << "the cache took 256 MiB of its bytes";
}

TEST_F(SaveCodecTest, ADeviceFasterThanTheCodecGetsRawBytes) {
  CodecPolicy policy({});
  work(policy, 10 * kGB, 10 * kGB, 0.7);
  device(policy, 20 * kGB, 0, 0);
  EXPECT_EQ(choose(policy).codec, CodecId::kRaw);
  EXPECT_EQ(choose(policy).reason, CodecReason::kDeviceIdles);
  EXPECT_FALSE(policy.may_code());
  EXPECT_GT(policy.raw_in_a_row(spec_), 64u);
  // Now and then a piece is coded, or it would never be known that coding got faster.
  int coded = 0;
  for (int i = 0; i < 1000; ++i) coded += choose(policy).codec == CodecId::kRaw ? 0 : 1;
  EXPECT_GT(coded, 3);
  EXPECT_LT(coded, 20);
  for (int i = 0; i < 20; ++i) device(policy, 4 * kGB);  // its rate is that of the last bytes
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
}

TEST_F(SaveCodecTest, NearlyEquallyFastChangesNothing) {
  CodecPolicy coding({}), idle({});
  work(coding, 10 * kGB, 10 * kGB, 0.7);
  device(coding, 5.3 * kGB);
  EXPECT_EQ(choose(coding).codec, CodecId::kBitPlanes);
  use_ = {};
  work(idle, 10 * kGB, 10 * kGB, 0.7);
  device(idle, 20 * kGB);
  for (int i = 0; i < 30; ++i) device(idle, 5.2 * kGB);
  EXPECT_EQ(choose(idle).codec, CodecId::kRaw);
}

TEST_F(SaveCodecTest, AFullQueueLeavesTimeForTheSmallerForm) {
  CodecPolicy policy({});
  work(policy, 10 * kGB, 10 * kGB, 0.7);
  device(policy, 4 * kGB, 1, 1.0);
  EXPECT_EQ(choose(policy).codec, CodecId::kEntropyPlanes);
  EXPECT_EQ(choose(policy).reason, CodecReason::kDeviceBusy);
  device(policy, 4 * kGB, 0, 0.6);  // until it is half empty
  EXPECT_EQ(choose(policy).codec, CodecId::kEntropyPlanes);
  device(policy, 4 * kGB, 0, 0.4);
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
  device(policy, 4 * kGB, 0, 0.6);
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
}

TEST_F(SaveCodecTest, ASmallerFormMustBeWorthItsTime) {
  // Fifteen exponents, evenly spread: four planes take hardly more than entropy codes.
  auto even = numbers_;
  for (size_t at = 0; at < even.size(); at += 2) {
    const size_t exponent = 100 + at / 2 % 15;
    even[at] = (even[at] & std::byte{0x7f}) | static_cast<std::byte>(exponent << 7);
    even[at + 1] = static_cast<std::byte>(exponent >> 1);
  }
  CodecPolicy policy({});
  device(policy, 4 * kGB, 1, 1.0);
  EXPECT_EQ(choose(policy, even).codec, CodecId::kBitPlanes);
  EXPECT_EQ(choose(policy).codec, CodecId::kEntropyPlanes);
}

TEST_F(SaveCodecTest, NoGainIsRawWhateverTheDeviceDoes) {
  CodecPolicy policy({});
  const auto noise = testing::random_bytes(1 << 20, 2);
  for (const uint64_t waits : {1, 0}) {
    device(policy, 4 * kGB, waits, 0);
    EXPECT_EQ(choose(policy, noise).codec, CodecId::kRaw);
    EXPECT_EQ(choose(policy, noise).reason, CodecReason::kLook);
  }
}

TEST_F(SaveCodecTest, WhatLooksLikeNoiseIsNotLookedAtEachTime) {
  CodecPolicy policy({});
  const auto noise = testing::random_bytes(1 << 20, 2);
  EXPECT_EQ(policy.raw_in_a_row(spec_), 0u);
  EXPECT_FALSE(policy.choose(spec_, context_, {}));
  EXPECT_EQ(choose(policy, noise).codec, CodecId::kRaw);
  const uint64_t unseen = policy.raw_in_a_row(spec_);
  EXPECT_GT(unseen, 0u);
  for (uint64_t i = 0; i < unseen; ++i) {
    const auto choice = policy.choose(spec_, context_, {});
    ASSERT_TRUE(choice);
    EXPECT_EQ(choice->codec, CodecId::kRaw);
  }
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);  // looked at again
  EXPECT_EQ(choose(policy, noise).codec, CodecId::kRaw);
  const TensorSpec other = spec_;
  EXPECT_FALSE(policy.choose(other, context_, {}));
}

TEST_F(SaveCodecTest, ByTheBytesAloneWhenDeterministic) {
  CodecPolicy policy({.deterministic = true});
  const auto noise = testing::random_bytes(1 << 20, 2);
  work(policy, 10 * kGB, 10 * kGB, 0.7);
  for (const double rate : {100.0, 1.0}) {
    device(policy, rate * kGB, 1, 1.0);
    EXPECT_EQ(choose(policy, noise).codec, CodecId::kRaw);
    EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
  }
}

TEST_F(SaveCodecTest, ProcessorTimeIsBounded) {
  CodecPolicy quarter({.cpu = 0.25});
  EXPECT_EQ(choose(quarter).codec, CodecId::kBitPlanes);
  quarter.on_cpu(0.2, 1.0);
  EXPECT_EQ(choose(quarter).codec, CodecId::kBitPlanes);
  quarter.on_cpu(0.1, 1.1);
  EXPECT_EQ(choose(quarter).codec, CodecId::kRaw);
  EXPECT_EQ(choose(quarter).reason, CodecReason::kCpuSpent);
  quarter.on_cpu(0, 1.3);
  EXPECT_EQ(choose(quarter).codec, CodecId::kBitPlanes);

  CodecPolicy none({.cpu = 0});
  EXPECT_EQ(none.choose(spec_, context_, {})->codec, CodecId::kRaw);  // without a look
}

TEST_F(SaveCodecTest, ACodecThatIsNamedIsTaken) {
  for (const char* name : {"raw", "zstd", "planes", "entropy", "sparse"}) {
    ASSERT_TRUE(check_codec_policy(name).ok());
    CodecPolicy policy({.codec = name, .cpu = 0});
    const auto choice = policy.choose(spec_, context_, {});
    ASSERT_TRUE(choice);
    EXPECT_EQ(find_codec(static_cast<uint8_t>(choice->codec)).value()->name(), name);
    EXPECT_EQ(choice->reason, CodecReason::kAsked);
  }
  for (const char* name : {"twin", "delta", "lzma", ""}) {
    EXPECT_EQ(check_codec_policy(name).code(), StatusCode::kInvalidArgument) << name;
  }
}

TEST_F(SaveCodecTest, ATallyAddsUpByCodecAndReason) {
  CodecTally one, two;
  one.add({CodecId::kBitPlanes, CodecReason::kDevicePaces}, 100, 70);
  two.add({CodecId::kBitPlanes, CodecReason::kDevicePaces}, 50, 30);
  two.add({CodecId::kRaw, CodecReason::kLook}, 10, 10);
  one.add(two);
  const std::vector<CodecUse> uses = one.uses();
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses[0].codec, "raw");
  EXPECT_EQ(uses[1].codec, "planes");
  EXPECT_EQ(uses[1].reason, "device paces");
  EXPECT_EQ(uses[1].chunks, 2u);
  EXPECT_EQ(uses[1].raw_bytes, 150u);
  EXPECT_EQ(uses[1].stored_bytes, 100u);
}

}  // namespace
}  // namespace caisson

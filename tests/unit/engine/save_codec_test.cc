// Which codec a piece gets, by what the worker met at the device and by what time it may spend.
#include "engine/save_codec.h"

#include <gtest/gtest.h>

#include "tests/support/test_tensors.h"

namespace caisson {
namespace {

class SaveCodecTest : public ::testing::Test {
 protected:
  SaveCodecTest() : numbers_(testing::random_bytes(1 << 20, 1)) {
    record_.spec = {"weight", testing::kBf16, testing::shape_of({1024, 512})};
    for (size_t at = 1; at < numbers_.size(); at += 2) {
      numbers_[at] = (numbers_[at] & std::byte{0x81}) | std::byte{0x3c};
    }
  }
  CodecChoice choose(CodecPolicy& policy, const std::vector<std::byte>& raw) {
    return policy.choose(record_, context_, raw).value();
  }
  CodecChoice choose(CodecPolicy& policy) { return choose(policy, numbers_); }
  static void buffers(CodecPolicy& policy, int count, bool waited) {
    for (int i = 0; i < count; ++i) policy.on_buffer(waited);
  }

  TensorRecord record_;
  std::vector<std::byte> numbers_;
  CodecContext context_;
};

TEST_F(SaveCodecTest, WhoWaitsDecidesHowMuchIsCoded) {
  CodecPolicy policy({});
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
  EXPECT_EQ(choose(policy).reason, CodecReason::kDevicePaces);
  buffers(policy, 5, true);
  EXPECT_EQ(choose(policy).codec, CodecId::kEntropyPlanes);
  EXPECT_EQ(choose(policy).reason, CodecReason::kDeviceBusy);
  buffers(policy, 1, false);
  EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
  buffers(policy, 40, false);
  EXPECT_EQ(choose(policy).codec, CodecId::kRaw);
  EXPECT_EQ(choose(policy).reason, CodecReason::kDeviceIdles);
  buffers(policy, 1, true);  // one wait, and it is not idle any more
  EXPECT_EQ(choose(policy).codec, CodecId::kEntropyPlanes);
}

TEST_F(SaveCodecTest, NoGainIsRawWhateverTheDeviceDoes) {
  CodecPolicy policy({});
  const auto noise = testing::random_bytes(1 << 20, 2);
  for (const bool waited : {true, false}) {
    policy.on_buffer(waited);
    EXPECT_EQ(choose(policy, noise).codec, CodecId::kRaw);
    EXPECT_EQ(choose(policy, noise).reason, CodecReason::kLook);
  }
}

TEST_F(SaveCodecTest, ByTheBytesAloneWhenDeterministic) {
  CodecPolicy policy({.deterministic = true});
  for (const bool waited : {true, false}) {
    buffers(policy, 100, waited);
    EXPECT_EQ(choose(policy).codec, CodecId::kBitPlanes);
  }
}

TEST_F(SaveCodecTest, ProcessorTimeIsBounded) {
  CodecPolicy quarter({.cpu = 0.25});
  EXPECT_EQ(choose(quarter).codec, CodecId::kBitPlanes);
  quarter.on_coded(0.2, 1.0);
  EXPECT_EQ(choose(quarter).codec, CodecId::kBitPlanes);
  quarter.on_coded(0.1, 1.1);
  EXPECT_EQ(choose(quarter).codec, CodecId::kRaw);
  EXPECT_EQ(choose(quarter).reason, CodecReason::kCpuSpent);
  quarter.on_coded(0, 1.3);
  EXPECT_EQ(choose(quarter).codec, CodecId::kBitPlanes);

  CodecPolicy none({.cpu = 0});
  EXPECT_EQ(none.choose(record_, context_, {})->codec, CodecId::kRaw);  // without a look
}

TEST_F(SaveCodecTest, ACodecThatIsNamedIsTaken) {
  for (const char* name : {"raw", "zstd", "planes", "entropy"}) {
    ASSERT_TRUE(check_codec_policy(name).ok());
    CodecPolicy policy({.codec = name, .cpu = 0});
    const auto choice = policy.choose(record_, context_, {});
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

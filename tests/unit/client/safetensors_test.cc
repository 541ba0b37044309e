// Tests of client/safetensors.h: what the format forbids is refused by name and place, and headers
// come out as the library writes them. The library itself is the judge in
// tests/integration/cli_files_test.py.
#include "client/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace caisson::safetensors {
namespace {

using ::testing::HasSubstr;

Result<Header> parse(const std::string& json, uint64_t data_bytes) {
  return parse_header(as_bytes(json), kPrefixBytes + json.size() + data_bytes, "x.safetensors");
}

TEST(Safetensors, ReadsWhatIsRight) {
  const auto header = parse(
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,2],"data_offsets":[2,18]},)"
      R"("a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}   )",
      18);
  ASSERT_TRUE(header.ok()) << header.status().to_string();
  ASSERT_EQ(header->tensors.size(), 2u);
  EXPECT_EQ(header->tensors[0].spec.name, "a");
  EXPECT_EQ(header->tensors[0].spec.shape.rank, 0);
  EXPECT_EQ(header->tensors[1].begin, 2u);
  EXPECT_EQ(header->metadata, (Metadata{{"format", "pt"}}));
}

TEST(Safetensors, TakesWhatTheLibraryTakes) {
  EXPECT_TRUE(parse("{}", 0).ok());
  EXPECT_TRUE(parse("  {} ", 0).ok());  // white space first: the library reads it
  EXPECT_TRUE(parse(R"({"a":{"dtype":"F32","shape":[0,7],"data_offsets":[0,0]}})", 0).ok());
  EXPECT_TRUE(parse(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}})", 1).ok());
  EXPECT_TRUE(parse(R"({"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}})", 3).ok());
  // Unknown fields are skipped, however deep.
  EXPECT_TRUE(parse(R"({"a":{"x":[[{"y":1}],null,-1.5],"dtype":"U8","z":{},"shape":[1],)"
                    R"("data_offsets":[0,1]}})",
                    1)
                  .ok());
  // Zero-size tensors may share a place.
  EXPECT_TRUE(parse(R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                    R"("b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                    R"("c":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                    1)
                  .ok());
}

struct Hostile {
  const char* json;
  uint64_t data_bytes;
  const char* says;
  StatusCode code = StatusCode::kCorruption;
};

class SafetensorsHostile : public ::testing::TestWithParam<Hostile> {};

TEST_P(SafetensorsHostile, IsRefused) {
  const Hostile& hostile = GetParam();
  const auto header = parse(hostile.json, hostile.data_bytes);
  ASSERT_FALSE(header.ok()) << hostile.json;
  EXPECT_EQ(header.status().code(), hostile.code) << header.status().to_string();
  EXPECT_THAT(std::string(header.status().message()), HasSubstr(hostile.says));
  EXPECT_THAT(std::string(header.status().message()), HasSubstr("x.safetensors"));
}

INSTANTIATE_TEST_SUITE_P(
    Table, SafetensorsHostile,
    ::testing::Values(
        Hostile{"", 0, "does not start with"}, Hostile{"[]", 0, "does not start with"},
        Hostile{"\xef\xbb\xbf{}", 0, "does not start with"}, Hostile{"{", 0, "not JSON"},
        Hostile{"{}x", 0, "not JSON"}, Hostile{"{} {}", 0, "not JSON"},
        Hostile{"{\"a\":\"\xff\"}", 0, "not JSON"}, Hostile{"{\"\\ud800\":{}}", 0, "not JSON"},
        Hostile{R"({"a":1})", 0, "a number"}, Hostile{R"({"a":null})", 0, "null"},
        Hostile{R"({"a":[]})", 0, "an array"}, Hostile{R"({"a":{}})", 0, "has no \"dtype\""},
        Hostile{R"({"a":{"dtype":"U8","shape":[1]}})", 1, "has no \"data_offsets\""},
        Hostile{R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1,
                "\"dtype\" twice"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                R"("a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                2, "appears twice"},
        Hostile{R"({"__metadata__":{"k":"1","k":"2"}})", 0, "\"k\" twice"},
        Hostile{R"({"__metadata__":{"k":1}})", 0, "a number"},
        Hostile{R"({"__metadata__":{"k":{}}})", 0, "an object"},
        Hostile{R"({"__metadata__":"k"})", 0, "a string"},
        Hostile{R"({"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}})", 1, "a number"},
        Hostile{R"({"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}})", 1, "negative"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}})", 1, "no integer"},
        Hostile{R"({"a":{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}})", 1,
                "no integer"},
        Hostile{R"({"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}})", 1, "a string"},
        Hostile{R"({"a":{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}})", 1, "an array"},
        Hostile{R"({"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}})", 1, "a number"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0]}})", 1, "1 numbers, not 2"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,2]}})", 1,
                "3 numbers, not 2"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,0]}})", 1, "leave"},
        Hostile{R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 1, "leave"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,0]}})", 1,
                "leave"},
        Hostile{R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "takes 8 bytes"},
        Hostile{R"({"a":{"dtype":"F64","shape":[4294967296,4294967296,2],"data_offsets":[0,0]}})",
                0, "overflows"},
        Hostile{R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0,
                "tensor \"a\""},
        Hostile{R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1, "whole number"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})", 2, "begins at"},
        Hostile{R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                3, "begins at"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})",
                3, "begins at"},
        Hostile{R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 2, "cut or extended"},
        Hostile{"{}", 1, "cut or extended"},
        Hostile{R"({"a":{"dtype":"Q9","shape":[1],"data_offsets":[0,1]}})", 1, "unknown",
                StatusCode::kUnsupported},
        Hostile{R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1,
                "9 dimensions", StatusCode::kUnsupported},
        Hostile{R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "1 to 4096 bytes",
                StatusCode::kUnsupported},
        Hostile{R"({"a\u0000b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1, "NUL",
                StatusCode::kUnsupported}));

TEST(Safetensors, NestingCostsNothing) {
  std::string json = R"({"a":{"x":)";
  json += std::string(1 << 20, '[');
  EXPECT_EQ(parse(json, 0).status().code(), StatusCode::kCorruption);
}

TEST(Safetensors, PrefixIsChecked) {
  const auto length = [](uint64_t claimed, uint64_t file_bytes) {
    std::array<std::byte, 8> prefix{};
    store_le(prefix.data(), claimed);
    return header_bytes(prefix, file_bytes, "x");
  };
  EXPECT_EQ(*length(2, 10), 2u);
  EXPECT_EQ(length(3, 10).status().code(), StatusCode::kCorruption);
  EXPECT_EQ(length(UINT64_MAX, 10).status().code(), StatusCode::kCorruption);
  EXPECT_EQ(length(kHeaderBytesMax + 1, uint64_t{1} << 40).status().code(),
            StatusCode::kCorruption);
  EXPECT_EQ(header_bytes({}, 0, "x").status().code(), StatusCode::kCorruption);
}

TensorSpec spec(const char* name, const char* dtype, std::vector<uint64_t> shape) {
  return {.name = name, .dtype = dtype_from_name(dtype).value(), .shape = Shape::of(shape)};
}

TEST(Safetensors, WritesAsTheLibraryDoes) {
  std::vector<TensorSpec> specs = {spec("b", "BOOL", {1}), spec("a", "F32", {1}),
                                   spec("c", "U64", {1}), spec("B", "F32", {1})};
  ASSERT_TRUE(sort_as_library(specs).ok());
  std::vector<Entry> entries;
  const auto header = encode_header(specs, {{"k", "\"\\\n\x01/\xc3\xa9"}}, &entries);
  ASSERT_TRUE(header.ok());
  std::string json = R"({"__metadata__":{"k":"\"\\\n\u0001/)"
                     "\xc3\xa9"
                     R"("},"c":{"dtype":"U64","shape":[1],"data_offsets":[0,8]},)"
                     R"("B":{"dtype":"F32","shape":[1],"data_offsets":[8,12]},)"
                     R"("a":{"dtype":"F32","shape":[1],"data_offsets":[12,16]},)"
                     R"("b":{"dtype":"BOOL","shape":[1],"data_offsets":[16,17]}})";
  json.resize((json.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(header->substr(kPrefixBytes), json);
  const auto read = parse(json, 17);
  ASSERT_TRUE(read.ok()) << read.status().to_string();
  EXPECT_EQ(read->tensors, entries);
}

TEST(Safetensors, HeaderAloneSaysWhereDataEnds) {
  const std::string json = R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]}})";
  const auto header = parse_header(as_bytes(json), kFileBytesUnknown, "x");
  ASSERT_TRUE(header.ok()) << header.status().to_string();
  EXPECT_EQ(header->tensors[0].end, 5u);
  EXPECT_TRUE(parse_header(as_bytes("{}"), kFileBytesUnknown, "x").ok());
}

}  // namespace
}  // namespace caisson::safetensors

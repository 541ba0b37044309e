// Tests of client/import.h: what ranks take covers every tensor exactly once, and never cuts a
// tile.
#include "client/import.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "engine/tiling.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;

TEST(DivideRows, CoversAllRowsBetweenTiles) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 2000; ++round) {
    TensorSpec spec{.name = "t", .dtype = {DTypeCode::kFloat, 32}, .shape = {}};
    spec.shape.rank = static_cast<int>(random() % 4);
    for (int dim = 0; dim < spec.shape.rank; ++dim) spec.shape.dims[dim] = 1 + random() % 3000;
    const uint64_t bytes = packed_bytes(element_count(spec.shape).value(), spec.dtype).value();
    std::vector<uint64_t> loads(1 + random() % 9, 0);
    const uint64_t extent = spec.shape.rank == 0 ? 1 : spec.shape.dims[0];
    const uint64_t edge = spec.shape.rank == 0 ? 1 : choose_tile(spec.shape, spec.dtype).dims[0];
    uint64_t at = 0;
    for (const RowRange& rows : divide_rows(spec, bytes, loads)) {
      if (rows.begin == rows.end) continue;
      ASSERT_EQ(rows.begin, at) << "round " << round;
      ASSERT_EQ(rows.begin % edge, 0u) << "round " << round;
      at = rows.end;
    }
    ASSERT_EQ(at, extent) << "round " << round;
  }
}

class ImportPlanTest : public ::testing::Test {
 protected:
  ImportPlanTest() {
    std::string pattern = (fs::temp_directory_path() / "import-XXXXXX").string();
    directory_ = ::mkdtemp(pattern.data());
  }
  ~ImportPlanTest() override { fs::remove_all(directory_); }

  std::string write(const std::string& name, const std::string& bytes) const {
    const fs::path path = directory_ / name;
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }
  std::string write_tensors(const std::string& file, const std::vector<std::string>& names) const {
    std::vector<TensorSpec> specs;
    for (const std::string& name : names) {
      specs.push_back({.name = name,
                       .dtype = {DTypeCode::kUInt, 8},
                       .shape = Shape::of(std::vector<uint64_t>{3})});
    }
    std::vector<safetensors::Entry> entries;
    return write(file, safetensors::encode_header(specs, {}, &entries).value() +
                           std::string(3 * names.size(), 'x'));
  }
  static Result<ImportPlan> plan(const std::vector<std::string>& sources) {
    return ImportPlan::make(sources);
  }

  fs::path directory_;
};

TEST_F(ImportPlanTest, DirectoryWithIndex) {
  write_tensors("model-1.safetensors", {"a", "b"});
  write_tensors("model-2.safetensors", {"c"});
  write("model.safetensors.index.json",
        R"({"weight_map":{"a":"model-1.safetensors","c":"model-2.safetensors"}})");
  write("sub/config.json", "{}");
  const auto made = plan({directory_.string()});
  ASSERT_TRUE(made.ok()) << made.status().to_string();
  EXPECT_EQ(made->tensors(), 3u);
  std::map<std::string, int> seen;
  for (uint32_t rank = 0; rank < 2; ++rank) {
    const ImportSlice slice = made->slice(rank, 2);
    for (const TensorShard& shard : slice.tensors) ++seen[shard.tensor.name];
    for (const BlobView& blob : slice.blobs) ++seen[blob.name];
  }
  EXPECT_EQ(seen, (std::map<std::string, int>{{"a", 1},
                                              {"b", 1},
                                              {"c", 1},
                                              {"files/model.safetensors.index.json", 1},
                                              {"files/sub/config.json", 1},
                                              {"safetensors/model-1.safetensors/header", 1},
                                              {"safetensors/model-2.safetensors/header", 1}}));
}

TEST_F(ImportPlanTest, IndexThatListsMissingFile) {
  write_tensors("model-1.safetensors", {"a"});
  write("model.safetensors.index.json",
        R"({"weight_map":{"a":"model-1.safetensors","c":"model-2.safetensors"}})");
  EXPECT_EQ(plan({directory_.string()}).status().code(), StatusCode::kNotFound);
}

TEST_F(ImportPlanTest, IndexThatNamesTheWrongFile) {
  write_tensors("model-1.safetensors", {"a"});
  write_tensors("model-2.safetensors", {"b"});
  write("model.safetensors.index.json", R"({"weight_map":{"a":"model-2.safetensors"}})");
  EXPECT_EQ(plan({directory_.string()}).status().code(), StatusCode::kCorruption);
}

TEST_F(ImportPlanTest, IndexThatIsNone) {
  write_tensors("model-1.safetensors", {"a"});
  const std::string path = directory_.string();
  for (const char* json : {"", "[]", "{}", R"({"weight_map":1})", R"({"weight_map":{"a":1}})"}) {
    write("model.safetensors.index.json", json);
    EXPECT_EQ(plan({path}).status().code(), StatusCode::kCorruption) << json;
  }
}

TEST_F(ImportPlanTest, SameTensorTwice) {
  write_tensors("1.safetensors", {"a"});
  write_tensors("2.safetensors", {"a"});
  EXPECT_EQ(plan({directory_.string()}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ImportPlanTest, SameFileNameTwice) {
  const std::string one = write("1/x.bin", "1");
  const std::string two = write("2/x.bin", "2");
  EXPECT_EQ(plan({one, two}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(ImportPlanTest, NothingThere) {
  EXPECT_EQ(plan({(directory_ / "no").string()}).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(plan({directory_.string()}).status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace caisson

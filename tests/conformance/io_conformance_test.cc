// The suites on every file system that we have: POSIX with each engine on the disk, on tmpfs where
// O_DIRECT is pointless, and the simulated one.
#include <atomic>

#include "io/object_dir.h"
#include "io/object_spread.h"
#include "io/posix_file_system.h"
#include "tests/conformance/file_system_suite.h"
#include "tests/conformance/object_store_suite.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/temp_dir.h"

namespace caisson::testing {
namespace {

class PosixHost final : public FileSystemHost {
 public:
  PosixHost(const std::string& engine, const std::string& base) : directory_(base) {
    auto files = make_posix_file_system(engine);
    EXPECT_TRUE(files.ok()) << files.status().to_string();
    if (files.ok()) files_ = std::move(files).value();
  }
  FileSystem& files() override { return *files_; }
  std::string root() override { return directory_.path(); }

 private:
  TempDir directory_;
  std::unique_ptr<FileSystem> files_;
};

class SimHost final : public FileSystemHost {
 public:
  SimHost() { EXPECT_TRUE(files_.create_directory("/root").ok()); }
  FileSystem& files() override { return files_; }
  std::string root() override { return "/root"; }

 private:
  sim::SimFileSystem files_;
};

FileSystemCase posix_case(std::string name, std::string engine, std::string base = {}) {
  return {std::move(name), [engine = std::move(engine), base = std::move(base)] {
            return std::make_unique<PosixHost>(engine, base);
          }};
}

std::vector<FileSystemCase> all_file_systems() {
  std::vector<FileSystemCase> cases{posix_case("threads", "threads"),
                                    posix_case("buffered", "buffered"),
                                    posix_case("automatic_tmpfs", "auto", "/dev/shm"),
                                    {"simulated", [] { return std::make_unique<SimHost>(); }}};
  if (make_posix_file_system("io_uring").ok()) cases.push_back(posix_case("io_uring", "io_uring"));
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Io, FileSystemSuite, ::testing::ValuesIn(all_file_systems()), case_name);

// 1, 2, 3, ...
class CountingUuids final : public UuidSource {
 public:
  Uuid next() override {
    Uuid uuid;
    store_le(uuid.bytes.data(), next_.fetch_add(1));
    return uuid;
  }

 private:
  std::atomic<uint64_t> next_{1};
};

class DirHost final : public ObjectStoreHost {
 public:
  explicit DirHost(std::unique_ptr<FileSystemHost> host) : host_(std::move(host)) {}
  std::unique_ptr<ObjectStore> open() override {
    // The host owns the file system.
    const std::shared_ptr<FileSystem> files(std::shared_ptr<void>(), &host_->files());
    return make_object_dir(files, host_->root() + "/store", uuids_);
  }

 private:
  const std::unique_ptr<FileSystemHost> host_;
  CountingUuids uuids_;
};

// Keys alternate between three directories, as their bytes add up.
class SpreadHost final : public ObjectStoreHost {
 public:
  explicit SpreadHost(std::unique_ptr<FileSystemHost> host) : host_(std::move(host)) {}
  std::unique_ptr<ObjectStore> open() override {
    const std::shared_ptr<FileSystem> files(std::shared_ptr<void>(), &host_->files());
    std::vector<std::unique_ptr<ObjectStore>> stores;
    for (const char* name : {"/one", "/two", "/three"}) {
      stores.push_back(make_object_dir(files, host_->root() + name, uuids_));
    }
    return make_object_spread(std::move(stores), [](std::string_view key, uint32_t count) {
      uint32_t sum = 0;
      for (const char c : key) sum += static_cast<uint8_t>(c);
      return sum % count;
    });
  }

 private:
  const std::unique_ptr<FileSystemHost> host_;
  CountingUuids uuids_;
};

std::vector<ObjectStoreCase> all_object_stores() {
  std::vector<ObjectStoreCase> cases;
  for (const FileSystemCase& files : all_file_systems()) {
    cases.push_back({files.name, [files] { return std::make_unique<DirHost>(files.make()); }});
    cases.push_back(
        {"spread_" + files.name, [files] { return std::make_unique<SpreadHost>(files.make()); }});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Io, ObjectStoreSuite, ::testing::ValuesIn(all_object_stores()),
                         store_case_name);

}  // namespace
}  // namespace caisson::testing

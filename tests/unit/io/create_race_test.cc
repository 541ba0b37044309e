#include "io/create_race.h"

#include <gtest/gtest.h>

#include <mutex>

#include "io/object_dir.h"
#include "io/posix_file_system.h"
#include "tests/support/sim_file_system.h"
#include "tests/support/temp_dir.h"

namespace caisson {
namespace {

TEST(CreateRace, ADirectoryHasOneWinnerARound) {
  const testing::TempDir directory;
  const auto open = [&]() -> Result<std::unique_ptr<ObjectStore>> {
    return make_object_dir(make_posix_file_system().value(), directory.path(), system_uuids());
  };
  const auto report =
      race_creates(open, system_uuids(), {.threads = 2, .processes = 2, .rounds = 20});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_EQ(report->racers, 4u);
  EXPECT_EQ(report->rounds, 20u);
  EXPECT_TRUE(report->atomic()) << report->violations.front();
  EXPECT_TRUE(report->violations.empty());
  int left = 0;
  ASSERT_TRUE(
      open().value()->list("", [&](const ObjectInfo&) { return ++left, ok_status(); }).ok());
  EXPECT_EQ(left, 0);
}

TEST(CreateRace, FindsATargetWhereLinksReplace) {
  const auto files = std::make_shared<sim::SimFileSystem>(sim::SimOptions{.link_replaces = true});
  const auto open = [&]() -> Result<std::unique_ptr<ObjectStore>> {
    return make_object_dir(files, "/store", system_uuids());
  };
  const auto report =
      race_creates(open, system_uuids(), {.threads = 3, .processes = 0, .rounds = 10});
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  EXPECT_FALSE(report->atomic());
  EXPECT_EQ(report->rounds_with_one_winner, 0u);
  EXPECT_EQ(report->violations.size(), 8u);
  EXPECT_NE(report->violations.front().find("3 winners"), std::string::npos);
}

TEST(CreateRace, EndsWhenARacerCannotOpen) {
  std::mutex mutex;
  int opened = 0;
  const auto files = std::make_shared<sim::SimFileSystem>();
  const auto open = [&]() -> Result<std::unique_ptr<ObjectStore>> {
    const std::lock_guard lock(mutex);
    if (++opened == 3) return io_error("no more");
    return make_object_dir(files, "/store", system_uuids());
  };
  const auto report =
      race_creates(open, system_uuids(), {.threads = 3, .processes = 0, .rounds = 5});
  ASSERT_TRUE(report.ok());
  EXPECT_FALSE(report->atomic());
}

TEST(CreateRace, RefusesARaceWithoutRacers) {
  const auto open = []() -> Result<std::unique_ptr<ObjectStore>> { return io_error("unused"); };
  EXPECT_EQ(race_creates(open, system_uuids(), {.threads = 0, .processes = 0}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(race_creates(open, system_uuids()).status().code(), StatusCode::kIoError);
}

}  // namespace
}  // namespace caisson

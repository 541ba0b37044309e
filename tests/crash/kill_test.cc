// Real processes on the real file system, killed with SIGKILL at random moments while they save in
// a loop. The parent holds the list of what was acknowledged, through a pipe, and after every kill
// opens the store and restores it. Rounds alternate between one process that saves and four ranks
// of one save of which one is killed. The seed is printed; CAISSON_SEED sets it, CAISSON_SOAK=1
// runs twenty times as many rounds.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <random>
#include <set>

#include "io/base/check.h"
#include "tests/crash/content.h"

namespace caisson::crash {
namespace {

constexpr uint32_t kRanks = 4;
constexpr uint32_t kKeep = 6;  // checkpoints that stay in the store between rounds

std::string name_of(uint32_t step) { return "run/" + std::to_string(step); }

StoreOptions store_options() {
  StoreOptions options;
  options.memory_bytes_max = 24 << 20;
  return options;
}

std::unique_ptr<Store> open_store_at(const std::string& path) {
  Result<std::unique_ptr<Store>> store = Store::open(path, store_options());
  if (!store.ok()) {
    ADD_FAILURE() << "open: " << store.status().to_string();
    return nullptr;
  }
  return std::move(store).value();
}

void sleep_us(uint64_t us) {
  const timespec time{static_cast<time_t>(us / 1'000'000),
                      static_cast<long>(us % 1'000'000 * 1000)};
  ::nanosleep(&time, nullptr);
}

struct Pipe {
  int ends[2] = {-1, -1};
  Pipe() { CAISSON_CHECK(::pipe2(ends, O_CLOEXEC) == 0); }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_end(int i) {
    if (ends[i] >= 0) ::close(ends[i]);
    ends[i] = -1;
  }
  // Blocks until `lines` have been said, or all writers are gone.
  void await(uint64_t lines) {
    close_end(1);
    while (static_cast<uint64_t>(std::count(said.begin(), said.end(), '\n')) < lines && more()) {
    }
  }
  // All that the writers said before they died.
  const std::string& drain() {
    close_end(1);
    while (more()) {
    }
    return said;
  }

 private:
  bool more() {
    char some[4096];
    const ssize_t got = ::read(ends[0], some, sizeof some);
    if (got > 0) said.append(some, static_cast<size_t>(got));
    return got > 0;
  }
  std::string said;
};

void write_all(int fd, std::string_view text) {
  // Short enough for one write, which a pipe does not tear.
  CAISSON_CHECK(::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

class KillTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* const seed = std::getenv("CAISSON_SEED");
    seed_ = seed != nullptr ? std::strtoull(seed, nullptr, 10) : std::random_device{}();
    std::printf("  CAISSON_SEED=%llu\n", static_cast<unsigned long long>(seed_));
    random_.seed(seed_);
    std::string pattern = (std::filesystem::temp_directory_path() / "caisson-kill-XXXXXX").string();
    CAISSON_CHECK(::mkdtemp(pattern.data()) != nullptr);
    directory_ = pattern;
    path_ = directory_ + "/store";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  // Saves steps from `step` on until it is killed; tells each acknowledgement.
  [[noreturn]] void save_for_ever(int acknowledged, uint32_t step) {
    auto store = Store::open(path_, store_options());
    if (!store.ok()) ::_exit(3);
    for (;; ++step) {
      const Content content(step);
      Result<PendingSave> pending = (*store)->save(name_of(step), content.input());
      if (!pending.ok() || !pending->wait().ok()) ::_exit(4);
      write_all(acknowledged, std::to_string(step) + "\n");
    }
  }
  [[noreturn]] void be_rank(int sealed, const std::string& ticket, uint32_t rank, uint32_t step) {
    auto store = Store::open(path_, store_options());
    if (!store.ok()) ::_exit(3);
    const Content content(step);
    const Content::Part part = content.part(rank, kRanks);
    auto joined = (*store)->join_save(ticket, rank);
    if (!joined.ok() || !(*joined)->put(part.input()).ok()) ::_exit(4);
    auto token = (*joined)->seal();
    if (!token.ok()) ::_exit(5);
    write_all(sealed, std::to_string(rank) + " " + token->token + "\n");
    ::_exit(0);
  }

  void one_process_round();
  void many_ranks_round();
  void check_store();

  uint64_t seed_ = 0;
  std::mt19937_64 random_;
  std::string directory_, path_;
  uint32_t next_step_ = 1;
  std::set<uint32_t> acknowledged_;  // and not given up since
  uint64_t saves_ = 0, kills_ = 0, interrupted_ = 0, committed_with_ranks_ = 0, refused_ = 0;
};

void KillTest::one_process_round() {
  Pipe pipe;
  const pid_t child = ::fork();
  CAISSON_CHECK(child >= 0);
  if (child == 0) save_for_ever(pipe.ends[1], next_step_);
  // At a moment that does not depend on how fast this machine is: after some saves, then anywhere
  // in the next.
  pipe.await(random_() % 3);
  sleep_us(random_() % 15'000);
  CAISSON_CHECK(::kill(child, SIGKILL) == 0);
  const std::string& said = pipe.drain();
  int status = 0;
  CAISSON_CHECK(::waitpid(child, &status, 0) == child);
  ASSERT_TRUE(WIFSIGNALED(status)) << "the saving process ended by itself: " << WEXITSTATUS(status);
  ++kills_;
  for (size_t at = 0; at < said.size(); at = said.find('\n', at) + 1) {
    acknowledged_.insert(next_step_++);
    ++saves_;
  }
  ++next_step_;  // the one that it was at, whole or absent
}

void KillTest::many_ranks_round() {
  auto store = open_store_at(path_);
  ASSERT_NE(store, nullptr);
  const uint32_t step = next_step_++;
  Result<std::string> ticket = store->begin_save(name_of(step));
  ASSERT_TRUE(ticket.ok()) << ticket.status().to_string();
  Pipe pipe;
  std::vector<pid_t> ranks;
  for (uint32_t rank = 0; rank < kRanks; ++rank) {
    const pid_t child = ::fork();
    CAISSON_CHECK(child >= 0);
    if (child == 0) be_rank(pipe.ends[1], *ticket, rank, step);
    ranks.push_back(child);
  }
  pipe.await(random_() % kRanks);
  sleep_us(random_() % 4'000);
  ::kill(ranks[random_() % kRanks], SIGKILL);
  ++kills_;
  const std::string& said = pipe.drain();
  for (const pid_t rank : ranks) {
    int status = 0;
    CAISSON_CHECK(::waitpid(rank, &status, 0) == rank);
    ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0) << WEXITSTATUS(status);
  }
  std::vector<SealedPart> parts;
  for (size_t at = 0; at < said.size();) {
    const size_t space = said.find(' ', at), end = said.find('\n', at);
    parts.push_back({said.substr(space + 1, end - space - 1)});
    at = end + 1;
  }
  const Result<SaveReport> report = store->commit_save(*ticket, kRanks, parts);
  if (parts.size() == kRanks) {
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    acknowledged_.insert(step);
    ++committed_with_ranks_;
    return;
  }
  ++refused_;
  ASSERT_EQ(report.status().code(), StatusCode::kInvalidArgument) << report.status().to_string();
  EXPECT_FALSE(store->join_save(*ticket, 0).ok()) << "a refused commit ends the save";
}

void KillTest::check_store() {
  auto store = open_store_at(path_);
  ASSERT_NE(store, nullptr);
  const Result<std::vector<CheckpointInfo>> list = store->checkpoints();
  ASSERT_TRUE(list.ok()) << list.status().to_string();
  std::set<uint32_t> listed;
  for (const CheckpointInfo& info : *list) {
    const auto step = static_cast<uint32_t>(info.step);
    listed.insert(step);
    EXPECT_EQ(verify_checkpoint(*store, info.name, {step}), "");
    if (!acknowledged_.contains(step)) ++interrupted_;
    acknowledged_.insert(step);  // it was seen, so it stays
  }
  for (const uint32_t step : acknowledged_) {
    EXPECT_TRUE(listed.contains(step)) << name_of(step) << ": acknowledged, but gone";
  }
  while (acknowledged_.size() > kKeep) {
    const uint32_t oldest = *acknowledged_.begin();
    const Status removed = store->remove(name_of(oldest));
    ASSERT_TRUE(removed.ok()) << removed.to_string();
    acknowledged_.erase(oldest);
  }
}

TEST_F(KillTest, AcknowledgedSavesSurviveKills) {
  const uint32_t rounds = std::getenv("CAISSON_SOAK") != nullptr ? 2400 : 120;
  for (uint32_t round = 0; round < rounds && !HasFailure(); ++round) {
    if (round % 3 == 2) {
      many_ranks_round();
    } else {
      one_process_round();
    }
    check_store();
  }
  std::printf(
      "kills: %llu rounds; %llu saves acknowledged and whole, %llu found committed at the kill; "
      "with %u ranks %llu committed, %llu refused for a killed rank\n",
      static_cast<unsigned long long>(kills_), static_cast<unsigned long long>(saves_),
      static_cast<unsigned long long>(interrupted_), kRanks,
      static_cast<unsigned long long>(committed_with_ranks_),
      static_cast<unsigned long long>(refused_));
}

}  // namespace
}  // namespace caisson::crash

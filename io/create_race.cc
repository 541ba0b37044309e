// All racers start each round together: they meet at a counter in memory that they share across
// the fork. A racer that cannot go on releases the others.
#include "io/create_race.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <new>
#include <thread>
#include <utility>

namespace caisson {

namespace {

constexpr uint8_t kNotRun = 0xff;
constexpr size_t kViolationsMax = 8;

// Anonymous memory that children share with us.
class SharedMemory {
 public:
  explicit SharedMemory(size_t bytes)
      : bytes_(bytes),
        data_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)) {}
  ~SharedMemory() {
    if (data_ != MAP_FAILED) ::munmap(data_, bytes_);
  }
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  void* data() const { return data_ == MAP_FAILED ? nullptr : data_; }

 private:
  const size_t bytes_;
  void* const data_;
};

struct Arena {
  std::atomic<uint64_t> arrived{0};
  std::atomic<bool> given_up{false};
  static_assert(std::atomic<uint64_t>::is_always_lock_free);
};

class Race {
 public:
  Race(const std::function<Result<std::unique_ptr<ObjectStore>>()>& open, std::string prefix,
       uint32_t racers, uint32_t rounds)
      : open_(open),
        prefix_(std::move(prefix)),
        racers_(racers),
        rounds_(rounds),
        memory_(sizeof(Arena) + size_t{racers} * rounds) {
    if (memory_.data() == nullptr) return;
    arena_ = new (memory_.data()) Arena;
    outcomes_ = reinterpret_cast<std::atomic<uint8_t>*>(arena_ + 1);
    for (size_t i = 0; i < size_t{racers} * rounds; ++i) new (&outcomes_[i]) std::atomic(kNotRun);
  }

  bool ready() const { return arena_ != nullptr; }
  void give_up() { arena_->given_up = true; }

  // One racer, in any thread or process.
  void run(uint32_t racer) {
    auto store = open_();
    if (!store.ok()) return give_up();
    for (uint32_t round = 0; round < rounds_; ++round) {
      ++arena_->arrived;
      while (arena_->arrived < uint64_t{racers_} * (round + 1)) {
        if (arena_->given_up) return;
        std::this_thread::yield();
      }
      const Status status = (*store)->put_new(key(round), as_bytes(bytes_of(racer)));
      outcomes_[round * racers_ + racer] = static_cast<uint8_t>(status.code());
    }
  }

  // After all have run.
  CreateRaceReport judge(ObjectStore& store) const {
    CreateRaceReport report;
    report.racers = racers_;
    report.rounds = rounds_;
    for (uint32_t round = 0; round < rounds_; ++round) {
      const std::string violation = judge_round(store, round);
      static_cast<void>(store.remove(key(round)));
      if (violation.empty()) {
        ++report.rounds_with_one_winner;
      } else if (report.violations.size() < kViolationsMax) {
        report.violations.push_back("round " + std::to_string(round) + ": " + violation);
      }
    }
    return report;
  }

 private:
  std::string key(uint32_t round) const { return prefix_ + std::to_string(round); }
  static std::string bytes_of(uint32_t racer) { return "racer " + std::to_string(racer); }

  std::string judge_round(ObjectStore& store, uint32_t round) const {
    std::string winners;
    std::string expected;
    uint32_t count = 0;
    for (uint32_t racer = 0; racer < racers_; ++racer) {
      const uint8_t outcome = outcomes_[round * racers_ + racer];
      if (outcome == kNotRun) return bytes_of(racer) + " did not run";
      const auto code = static_cast<StatusCode>(outcome);
      if (code == StatusCode::kAlreadyExists) continue;
      if (code != StatusCode::kOk) {
        return bytes_of(racer) + " failed: " + std::string(status_code_name(code));
      }
      ++count;
      expected = bytes_of(racer);
      winners += (winners.empty() ? "" : ", ") + expected;
    }
    if (count == 0) return "no winner";
    if (count > 1) return std::to_string(count) + " winners: " + winners;
    const auto found = store.get(key(round), 64);
    if (!found.ok()) return "the winner's object: " + found.status().to_string();
    if (as_text(*found) != expected) return "the winner's object holds another's bytes";
    return {};
  }

  const std::function<Result<std::unique_ptr<ObjectStore>>()>& open_;
  const std::string prefix_;
  const uint32_t racers_;
  const uint32_t rounds_;
  const SharedMemory memory_;
  Arena* arena_ = nullptr;
  std::atomic<uint8_t>* outcomes_ = nullptr;
};

// Racers [first, first + count) in child processes; the ids of those that could be started.
std::vector<pid_t> fork_racers(Race& race, uint32_t first, uint32_t count) {
  std::vector<pid_t> children;
  for (uint32_t i = 0; i < count; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      race.run(first + i);
      ::_exit(0);
    }
    if (child < 0) {
      race.give_up();
      break;
    }
    children.push_back(child);
  }
  return children;
}

void wait_for(Race& race, const std::vector<pid_t>& children) {
  for (const pid_t child : children) {
    int state = 0;
    pid_t waited = 0;
    do {
      waited = ::waitpid(child, &state, 0);
    } while (waited < 0 && errno == EINTR);
    if (waited != child || !WIFEXITED(state) || WEXITSTATUS(state) != 0) race.give_up();
  }
}

}  // namespace

Result<CreateRaceReport> race_creates(
    const std::function<Result<std::unique_ptr<ObjectStore>>()>& open, UuidSource& uuids,
    const CreateRaceOptions& options) {
  constexpr uint32_t kMax = 10'000;
  if (options.threads > kMax || options.processes > kMax || options.rounds > kMax ||
      options.threads + options.processes == 0) {
    return invalid_argument("a race needs from one to 10000 racers and rounds");
  }
  CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectStore> store, open());
  Race race(open, "race-" + to_hex(uuids.next()) + "-", options.threads + options.processes,
            options.rounds);
  if (!race.ready()) return errno_status(ENOMEM, "memory for the race");
  const auto children = fork_racers(race, options.threads, options.processes);
  {
    std::vector<std::jthread> threads;
    for (uint32_t i = 0; i < options.threads; ++i) {
      threads.emplace_back([&race, i] { race.run(i); });
    }
    wait_for(race, children);
  }
  return race.judge(*store);
}

}  // namespace caisson

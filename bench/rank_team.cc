#include "bench/rank_team.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

namespace caisson::bench {

namespace {

// Standard input and output become the pipes' ends; everything else closes on exec.
Result<int> spawn_program(int in, int out) {
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);  // this process waits for its signals with all of them blocked
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  std::string program = "caisson", verb = kRankVerb;
  std::array<char*, 3> arguments = {program.data(), verb.data(), nullptr};
  int pid = -1;
  const int error =
      ::posix_spawn(&pid, "/proc/self/exe", &actions, &attributes, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return errno_status(error, "bench: starting a rank process");
  return pid;
}

}  // namespace

Result<std::unique_ptr<RankTeam>> RankTeam::start(uint32_t ranks, std::stop_token stop) {
  std::unique_ptr<RankTeam> team(new RankTeam(std::move(stop)));
  for (uint32_t rank = 0; rank < ranks; ++rank) CAISSON_RETURN_IF_ERROR(team->spawn());
  return team;
}

Status RankTeam::spawn() {
  std::array<int, 2> requests{}, answers{};
  if (::pipe2(requests.data(), O_CLOEXEC) != 0) return errno_status(errno, "bench: pipe");
  if (::pipe2(answers.data(), O_CLOEXEC) != 0) {
    const int error = errno;
    for (const int fd : requests) ::close(fd);
    return errno_status(error, "bench: pipe");
  }
  const Result<int> pid = spawn_program(requests[0], answers[1]);
  ::close(requests[0]);
  ::close(answers[1]);
  children_.push_back(
      {.pid = pid.ok() ? *pid : -1, .in = requests[1], .out = answers[0], .read_ahead = {}});
  return pid.status();
}

RankTeam::~RankTeam() {
  for (const Child& child : children_) {
    ::close(child.in);
    ::close(child.out);
  }
  for (const Child& child : children_) {
    if (child.pid > 0 && stop_.stop_requested()) ::kill(child.pid, SIGTERM);
    while (child.pid > 0 && ::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
}

Result<std::vector<RankTeam::Json>> RankTeam::ask(Json request) {
  for (uint32_t rank = 0; rank < ranks(); ++rank) {
    request["rank"] = rank;
    const std::string line = request.dump() + "\n";
    std::string_view left = line;
    while (!left.empty()) {
      const ssize_t wrote = ::write(children_[rank].in, left.data(), left.size());
      if (wrote < 0 && errno == EINTR) continue;
      if (wrote < 0) return errno_status(errno, "bench: a rank process has ended");
      left.remove_prefix(static_cast<size_t>(wrote));
    }
  }
  std::vector<Json> answers;
  Status failure;
  for (Child& child : children_) {
    Result<Json> answer = answer_of(child);
    if (answer.ok()) {
      answers.push_back(std::move(answer).value());
    } else if (failure.ok()) {
      failure = answer.status().with_context("rank " + std::to_string(answers.size()));
    }
  }
  if (!failure.ok()) return failure;
  return answers;
}

Result<RankTeam::Json> RankTeam::answer_of(Child& child) {
  size_t end = std::string::npos;
  while ((end = child.read_ahead.find('\n')) == std::string::npos) {
    if (stop_.stop_requested()) return cancelled("interrupted");
    pollfd waiting{.fd = child.out, .events = POLLIN, .revents = 0};
    if (::poll(&waiting, 1, 100) <= 0) continue;
    std::array<char, 1 << 14> buffer;
    const ssize_t got = ::read(child.out, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return io_error("bench: a rank process ended without an answer");
    child.read_ahead.append(buffer.data(), static_cast<size_t>(got));
  }
  Json answer = Json::parse(child.read_ahead.substr(0, end), nullptr, false);
  child.read_ahead.erase(0, end + 1);
  if (!answer.is_object()) return io_error("bench: a rank process answered what is no answer");
  if (answer.contains("error")) return io_error(answer["error"].get<std::string>());
  return answer;
}

}  // namespace caisson::bench

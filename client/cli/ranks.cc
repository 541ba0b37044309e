// See ranks.h.
#include "client/cli/ranks.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <utility>

#include "client/cli/exit_code.h"

namespace caisson::cli {
namespace {

constexpr size_t kLineBytesMax = 64 << 20;  // of one answer
constexpr size_t kTaskBytesMax = 64 << 20;

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() { reset(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  void reset() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

 private:
  int fd_;
};

struct Child {
  pid_t pid = -1;
  Descriptor answers;
  std::string partial;  // of a line
  uint64_t done = 0;
  std::optional<Json> result;
  Status error;
};

// Both ends close on exec: the child gets its own through the spawn actions.
Result<std::array<Descriptor, 2>> make_pipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return errno_status(errno, "pipe");
  return std::array<Descriptor, 2>{Descriptor(ends[0]), Descriptor(ends[1])};
}

Status write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status(errno, "write to a pipe");
    text.remove_prefix(static_cast<size_t>(n));
  }
  return ok_status();
}

Result<Child> spawn(const std::string& verb, const Json& task) {
  CAISSON_ASSIGN_OR_RETURN(auto input, make_pipe());
  CAISSON_ASSIGN_OR_RETURN(auto output, make_pipe());
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, input[0].get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&actions, output[1].get(), STDOUT_FILENO);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);

  std::string program = "/proc/self/exe";
  std::string name = "caisson";
  std::string verb_copy = verb;
  std::array<char*, 3> arguments = {name.data(), verb_copy.data(), nullptr};
  Child child;
  const int error =
      ::posix_spawn(&child.pid, program.c_str(), &actions, &attributes, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (error != 0) return errno_status(error, "start " + program + " " + verb);
  child.answers = std::move(output[0]);
  // A child that died early is found out when its answers end.
  static_cast<void>(write_all(input[1].get(), task.dump()));
  return child;
}

Status error_of(const Json& error) {
  const bool readable = error.is_object() && error.contains("code") && error.contains("message") &&
                        error["code"].is_number_unsigned() && error["message"].is_string();
  if (!readable) return io_error("it failed and did not say why");
  const auto code = error["code"].get<uint64_t>();
  const bool known = code > 0 && code <= static_cast<uint64_t>(StatusCode::kUnsupported);
  return {known ? static_cast<StatusCode>(code) : StatusCode::kIoError,
          error["message"].get<std::string>()};
}

void take_line(Child& child, std::string_view line) {
  Json answer = Json::parse(line.begin(), line.end(), nullptr, false);
  if (answer.is_object() && answer.contains("progress") &&
      answer["progress"].is_number_unsigned()) {
    child.done = answer["progress"].get<uint64_t>();
  } else if (answer.is_object() && answer.contains("result")) {
    child.result = std::move(answer["result"]);
  } else if (answer.is_object() && answer.contains("error")) {
    child.error = error_of(answer["error"]);
  } else {
    child.error = io_error("it answered what is no answer");
  }
}

// Reads what is there; closes the descriptor at the end.
void take_answers(Child& child) {
  std::array<char, 1 << 16> buffer{};
  const ssize_t n = ::read(child.answers.get(), buffer.data(), buffer.size());
  if (n < 0 && errno == EINTR) return;
  if (n <= 0 || child.partial.size() > kLineBytesMax) {
    child.answers.reset();
    return;
  }
  child.partial.append(buffer.data(), static_cast<size_t>(n));
  size_t begin = 0;
  for (size_t end = child.partial.find('\n'); end != std::string::npos;
       end = child.partial.find('\n', begin)) {
    take_line(child, std::string_view(child.partial).substr(begin, end - begin));
    begin = end + 1;
  }
  child.partial.erase(0, begin);
}

// How the process ended, when it told no result itself.
Status end_of(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return io_error(fmt::format("it was ended by signal {}", WTERMSIG(wait_status)));
  }
  return io_error(
      fmt::format("it ended with exit code {} and no result", WEXITSTATUS(wait_status)));
}

void reap(Child& child) {
  int wait_status = 0;
  while (::waitpid(child.pid, &wait_status, 0) < 0 && errno == EINTR) {
  }
  child.pid = -1;
  if (!child.result && child.error.ok()) child.error = end_of(wait_status);
}

}  // namespace

Result<std::vector<Json>> run_ranks(const std::string& verb, std::span<const Json> tasks,
                                    uint64_t bytes_total, const ProgressFn& progress,
                                    const std::stop_token& stop) {
  std::vector<Child> children;
  Status failure;
  const auto end_all = [&children] {
    for (const Child& child : children) {
      if (child.pid > 0) ::kill(child.pid, SIGTERM);
    }
  };
  for (const Json& task : tasks) {
    auto child = spawn(verb, task);
    if (!child.ok()) {
      failure = child.status();
      break;
    }
    children.push_back(std::move(*child));
  }
  if (!failure.ok()) end_all();
  for (bool interrupted = false;;) {
    std::vector<pollfd> waiting;
    for (const Child& child : children) {
      if (child.pid > 0)
        waiting.push_back({.fd = child.answers.get(), .events = POLLIN, .revents = 0});
    }
    if (waiting.empty()) break;
    ::poll(waiting.data(), waiting.size(), 100);
    if (stop.stop_requested() && !std::exchange(interrupted, true)) end_all();
    Progress sum{.bytes_done = 0, .bytes_total = bytes_total};
    size_t next = 0;
    for (size_t rank = 0; rank < children.size(); ++rank) {
      Child& child = children[rank];
      if (child.pid > 0 && waiting[next++].revents != 0) {
        take_answers(child);
        if (child.answers.get() < 0) reap(child);
      }
      sum.bytes_done += child.done;
      if (!child.error.ok() && failure.ok()) {
        failure = child.error.with_context(fmt::format("rank {}", rank));
        end_all();
      }
    }
    if (progress) progress(sum);
  }
  if (stop.stop_requested()) return cancelled("interrupted");
  if (!failure.ok()) return failure;
  std::vector<Json> results;
  results.reserve(children.size());
  for (Child& child : children) results.push_back(std::move(*child.result));
  return results;
}

Result<Json> RankChild::take_task() {
  // If the parent is gone already, standard input has ended and there is no task.
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::string text;
  std::array<char, 1 << 16> buffer{};
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno_status(errno, "read the task");
    if (n == 0) break;
    text.append(buffer.data(), static_cast<size_t>(n));
    if (text.size() > kTaskBytesMax) return invalid_argument("the task is too long");
  }
  Json task = Json::parse(text, nullptr, false);
  if (!task.is_object()) {
    return invalid_argument("this verb is how caisson calls itself; use import or restore");
  }
  return task;
}

ProgressFn RankChild::progress() {
  return [](const Progress& now) {
    // Below PIPE_BUF, so lines of several threads never mix. A lost line costs only display.
    static_cast<void>(
        write_all(STDOUT_FILENO, fmt::format("{{\"progress\":{}}}\n", now.bytes_done)));
  };
}

int RankChild::finish(const Result<Json>& outcome) {
  Json answer;
  if (outcome.ok()) {
    answer["result"] = *outcome;
  } else {
    answer["error"]["code"] = static_cast<unsigned>(outcome.status().code());
    answer["error"]["message"] = std::string(outcome.status().message());
  }
  const std::string line = answer.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const Status told = write_all(STDOUT_FILENO, line);
  return outcome.ok() && told.ok() ? kExitOk : exit_code_of(outcome.status().code());
}

}  // namespace caisson::cli

// caisson doctor: what this machine and a directory can do for a store, and what to change. Writes
// one small file and a few empty ones in a directory of its own below DIR, and removes them.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/text.h"
#include "client/new_file.h"
#include "client/open_objects.h"
#include "io/create_race.h"
#include "io/object_dir.h"
#include "io/posix_file_system.h"

namespace caisson::cli {
namespace {

// good: as it should be; fair: it works, slower; bad: this target must not be used like this.
enum class Grade : uint8_t { kGood, kFair, kBad };

struct Finding {
  std::string check;  // stable name, for --json
  Grade grade = Grade::kGood;
  std::string found;
  std::string advice;  // empty when there is nothing to do
};

const char* word_of(Grade grade) {
  return grade == Grade::kGood ? "good" : grade == Grade::kFair ? "fair" : "bad";
}

std::string first_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

Finding check_kernel() {
  utsname name{};
  ::uname(&name);
  return {.check = "kernel",
          .grade = Grade::kGood,
          .found = fmt::format("{} {} on {}", name.sysname, name.release, name.machine),
          .advice = {}};
}

Finding check_io_uring() {
  const auto files = make_posix_file_system("io_uring");
  if (files.ok()) {
    return {.check = "io_uring", .grade = Grade::kGood, .found = "works", .advice = {}};
  }
  return {.check = "io_uring",
          .grade = Grade::kFair,
          .found = std::string(files.status().message()),
          .advice =
              "saves use threads instead; containers allow it with a seccomp profile that has "
              "io_uring_setup, and kernel.io_uring_disabled must be 0"};
}

Finding check_hugepages() {
  const std::string mode = first_line("/sys/kernel/mm/transparent_hugepage/enabled");
  const bool never = mode.empty() || mode.find("[never]") != std::string::npos;
  return {.check = "hugepages",
          .grade = never ? Grade::kFair : Grade::kGood,
          .found = mode.empty() ? "no transparent hugepages" : "transparent hugepages: " + mode,
          .advice = never
                        ? "set transparent_hugepage/enabled to madvise: staging buffers ask for it"
                        : ""};
}

Finding check_limit(const char* check, int resource, uint64_t wanted, const char* advice) {
  rlimit limit{};
  ::getrlimit(static_cast<__rlimit_resource>(resource), &limit);
  const bool enough = limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= wanted;
  const bool bytes = resource == RLIMIT_MEMLOCK;
  const std::string found = limit.rlim_cur == RLIM_INFINITY ? "unlimited"
                            : bytes                         ? human_bytes(limit.rlim_cur)
                                                            : std::to_string(limit.rlim_cur);
  return {.check = check,
          .grade = enough ? Grade::kGood : Grade::kFair,
          .found = found,
          .advice = enough ? "" : advice};
}

std::string file_system_name(uint64_t magic) {
  struct Known {
    uint64_t magic;
    const char* name;
  };
  static constexpr std::array<Known, 13> kKnown = {{{0xEF53, "ext4"},
                                                    {0x58465342, "xfs"},
                                                    {0x9123683E, "btrfs"},
                                                    {0x2FC12FC1, "zfs"},
                                                    {0x01021994, "tmpfs"},
                                                    {0x794C7630, "overlayfs"},
                                                    {0x6969, "nfs"},
                                                    {0x0BD00BD0, "lustre"},
                                                    {0x00C36400, "ceph"},
                                                    {0x65735546, "fuse"},
                                                    {0xFE534D42, "smb2"},
                                                    {0x47504653, "gpfs"},
                                                    {0xF2F52010, "f2fs"}}};
  for (const Known& known : kKnown) {
    if (known.magic == magic) return known.name;
  }
  return fmt::format("type {:#x}", magic);
}

// `wanted`, or what stands above the place where it will be made.
std::string standing_directory(const std::string& wanted) {
  std::filesystem::path path = wanted;
  std::error_code error;
  while (!std::filesystem::exists(path, error) && path.has_relative_path()) {
    path = path.parent_path();
  }
  return path.string();
}

Result<Finding> check_file_system(const std::string& directory) {
  struct statfs info {};
  if (::statfs(directory.c_str(), &info) != 0) return errno_status(errno, "statfs " + directory);
  const auto block = static_cast<uint64_t>(info.f_bsize);
  const uint64_t free = info.f_bavail * block;
  const uint64_t total = info.f_blocks * block;
  const bool full = free < total / 20;
  return Finding{.check = "file_system",
                 .grade = full ? Grade::kFair : Grade::kGood,
                 .found = fmt::format("{}, {} free of {}",
                                      file_system_name(static_cast<uint64_t>(info.f_type)),
                                      human_bytes(free), human_bytes(total)),
                 .advice = full ? "less than 5 % is free: caisson gc, or more disk" : ""};
}

Result<Finding> check_direct(FileSystem& files, const std::string& directory) {
  CAISSON_ASSIGN_OR_RETURN(
      const std::unique_ptr<File> file,
      files.open(directory + "/direct", OpenMode::kCreateNew, Access::kDirect));
  const IoAlignment alignment = file->alignment();
  if (alignment.direct) {
    return Finding{.check = "o_direct",
                   .grade = Grade::kGood,
                   .found = fmt::format("works; alignment: memory {}, offset {}", alignment.memory,
                                        alignment.offset),
                   .advice = {}};
  }
  return Finding{.check = "o_direct",
                 .grade = Grade::kFair,
                 .found = "refused: I/O goes through the page cache",
                 .advice =
                     "for speed put the store on a file system with O_DIRECT, such as xfs or "
                     "ext4 on NVMe"};
}

Result<Finding> check_fallocate(const std::string& directory) {
  const std::string path = directory + "/fallocate";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) return errno_status(errno, "create " + path);
  constexpr off_t kBytes = 1 << 20;
  const int outcome = ::fallocate(fd, 0, 0, kBytes);
  const int error = errno;
  ::close(fd);
  if (outcome == 0) {
    return Finding{.check = "fallocate", .grade = Grade::kGood, .found = "works", .advice = {}};
  }
  if (error != EOPNOTSUPP) return errno_status(error, "fallocate " + path);
  return Finding{.check = "fallocate",
                 .grade = Grade::kFair,
                 .found = "not supported here",
                 .advice = "writes that extend a file are slower, and a full disk is found late"};
}

Result<Finding> check_create_race(const Session& session, const std::string& directory) {
  const auto open = [&]() -> Result<std::unique_ptr<ObjectStore>> {
    CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<FileSystem> files,
                             make_posix_file_system(session.globals.io_engine));
    return make_object_dir(std::move(files), directory, system_uuids());
  };
  CAISSON_ASSIGN_OR_RETURN(const CreateRaceReport report, race_creates(open, system_uuids()));
  const std::string rounds = fmt::format("{} racers, {} rounds", report.racers, report.rounds);
  if (report.atomic()) {
    return Finding{.check = "create_once",
                   .grade = Grade::kGood,
                   .found = rounds + ", one winner in each",
                   .advice = {}};
  }
  return Finding{
      .check = "create_once",
      .grade = Grade::kBad,
      .found = fmt::format("{}, one winner in only {}: {}", rounds, report.rounds_with_one_winner,
                           report.violations.empty() ? "" : report.violations[0]),
      .advice =
          "use this target with one writer only, or another target: commits rest "
          "on this"};
}

class DoctorCommand final : public Command {
 public:
  bool is_single_threaded() const override { return true; }  // the race forks

  void define(CLI::App& app) override {
    app.add_option("directory", directory_,
                   "Directory of a store, or where one shall be; the "
                   "machine alone is looked at when it is not given");
  }

  Result<int> run(const Session& session) override {
    std::vector<Finding> findings;
    findings.push_back(check_kernel());
    findings.push_back(check_io_uring());
    findings.push_back(check_hugepages());
    findings.push_back(check_limit("memlock", RLIMIT_MEMLOCK, 8u << 20,
                                   "raise the limit (ulimit -l): registered buffers need it"));
    findings.push_back(check_limit("open_files", RLIMIT_NOFILE, 1024,
                                   "raise the limit (ulimit -n) to 1024 or more"));
    if (!directory_.empty()) {
      CAISSON_RETURN_IF_ERROR(check_directories(session, findings));
    }
    bool bad = false;
    for (const Finding& finding : findings) bad = bad || finding.grade == Grade::kBad;
    session.globals.json ? print_document(findings) : print(findings);
    return bad ? kExitUnsupported : kExitOk;
  }

 private:
  // Every directory of the store, where there is one.
  Status check_directories(const Session& session, std::vector<Finding>& findings) const {
    CAISSON_ASSIGN_OR_RETURN(const StoreUrl url, parse_store_url(directory_));
    CAISSON_ASSIGN_OR_RETURN(const std::shared_ptr<FileSystem> files,
                             make_posix_file_system(session.globals.io_engine));
    std::vector<std::string> directories = {url.root};
    if (std::filesystem::is_directory(url.root)) {
      CAISSON_ASSIGN_OR_RETURN(directories, directories_of_store(files, url));
    }
    if (directories.size() > 1) {
      const auto objects =
          open_objects(files, url, system_uuids(), system_clock(), /*create=*/false);
      findings.push_back(
          {.check = "directories",
           .grade = objects.ok() ? Grade::kGood : Grade::kBad,
           .found = objects.ok()
                        ? fmt::format("{} of one store, each as marked", directories.size())
                        : std::string(objects.status().message()),
           .advice = objects.ok() ? "" : "no save or restore goes on without all of them"});
      if (!objects.ok()) directories.resize(1);
    } else {
      directories.insert(directories.end(), url.directories.begin(), url.directories.end());
    }
    for (const std::string& directory : directories) {
      const size_t first = findings.size();
      CAISSON_RETURN_IF_ERROR(check_directory(session, directory, findings));
      if (directories.size() == 1) continue;
      for (size_t i = first; i < findings.size(); ++i) {
        findings[i].found = directory + ": " + findings[i].found;
      }
    }
    return ok_status();
  }

  static Status check_directory(const Session& session, const std::string& wanted,
                                std::vector<Finding>& findings) {
    const std::string directory = standing_directory(wanted);
    if (!std::filesystem::is_directory(directory)) {
      return invalid_argument(directory + " is a file; a store is a directory");
    }
    if (directory != wanted) {
      findings.push_back(
          {.check = "directory",
           .grade = Grade::kGood,
           .found = fmt::format("{} is not there yet; looked at {}", wanted, directory),
           .advice = {}});
    }
    CAISSON_ASSIGN_OR_RETURN(Finding file_system, check_file_system(directory));
    findings.push_back(std::move(file_system));
    std::string scratch = directory + "/doctor-XXXXXX";
    if (::mkdtemp(scratch.data()) == nullptr) return errno_status(errno, "create " + scratch);
    Status status = check_scratch(session, scratch, findings);
    std::error_code ignored;  // what is left would be an empty directory
    std::filesystem::remove_all(scratch, ignored);
    return status;
  }

  static Status check_scratch(const Session& session, const std::string& scratch,
                              std::vector<Finding>& findings) {
    CAISSON_ASSIGN_OR_RETURN(Finding race, check_create_race(session, scratch));
    findings.push_back(std::move(race));
    CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<FileSystem> files,
                             make_posix_file_system(session.globals.io_engine));
    CAISSON_ASSIGN_OR_RETURN(Finding direct, check_direct(*files, scratch));
    findings.push_back(std::move(direct));
    CAISSON_ASSIGN_OR_RETURN(Finding reserve, check_fallocate(scratch));
    findings.push_back(std::move(reserve));
    return ok_status();
  }

  void print_document(const std::vector<Finding>& findings) const {
    Json list = Json::array();
    for (const Finding& finding : findings) {
      list.push_back({{"check", finding.check},
                      {"grade", word_of(finding.grade)},
                      {"found", finding.found},
                      {"advice", finding.advice}});
    }
    print_json(
        {{"schema", "caisson.doctor/1"}, {"directory", directory_}, {"findings", std::move(list)}});
  }

  static void print(const std::vector<Finding>& findings) {
    for (const Finding& finding : findings) {
      fmt::print("{:<5} {:<12} {}\n", word_of(finding.grade), finding.check, finding.found);
      if (!finding.advice.empty()) fmt::print("{:<19}-> {}\n", "", finding.advice);
    }
  }

  std::string directory_;
};

}  // namespace

std::unique_ptr<Command> make_doctor() { return std::make_unique<DoctorCommand>(); }

}  // namespace caisson::cli

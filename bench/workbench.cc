#include "bench/workbench.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

#include "caisson/metrics.h"
#include "client/open_objects.h"
#include "engine/gc.h"
#include "engine/log.h"
#include "io/posix_file_system.h"

namespace caisson::bench {

namespace {

namespace fs = std::filesystem;

constexpr double kMiB = 1 << 20;
constexpr double kMemoryAboveBudget = 32 * kMiB;

Result<TensorMemory*> made(std::shared_ptr<TensorMemory>& memory, uint64_t bytes, bool aligned,
                           bool filled) {
  if (memory == nullptr) {
    CAISSON_ASSIGN_OR_RETURN(
        memory, aligned ? TensorMemory::aligned(bytes) : TensorMemory::unaligned(bytes));
    if (filled) memory->fill(aligned ? 1 : 2);
  }
  return memory.get();
}

Result<double> rate_of(uint64_t bytes, const Result<Usage>& usage) {
  if (!usage.ok()) return usage.status();
  return static_cast<double>(bytes) / usage->seconds;
}

}  // namespace

Result<std::unique_ptr<Workbench>> Workbench::create(const BenchOptions& options,
                                                     const std::string& name) {
  std::unique_ptr<Workbench> bench(new Workbench(options));
  std::vector<std::string> directories = {options.directory};
  directories.insert(directories.end(), options.directories.begin(), options.directories.end());
  for (const std::string& directory : directories) {
    const std::string scratch = directory + "/" + name;
    std::error_code error;
    if (!fs::create_directory(scratch, error)) {
      return error ? io_error(scratch + ": " + error.message())
                   : already_exists(scratch + ": left by an earlier bench; delete it");
    }
    bench->scratches_.push_back(scratch);
  }
  CAISSON_ASSIGN_OR_RETURN(bench->files_, make_posix_file_system(options.store.io_engine));
  return bench;
}

Workbench::~Workbench() {
  stores_.clear();
  read_limit_.reset();
  std::error_code ignored;
  for (const std::string& scratch : scratches_) fs::remove_all(scratch, ignored);
}

std::vector<std::string> Workbench::paths_of(const std::string& store_name) const {
  std::vector<std::string> paths;
  for (const std::string& scratch : scratches_) paths.push_back(scratch + "/" + store_name);
  return paths;
}

std::string Workbench::url_of(const std::string& store_name) const {
  const std::vector<std::string> paths = paths_of(store_name);
  std::string url = paths.front();
  for (size_t i = 1; i < paths.size(); ++i) url += (i == 1 ? "?dirs=" : ",") + paths[i];
  return url;
}

Result<std::unique_ptr<Store>> Workbench::open_store(const std::string& name) const {
  return Store::open(url_of(name), options_.store);
}

Result<Store*> Workbench::store(const std::string& io_engine) {
  std::unique_ptr<Store>& store = stores_[io_engine];
  if (store == nullptr) {
    StoreOptions options = options_.store;
    options.io_engine = io_engine;
    CAISSON_ASSIGN_OR_RETURN(store, Store::open(url_of(store_name(io_engine)), options));
  }
  return store.get();
}

Result<TensorMemory*> Workbench::source() { return made(source_, options_.bytes, true, true); }
Result<TensorMemory*> Workbench::unaligned_source() {
  return made(unaligned_source_, options_.bytes, false, true);
}
Result<TensorMemory*> Workbench::target() { return made(target_, options_.bytes, true, false); }
Result<TensorMemory*> Workbench::unaligned_target() {
  return made(unaligned_target_, options_.bytes, false, false);
}

Result<double> Workbench::write_limit() {
  double rate = 0;
  {
    CAISSON_ASSIGN_OR_RETURN(const auto limit,
                             DeviceLimit::create(*files_, paths_of("limit"), options_.bytes));
    CAISSON_ASSIGN_OR_RETURN(rate, rate_of(options_.bytes, timed([&] { return limit->write(); })));
  }
  CAISSON_RETURN_IF_ERROR(settle());
  return rate;
}

Result<double> Workbench::read_limit() {
  if (read_limit_ == nullptr) {
    const std::vector<std::string> paths = paths_of("read-limit");
    read_path_ = paths.front();
    CAISSON_ASSIGN_OR_RETURN(read_limit_, DeviceLimit::create(*files_, paths, options_.bytes));
    CAISSON_RETURN_IF_ERROR(read_limit_->write());
    CAISSON_RETURN_IF_ERROR(settle());
  }
  return rate_of(options_.bytes, timed([&] { return read_limit_->read(); }));
}

Status Workbench::discard_packs(const std::string& store_name) {
  for (const std::string& path : paths_of(store_name)) {
    std::error_code error;
    if (!fs::exists(path + "/data", error)) continue;  // no pack has come there yet
    for (fs::recursive_directory_iterator it(path + "/data", error), end; !error && it != end;
         it.increment(error)) {
      if (it->path().extension() == ".pack") fs::remove(it->path(), error);
      if (error) break;
    }
    if (error) return io_error(path + ": " + error.message());
  }
  return settle();
}

Status Workbench::collect_garbage() {
  CAISSON_ASSIGN_OR_RETURN(const StoreUrl url,
                           parse_store_url(url_of(store_name(options_.store.io_engine))));
  CAISSON_ASSIGN_OR_RETURN(const std::shared_ptr<FileSystem> files,
                           make_posix_file_system(options_.store.io_engine));
  CAISSON_ASSIGN_OR_RETURN(const auto objects, open_objects(files, url, system_uuids(),
                                                            system_clock(), /*create=*/false));
  CAISSON_ASSIGN_OR_RETURN(const auto log, Log::open(*objects, system_uuids(), this_process()));
  CAISSON_RETURN_IF_ERROR(run_gc(*objects, *log).status());
  return settle();
}

Status Workbench::discard(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return io_error(path + ": " + error.message());
  return settle();
}

Status Workbench::settle() {
  for (const std::string& scratch : scratches_) {
    const int fd = ::open(scratch.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) continue;
    ::syncfs(fd);
    ::close(fd);
  }
  const auto until =
      std::chrono::steady_clock::now() + std::chrono::duration<double>(options_.settle_seconds);
  while (std::chrono::steady_clock::now() < until) {
    CAISSON_RETURN_IF_ERROR(check_stop());
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return check_stop();
}

Status Workbench::check_stop() const {
  return options_.stop.stop_requested() ? cancelled("interrupted") : ok_status();
}

Result<SaveReport> save_whole(const Workbench& bench, Store& store, const std::string& name,
                              std::span<const TensorShard> shards) {
  SaveOptions options;
  options.codec = "raw";
  options.stop = bench.options().stop;
  CAISSON_ASSIGN_OR_RETURN(PendingSave pending, store.save(name, {.tensors = shards}, options));
  CAISSON_RETURN_IF_ERROR(pending.wait());
  return pending.report();
}

void add_rate(Round& round, uint64_t bytes, double seconds) {
  round.add({.name = "rate", .unit = "GB/s", .comparable = false},
            static_cast<double>(bytes) * 1e-9 / seconds);
}

void add_ratio(Round& round, uint64_t bytes, double seconds, double of,
               std::optional<double> target) {
  round.add({.name = "ratio", .unit = "of L", .target = target},
            static_cast<double>(bytes) / seconds / of);
}

void add_cpu(Round& round, uint64_t bytes, double cpu_seconds, std::optional<double> target) {
  round.add({.name = "cpu", .unit = "s/GB", .better = Better::kLower, .target = target},
            cpu_seconds / (static_cast<double>(bytes) * 1e-9));
}

void add_memory(Round& round, const BenchOptions& options, int64_t bytes) {
  const auto budget = static_cast<double>(options.store.memory_bytes_max);
  round.add({.name = "memory",
             .unit = "MiB",
             .better = Better::kLower,
             .target = (budget + kMemoryAboveBudget) / kMiB},
            static_cast<double>(std::max<int64_t>(bytes, 0)) / kMiB);
  const auto counted = options.store.metrics == nullptr
                           ? std::nullopt
                           : options.store.metrics->value("caisson_memory_peak_bytes");
  if (counted.value_or(0) == 0) return;  // other processes saved, and counted for themselves
  round.add(
      {.name = "memory counted", .unit = "MiB", .better = Better::kLower, .target = budget / kMiB},
      *counted / kMiB);
}

}  // namespace caisson::bench

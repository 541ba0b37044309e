#include "bench/workbench.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <system_error>
#include <thread>
#include <utility>

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
  std::unique_ptr<Workbench> bench(new Workbench(options, options.directory + "/" + name));
  std::error_code error;
  if (!fs::create_directory(bench->scratch_, error)) {
    return error ? io_error(bench->scratch_ + ": " + error.message())
                 : already_exists(bench->scratch_ + ": left by an earlier bench; delete it");
  }
  CAISSON_ASSIGN_OR_RETURN(bench->files_, make_posix_file_system(options.store.io_engine));
  return bench;
}

Workbench::~Workbench() {
  stores_.clear();
  read_limit_.reset();
  std::error_code ignored;
  fs::remove_all(scratch_, ignored);
}

std::string Workbench::store_path(const std::string& io_engine) const {
  return scratch_ + "/store-" + io_engine;
}

Result<Store*> Workbench::store(const std::string& io_engine) {
  std::unique_ptr<Store>& store = stores_[io_engine];
  if (store == nullptr) {
    StoreOptions options = options_.store;
    options.io_engine = io_engine;
    CAISSON_ASSIGN_OR_RETURN(store, Store::open(store_path(io_engine), options));
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
  const std::string path = scratch_ + "/limit";
  double rate = 0;
  {
    CAISSON_ASSIGN_OR_RETURN(const auto limit, DeviceLimit::create(*files_, path, options_.bytes));
    CAISSON_ASSIGN_OR_RETURN(rate, rate_of(options_.bytes, timed([&] { return limit->write(); })));
  }
  CAISSON_RETURN_IF_ERROR(settle());
  return rate;
}

Result<double> Workbench::read_limit() {
  if (read_limit_ == nullptr) {
    read_path_ = scratch_ + "/read-limit";
    CAISSON_ASSIGN_OR_RETURN(read_limit_, DeviceLimit::create(*files_, read_path_, options_.bytes));
    CAISSON_RETURN_IF_ERROR(read_limit_->write());
    CAISSON_RETURN_IF_ERROR(settle());
  }
  return rate_of(options_.bytes, timed([&] { return read_limit_->read(); }));
}

Status Workbench::discard_packs(const std::string& store_path) {
  std::error_code error;
  for (fs::recursive_directory_iterator it(store_path + "/data", error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".pack") fs::remove(it->path(), error);
    if (error) break;
  }
  if (error) return io_error(store_path + ": " + error.message());
  return settle();
}

Status Workbench::discard(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return io_error(path + ": " + error.message());
  return settle();
}

Status Workbench::settle() {
  const int fd = ::open(scratch_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
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
  const double target =
      (static_cast<double>(options.store.memory_bytes_max) + kMemoryAboveBudget) / kMiB;
  round.add({.name = "memory", .unit = "MiB", .better = Better::kLower, .target = target},
            static_cast<double>(std::max<int64_t>(bytes, 0)) / kMiB);
}

}  // namespace caisson::bench

#include "bench/store_bench.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <thread>

#include "bench/device_limit.h"
#include "bench/machine.h"
#include "caisson/store.h"
#include "io/base/buffer.h"
#include "io/base/check.h"
#include "io/posix_file_system.h"

namespace caisson::bench {

namespace {

namespace fs = std::filesystem;

constexpr uint64_t kTensorBytes = 64u << 20;  // bf16 [4096, 8192]
constexpr const char* kFreshLimit = "write limit, fresh file";
constexpr const char* kReadLimit = "read limit";

void fill_incompressible(MutableBytes memory, uint64_t seed) {
  uint64_t word = seed * 0x9e3779b97f4a7c15 + 1;
  for (size_t i = 0; i + 8 <= memory.size(); i += 8) {
    word ^= word << 13, word ^= word >> 7, word ^= word << 17;
    store_le(memory.data() + i, word);
  }
}

class StoreBench {
 public:
  explicit StoreBench(const StoreBenchOptions& options)
      : options_(options),
        scratch_(options.directory + "/caisson-bench-" + std::to_string(::getpid())) {}
  ~StoreBench() {
    std::error_code ignored;
    fs::remove_all(scratch_, ignored);
  }
  StoreBench(const StoreBench&) = delete;
  StoreBench& operator=(const StoreBench&) = delete;

  Status prepare();
  Status round(uint32_t number);
  StoreBenchReport report() &&;

 private:
  // Runs one case and keeps what it took.
  template <typename Fn>
  Status measure(const std::string& name, const std::string& against, Fn&& run);
  StoreBenchCase& case_of(const std::string& name, const std::string& against);
  Status limits(uint32_t number);
  Status save_and_restore(uint32_t number);
  Status buffered();
  Status discard(const std::string& path);

  const StoreBenchOptions& options_;
  const std::string scratch_;
  std::unique_ptr<FileSystem> files_;
  AlignedBuffer saved_, restored_;
  std::vector<TensorShard> shards_;
  std::vector<TensorTarget> targets_;
  std::vector<StoreBenchCase> cases_;
};

StoreBenchCase& StoreBench::case_of(const std::string& name, const std::string& against) {
  for (StoreBenchCase& known : cases_) {
    if (known.name == name) return known;
  }
  cases_.push_back({.name = name, .against = against});
  return cases_.back();
}

template <typename Fn>
Status StoreBench::measure(const std::string& name, const std::string& against, Fn&& run) {
  const uint64_t resident = restart_memory_peak();
  const double cpu = cpu_seconds();
  const auto start = std::chrono::steady_clock::now();
  CAISSON_RETURN_IF_ERROR(run());
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
  StoreBenchCase& result = case_of(name, against);
  result.seconds.push_back(taken.count());
  result.cpu_seconds.push_back(cpu_seconds() - cpu);
  const uint64_t peak = memory_peak();
  if (peak > resident) {
    result.extra_memory_bytes = std::max(result.extra_memory_bytes, peak - resident);
  }
  return {};
}

Status StoreBench::prepare() {
  if (options_.bytes < kTensorBytes || options_.bytes % kTensorBytes != 0) {
    return invalid_argument("bench: the size must be a multiple of 64 MiB");
  }
  std::error_code error;
  const fs::space_info space = fs::space(options_.directory, error);
  if (error) return io_error(options_.directory + ": " + error.message());
  if (space.available < options_.bytes * 4) {
    return no_space(options_.directory + ": bench needs " +
                    std::to_string((options_.bytes * 4) >> 20) +
                    " MiB free, four times its size; choose a smaller --size");
  }
  fs::create_directory(scratch_, error);
  if (error) return io_error(scratch_ + ": " + error.message());
  CAISSON_ASSIGN_OR_RETURN(files_, make_posix_file_system(options_.store.io_engine));
  CAISSON_ASSIGN_OR_RETURN(saved_, AlignedBuffer::allocate(options_.bytes, true));
  CAISSON_ASSIGN_OR_RETURN(restored_, AlignedBuffer::allocate(options_.bytes, true));
  const uint64_t dims[] = {4096, 8192};
  for (uint64_t offset = 0; offset < options_.bytes; offset += kTensorBytes) {
    TensorShard shard;
    shard.tensor = {"layers." + std::to_string(offset / kTensorBytes) + ".weight",
                    {DTypeCode::kBfloat, 16},
                    Shape::of(dims)};
    shard.box = Box::whole(shard.tensor.shape);
    shard.data = saved_.data() + offset;
    targets_.push_back({shard.tensor.name, shard.box, restored_.data() + offset, {}});
    shards_.push_back(std::move(shard));
  }
  return {};
}

// Removes what a case wrote, and waits until the device has got over it.
Status StoreBench::discard(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) return io_error(path + ": " + error.message());
  ::sync();
  std::this_thread::sleep_for(std::chrono::duration<double>(options_.settle_seconds));
  return {};
}

Status StoreBench::limits(uint32_t number) {
  const std::string path = scratch_ + "/limit-" + std::to_string(number);
  {
    CAISSON_ASSIGN_OR_RETURN(const auto limit, DeviceLimit::create(*files_, path, options_.bytes));
    CAISSON_RETURN_IF_ERROR(measure(kFreshLimit, "", [&] { return limit->write(); }));
    CAISSON_RETURN_IF_ERROR(
        measure("write limit, overwritten file", kFreshLimit, [&] { return limit->write(); }));
    CAISSON_RETURN_IF_ERROR(measure(kReadLimit, "", [&] { return limit->read(); }));
  }
  return discard(path);
}

Status StoreBench::save_and_restore(uint32_t number) {
  const std::string path = scratch_ + "/store-" + std::to_string(number);
  {
    CAISSON_ASSIGN_OR_RETURN(const auto store, Store::open(path, options_.store));
    SaveOptions options;
    options.codec = "raw";
    const auto save = [&](const char* name) -> Status {
      CAISSON_ASSIGN_OR_RETURN(PendingSave pending,
                               store->save(name, {.tensors = shards_}, options));
      return pending.wait();
    };
    // The first save of a process touches its staging memory for the first time; a training job
    // pays that once. The others reuse it, and nothing is shared with the first.
    options.dedup = false;
    CAISSON_RETURN_IF_ERROR(
        measure("first save of a process", kFreshLimit, [&] { return save("bench/1"); }));
    CAISSON_RETURN_IF_ERROR(measure("save", kFreshLimit, [&] { return save("bench/2"); }));
    options.dedup = true;
    CAISSON_RETURN_IF_ERROR(
        measure("save again, unchanged", kFreshLimit, [&] { return save("bench/3"); }));
    std::memset(restored_.data(), 0, restored_.size());
    CAISSON_RETURN_IF_ERROR(measure("restore, verified", kReadLimit,
                                    [&] { return store->restore("bench/2", targets_); }));
    if (std::memcmp(saved_.data(), restored_.data(), saved_.size()) != 0) {
      return corruption("bench: the restored tensors differ from the saved ones");
    }
  }
  return discard(path);
}

Status StoreBench::buffered() {
  const std::string path = scratch_ + "/buffered";
  CAISSON_RETURN_IF_ERROR(measure("buffered write + fsync", kFreshLimit,
                                  [&] { return buffered_write(path, saved_.bytes()); }));
  return discard(path);
}

Status StoreBench::round(uint32_t number) {
  fill_incompressible(saved_.bytes(), number + 1);
  // The order turns from round to round, so that no case always follows the same neighbour.
  for (uint32_t step = 0; step < 3; ++step) {
    switch ((step + number) % 3) {
      case 0:
        CAISSON_RETURN_IF_ERROR(limits(number));
        break;
      case 1:
        CAISSON_RETURN_IF_ERROR(save_and_restore(number));
        break;
      default:
        CAISSON_RETURN_IF_ERROR(buffered());
    }
  }
  return {};
}

StoreBenchReport StoreBench::report() && {
  return {.machine = machine_words(),
          .target = options_.directory + ", " + files_->io_engine(),
          .bytes = options_.bytes,
          .rounds = options_.rounds,
          .cases = std::move(cases_)};
}

}  // namespace

const StoreBenchCase* StoreBenchReport::find(const std::string& name) const {
  const auto found = std::find_if(cases.begin(), cases.end(),
                                  [&](const StoreBenchCase& c) { return c.name == name; });
  return found == cases.end() ? nullptr : &*found;
}

std::vector<double> StoreBenchReport::speed_ratios(const StoreBenchCase& of) const {
  const StoreBenchCase* base = find(of.against);
  CAISSON_CHECK(base != nullptr);
  return paired_ratios(base->seconds, of.seconds);
}

Result<StoreBenchReport> run_store_bench(const StoreBenchOptions& options) {
  if (options.rounds == 0) return invalid_argument("bench: at least one round");
  StoreBench bench(options);
  CAISSON_RETURN_IF_ERROR(bench.prepare());
  for (uint32_t round = 0; round < options.rounds; ++round) {
    if (options.progress) options.progress(round, options.rounds);
    CAISSON_RETURN_IF_ERROR(bench.round(round));
  }
  return std::move(bench).report();
}

}  // namespace caisson::bench

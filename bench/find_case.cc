#include "bench/find_case.h"

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "bench/workbench.h"

namespace caisson::bench {

namespace {

namespace fs = std::filesystem;

constexpr const char* kName = "find/1";

class FindCase final : public Case {
 public:
  // One checkpoint larger than the memory that it comes from: the same memory is put again and
  // again, changed each time.
  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * source, bench.source());
    CAISSON_ASSIGN_OR_RETURN(target_, TensorMemory::aligned(kTensorBytes));
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    SaveOptions options;
    options.codec = "raw";
    options.stop = bench.options().stop;
    CAISSON_ASSIGN_OR_RETURN(const std::string ticket, store->begin_save(kName));
    CAISSON_ASSIGN_OR_RETURN(const auto part, store->join_save(ticket, 0, options));
    const uint64_t tensors = std::max<uint64_t>(bench.options().store_bytes / kTensorBytes, 1);
    wanted_ = tensors / 2;
    for (uint64_t first = 0; first < tensors; first += source->blocks().size()) {
      std::vector<TensorShard> shards = whole_tensors(*source);
      shards.resize(std::min<uint64_t>(shards.size(), tensors - first));
      source->change(first);
      for (uint64_t i = 0; i < shards.size(); ++i) {
        shards[i].tensor.name = tensor_name(first + i);
        if (first + i == wanted_) digest_ = digest_of({shards[i].data, kTensorBytes});
      }
      CAISSON_RETURN_IF_ERROR(part->put({.tensors = shards}));
    }
    CAISSON_ASSIGN_OR_RETURN(const SealedPart sealed, part->seal());
    CAISSON_RETURN_IF_ERROR(store->commit_save(ticket, 1, {&sealed, 1}).status());
    return bench.settle();
  }

  Status run(Workbench& bench, Round& round) override {
    const std::string name = Workbench::store_name(bench.options().store.io_engine);
    for (const std::string& path : bench.paths_of(name)) CAISSON_RETURN_IF_ERROR(drop_all(path));
    std::vector<TensorTarget> targets = whole_targets(*target_);
    targets.front().name = tensor_name(wanted_);
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed([&]() -> Status {
      CAISSON_ASSIGN_OR_RETURN(const auto store, bench.open_store(name));
      return store->restore(kName, targets);
    }));
    if (digest_of({target_->blocks().front(), kTensorBytes}) != digest_) {
      return corruption("bench: the restored tensor differs from the saved one");
    }
    const double at_limit = static_cast<double>(kTensorBytes) / round.limits.read;
    round.add(
        {.name = "beyond its bytes at L", .unit = "ms", .better = Better::kLower, .target = 20.0},
        (usage.seconds - at_limit) * 1e3);
    round.add({.name = "time", .unit = "ms", .better = Better::kLower, .comparable = false},
              usage.seconds * 1e3);
    add_memory(round, bench.options(), usage.peak_bytes);
    return {};
  }

 private:
  static Status drop_all(const std::string& path) {
    std::error_code error;
    for (fs::recursive_directory_iterator it(path, error), end; !error && it != end;
         it.increment(error)) {
      if (it->is_regular_file()) CAISSON_RETURN_IF_ERROR(drop_page_cache(it->path().string()));
    }
    return error ? io_error(path + ": " + error.message()) : ok_status();
  }

  std::shared_ptr<TensorMemory> target_;
  uint64_t wanted_ = 0;
  Digest digest_;
};

}  // namespace

std::unique_ptr<Case> make_find() { return std::make_unique<FindCase>(); }

}  // namespace caisson::bench

#include "bench/restore_cases.h"

#include <algorithm>
#include <filesystem>

#include "bench/fresh_memory.h"
#include "bench/workbench.h"

namespace caisson::bench {

namespace {

namespace fs = std::filesystem;

constexpr const char* kSaved = "restore/1";

// The checkpoint that the cases of the group restore: saved by the first that asks.
Status save_once(Workbench& bench) {
  CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
  const auto known = store->info(kSaved);
  if (known.ok() || known.status().code() != StatusCode::kNotFound) return known.status();
  CAISSON_ASSIGN_OR_RETURN(TensorMemory * source, bench.source());
  const std::vector<TensorShard> shards = whole_tensors(*source);
  CAISSON_RETURN_IF_ERROR(save_whole(bench, *store, kSaved, shards).status());
  return bench.settle();
}

Status check_same(const Digest& wanted, const TensorMemory& got) {
  if (wanted == got.digest()) return {};
  return corruption("bench: the restored tensors differ from the saved ones");
}

Result<Usage> restore_timed(Workbench& bench, std::span<const TensorTarget> targets,
                            uint64_t touched = 0) {
  CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
  RestoreOptions options;
  options.stop = bench.options().stop;
  return bench.timed_store([&] { return store->restore(kSaved, targets, options); }, touched);
}

void add_restore(const Workbench& bench, Round& round, const Usage& usage, double target) {
  const uint64_t bytes = bench.tensor_bytes();
  add_ratio(round, bytes, usage.seconds, round.limits.read, target);
  add_rate(round, bytes, usage.seconds);
}

// Into memory that the process has touched, as a job that resumes in place has.
class RestoreCase final : public Case {
 public:
  RestoreCase(bool aligned, double target, std::optional<double> cpu_target)
      : aligned_(aligned), target_(target), cpu_target_(cpu_target) {}

  Status prepare(Workbench& bench) override {
    CAISSON_RETURN_IF_ERROR(save_once(bench));
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * source, bench.source());
    saved_ = source->digest();
    CAISSON_ASSIGN_OR_RETURN(memory_, aligned_ ? bench.target() : bench.unaligned_target());
    targets_ = whole_targets(*memory_);
    return {};
  }

  Status run(Workbench& bench, Round& round) override {
    memory_->clear();
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, restore_timed(bench, targets_));
    CAISSON_RETURN_IF_ERROR(check_same(saved_, *memory_));
    add_restore(bench, round, usage, target_);
    add_cpu(round, bench.tensor_bytes(), usage.cpu_seconds, cpu_target_);
    add_memory(round, bench.options(), usage.peak_bytes);
    return {};
  }

 private:
  const bool aligned_;
  const double target_;
  const std::optional<double> cpu_target_;
  Digest saved_;
  TensorMemory* memory_ = nullptr;
  std::vector<TensorTarget> targets_;
};

// Into memory fresh from the kernel: a job that has just started.
class RestoreUntouchedCase final : public Case {
 public:
  Status prepare(Workbench& bench) override { return save_once(bench); }

  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(const FreshMemory fresh, FreshMemory::map(bench.tensor_bytes()));
    return restore_into(bench, round, fresh.data());
  }

 private:
  static Status restore_into(Workbench& bench, Round& round, std::byte* memory) {
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * source, bench.source());
    std::vector<TensorTarget> targets = whole_targets(*source);
    for (size_t i = 0; i < targets.size(); ++i) targets[i].data = memory + i * kTensorBytes;
    const uint64_t bytes = source->bytes();
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, restore_timed(bench, targets, bytes));
    for (size_t i = 0; i < targets.size(); ++i) {
      if (std::equal(targets[i].data, targets[i].data + kTensorBytes, source->blocks()[i]))
        continue;
      return corruption("bench: the restored tensors differ from the saved ones");
    }
    add_restore(bench, round, usage, 0.75);
    add_cpu(round, bytes, usage.cpu_seconds);
    add_memory(round, bench.options(), usage.peak_bytes);
    return {};
  }
};

// Somebody wants a checkpoint back while another one is on its way to the device.
class RestoreBesideCase final : public Case {
 public:
  Status prepare(Workbench& bench) override {
    CAISSON_RETURN_IF_ERROR(save_once(bench));
    CAISSON_ASSIGN_OR_RETURN(source_, bench.source());
    saved_ = source_->digest();
    CAISSON_ASSIGN_OR_RETURN(memory_, bench.target());
    targets_ = whole_targets(*memory_);
    return {};
  }

  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    CAISSON_ASSIGN_OR_RETURN(const Usage alone, restore_timed(bench, targets_));
    memory_->clear();
    const std::vector<TensorShard> shards = whole_tensors(*source_);
    SaveOptions options;
    options.codec = "raw";
    options.dedup = false;  // of a run of its own: everything is written
    options.stop = bench.options().stop;
    CAISSON_ASSIGN_OR_RETURN(
        PendingSave save,
        store->save("beside/" + std::to_string(round.number + 1), {.tensors = shards}, options));
    const auto beside = restore_timed(bench, targets_);
    const bool overtook = !save.done();
    CAISSON_RETURN_IF_ERROR(save.wait());
    CAISSON_RETURN_IF_ERROR(beside.status());
    CAISSON_RETURN_IF_ERROR(check_same(saved_, *memory_));
    round.add({.name = "time / alone", .unit = "x", .better = Better::kLower},
              beside->seconds / alone.seconds);
    round.add({.name = "done before the save", .unit = "of 1", .comparable = false},
              overtook ? 1 : 0);
    add_rate(round, bench.tensor_bytes(), beside->seconds);
    add_memory(round, bench.options(), beside->peak_bytes);
    CAISSON_RETURN_IF_ERROR(store->remove("beside/" + std::to_string(round.number + 1)));
    return bench.collect_garbage();
  }

 private:
  Digest saved_;
  TensorMemory* source_ = nullptr;
  TensorMemory* memory_ = nullptr;
  std::vector<TensorTarget> targets_;
};

// What many readers do: map the file and copy. Cold, as after a restart on another machine.
class MappedCase final : public Case {
 public:
  Status prepare(Workbench& bench) override {
    if (bench.options().directories.empty()) return {};
    return unsupported("it reads one file, which lies in one directory");
  }
  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * target, bench.target());
    CAISSON_RETURN_IF_ERROR(drop_page_cache(bench.read_limit_path()));
    const MutableBytes into{target->blocks().front(), target->bytes()};
    CAISSON_ASSIGN_OR_RETURN(
        const Usage usage, bench.timed([&] { return mapped_copy(bench.read_limit_path(), into); }));
    CAISSON_RETURN_IF_ERROR(drop_page_cache(bench.read_limit_path()));
    add_ratio(round, into.size(), usage.seconds, round.limits.read);
    add_rate(round, into.size(), usage.seconds);
    add_cpu(round, into.size(), usage.cpu_seconds);
    return {};
  }
};

}  // namespace

std::unique_ptr<Case> make_restore() { return std::make_unique<RestoreCase>(true, 0.93, 0.06); }
std::unique_ptr<Case> make_restore_unaligned() {
  return std::make_unique<RestoreCase>(false, 0.88, std::nullopt);
}
std::unique_ptr<Case> make_restore_untouched() { return std::make_unique<RestoreUntouchedCase>(); }
std::unique_ptr<Case> make_restore_beside() { return std::make_unique<RestoreBesideCase>(); }
std::unique_ptr<Case> make_mapped() { return std::make_unique<MappedCase>(); }

}  // namespace caisson::bench

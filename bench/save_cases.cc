#include "bench/save_cases.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <cerrno>
#include <optional>

#include "bench/workbench.h"

namespace caisson::bench {

namespace {

using Describe = std::vector<TensorShard> (*)(const TensorMemory&);

// Saves a state that changed everywhere since the round before: hashed, compared with its parent
// tile by tile, and written whole.
class SaveCase : public Case {
 public:
  struct Spec {
    std::string name;
    bool aligned = true;
    Describe describe = whole_tensors;
    std::optional<double> target{};
    std::optional<double> cpu_target{};
  };
  explicit SaveCase(Spec spec) : spec_(std::move(spec)) {}

  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(memory_, spec_.aligned ? bench.source() : bench.unaligned_source());
    shards_ = spec_.describe(*memory_);
    return {};
  }

  Status run(Workbench& bench, Round& round) override {
    memory_->change(round.number);
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    SaveReport report;
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed_store([&]() -> Status {
      CAISSON_ASSIGN_OR_RETURN(
          report,
          save_whole(bench, *store, fmt::format("{}/{}", spec_.name, round.number), shards_));
      return {};
    }));
    if (report.stored_bytes < report.raw_bytes) {
      return corruption("bench: a save of new bytes stored fewer than it was given");
    }
    add_ratio(round, report.raw_bytes, usage.seconds, round.limits.write, spec_.target);
    add_rate(round, report.raw_bytes, usage.seconds);
    add_cpu(round, report.raw_bytes, usage.cpu_seconds, spec_.cpu_target);
    add_memory(round, bench.options(), usage.peak_bytes);
    return bench.discard_packs();
  }

 protected:
  Spec spec_;
  TensorMemory* memory_ = nullptr;
  std::vector<TensorShard> shards_;
};

// The first save of a process touches its staging memory for the first time.
class FirstSaveCase final : public Case {
 public:
  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * memory, bench.source());
    memory->change(round.number);
    const std::vector<TensorShard> shards = whole_tensors(*memory);
    constexpr const char* kName = "first-store";
    CAISSON_ASSIGN_OR_RETURN(const auto store, bench.open_store(kName));
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed([&] {
      return save_whole(bench, *store, "first/" + std::to_string(round.number), shards).status();
    }));
    add_ratio(round, memory->bytes(), usage.seconds, round.limits.write);
    add_rate(round, memory->bytes(), usage.seconds);
    add_cpu(round, memory->bytes(), usage.cpu_seconds);
    add_memory(round, bench.options(), usage.peak_bytes);
    return bench.discard_packs(kName);
  }
};

class LargeSaveCase final : public SaveCase {
 public:
  LargeSaveCase() : SaveCase({.name = "large", .describe = one_tensor, .target = 0.90}) {}
  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(large_, TensorMemory::aligned(bench.options().large_bytes));
    large_->fill(3);
    memory_ = large_.get();
    shards_ = spec_.describe(*memory_);
    return {};
  }

 private:
  std::shared_ptr<TensorMemory> large_;
};

// Twice the tensors, in a process that may have them and 400 MiB of address space more: threads,
// rings, stacks and all that a save needs beside them.
class ConfinedSaveCase final : public SaveCase {
 public:
  ConfinedSaveCase() : SaveCase({.name = "confined"}) {}
  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(twice_, TensorMemory::aligned(2 * bench.tensor_bytes()));
    twice_->fill(4);
    memory_ = twice_.get();
    shards_ = spec_.describe(*memory_);
    return {};
  }
  Status run(Workbench& bench, Round& round) override {
    rlimit before{};
    if (::getrlimit(RLIMIT_AS, &before) != 0) return errno_status(errno, "getrlimit");
    rlimit confined = before;
    confined.rlim_cur = address_space_now() + kBeside;
    if (::setrlimit(RLIMIT_AS, &confined) != 0) return errno_status(errno, "setrlimit");
    const Status status = SaveCase::run(bench, round);
    ::setrlimit(RLIMIT_AS, &before);
    return status;
  }

 private:
  static constexpr uint64_t kBeside = 400u << 20;
  std::shared_ptr<TensorMemory> twice_;
};

// Nothing has changed since the save before: every byte is hashed, none is written.
class ResaveCase final : public Case {
 public:
  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(memory_, bench.source());
    shards_ = whole_tensors(*memory_);
    return {};
  }

  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    const auto save = [&] {
      return save_whole(bench, *store, fmt::format("resave/{}", ++step_), shards_);
    };
    memory_->change(round.number);  // its packs of the last round are gone
    CAISSON_RETURN_IF_ERROR(save().status());
    CAISSON_RETURN_IF_ERROR(bench.settle());
    SaveReport report;
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed_store([&]() -> Status {
      CAISSON_ASSIGN_OR_RETURN(report, save());
      return {};
    }));
    const double gigabytes = static_cast<double>(report.raw_bytes) * 1e-9;
    round.add({.name = "rate of a core", .unit = "GB/s", .target = 10.0},
              gigabytes / usage.cpu_seconds);
    add_rate(round, report.raw_bytes, usage.seconds);
    round.add({.name = "payload written", .unit = "bytes", .better = Better::kLower, .target = 0.0},
              static_cast<double>(report.stored_bytes));
    add_memory(round, bench.options(), usage.peak_bytes);
    return bench.discard_packs();
  }

 private:
  TensorMemory* memory_ = nullptr;
  std::vector<TensorShard> shards_;
  uint64_t step_ = 0;
};

// What most checkpoint writers do: write(2) and fsync.
class BufferedCase final : public Case {
 public:
  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * memory, bench.source());
    const std::string path = bench.scratch() + "/buffered";
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed([&] {
      return buffered_write(path, {memory->blocks().front(), memory->bytes()},
                            bench.options().stop);
    }));
    add_ratio(round, memory->bytes(), usage.seconds, round.limits.write);
    add_rate(round, memory->bytes(), usage.seconds);
    add_cpu(round, memory->bytes(), usage.cpu_seconds);
    return bench.discard(path);
  }
};

}  // namespace

std::unique_ptr<Case> make_save() {
  return std::make_unique<SaveCase>(
      SaveCase::Spec{.name = "aligned", .target = 0.92, .cpu_target = 0.07});
}
std::unique_ptr<Case> make_save_first() { return std::make_unique<FirstSaveCase>(); }
std::unique_ptr<Case> make_save_unaligned() {
  return std::make_unique<SaveCase>(
      SaveCase::Spec{.name = "unaligned", .aligned = false, .target = 0.88, .cpu_target = 0.13});
}
std::unique_ptr<Case> make_save_columns() {
  return std::make_unique<SaveCase>(
      SaveCase::Spec{.name = "columns", .describe = column_views, .target = 0.85});
}
std::unique_ptr<Case> make_save_small() {
  return std::make_unique<SaveCase>(
      SaveCase::Spec{.name = "small", .describe = small_tensors, .target = 0.75});
}
std::unique_ptr<Case> make_save_large() { return std::make_unique<LargeSaveCase>(); }
std::unique_ptr<Case> make_save_confined() { return std::make_unique<ConfinedSaveCase>(); }
std::unique_ptr<Case> make_resave() { return std::make_unique<ResaveCase>(); }
std::unique_ptr<Case> make_buffered() { return std::make_unique<BufferedCase>(); }

}  // namespace caisson::bench

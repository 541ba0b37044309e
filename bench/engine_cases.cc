#include "bench/engine_cases.h"

#include <algorithm>
#include <array>

#include "bench/workbench.h"

namespace caisson::bench {

namespace {

struct Timed {
  Usage save, restore;
};

class ThreadsCase final : public Case {
 public:
  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(source_, bench.source());
    CAISSON_ASSIGN_OR_RETURN(target_, bench.target());
    CAISSON_RETURN_IF_ERROR(bench.store("io_uring").status());
    return bench.store("threads").status();
  }

  Status run(Workbench& bench, Round& round) override {
    source_->change(round.number);
    std::array<Timed, 2> taken;
    for (uint32_t turn = 0; turn < 2; ++turn) {  // who is first alternates
      const uint32_t which = (turn + round.number) % 2;
      CAISSON_ASSIGN_OR_RETURN(taken[which],
                               once(bench, round, which == 0 ? "threads" : "io_uring"));
    }
    const auto& [threads, uring] = taken;
    round.add({.name = "save / io_uring", .unit = "x", .target = 0.90},
              uring.save.seconds / threads.save.seconds);
    round.add({.name = "restore / io_uring", .unit = "x", .target = 0.90},
              uring.restore.seconds / threads.restore.seconds);
    add_ratio(round, source_->bytes(), threads.save.seconds, round.limits.write);
    add_rate(round, source_->bytes(), threads.save.seconds);
    add_cpu(round, source_->bytes(), threads.save.cpu_seconds);
    add_memory(round, bench.options(),
               std::max(threads.save.peak_bytes, threads.restore.peak_bytes));
    return {};
  }

 private:
  Result<Timed> once(Workbench& bench, Round& round, const std::string& io_engine) {
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store(io_engine));
    const std::string name = "engine/" + std::to_string(round.number);
    const std::vector<TensorShard> shards = whole_tensors(*source_);
    const std::vector<TensorTarget> targets = whole_targets(*target_);
    Timed taken;
    CAISSON_ASSIGN_OR_RETURN(taken.save, bench.timed_store(io_engine, [&] {
      return save_whole(bench, *store, name, shards).status();
    }));
    target_->clear();
    CAISSON_ASSIGN_OR_RETURN(
        taken.restore, bench.timed_store(io_engine, [&] { return store->restore(name, targets); }));
    if (source_->digest() != target_->digest()) {
      return corruption("bench: the restored tensors differ from the saved ones");
    }
    CAISSON_RETURN_IF_ERROR(bench.discard_packs(Workbench::store_name(io_engine)));
    return taken;
  }

  TensorMemory* source_ = nullptr;
  TensorMemory* target_ = nullptr;
};

}  // namespace

std::unique_ptr<Case> make_threads() { return std::make_unique<ThreadsCase>(); }

}  // namespace caisson::bench

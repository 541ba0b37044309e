#include "bench/growth_cases.h"

#include <algorithm>
#include <array>

#include "bench/spread.h"
#include "bench/workbench.h"

namespace caisson::bench {

namespace {

constexpr uint64_t kShardBytes =
    64;  // stored inline: nothing here waits for the device's bandwidth
constexpr uint64_t kShardsMax = 1'000'000;
constexpr uint64_t kShardsOfPart = 1000;
constexpr uint32_t kPartsMax = 64;

// Tiny tensors that all lie in the first block of `memory`.
std::vector<TensorShard> tiny_tensors(const TensorMemory& memory, uint64_t first, uint64_t count) {
  const std::array<uint64_t, 1> dims{kShardBytes / 2};
  std::vector<TensorShard> shards(count);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t number = first + i;
    shards[i].tensor = {
        "norms." + std::to_string(number) + ".bias", {DTypeCode::kBfloat, 16}, Shape::of(dims)};
    shards[i].box = Box::whole(shards[i].tensor.shape);
    shards[i].data = memory.blocks().front() + number * kShardBytes % kTensorBytes;
  }
  return shards;
}

std::string times(uint64_t from, uint64_t to) {
  return std::to_string(from) + " to " + std::to_string(to);
}

// The slope over all sizes, and over the last step alone: fixed costs hide growth in the former.
void add_slopes(Round& round, const std::vector<double>& sizes,
                const std::vector<double>& seconds) {
  const auto first = static_cast<uint64_t>(sizes.front());
  const auto last = static_cast<uint64_t>(sizes.back());
  const Metric slope{.unit = "log-log", .better = Better::kLower, .target = 1.05};
  Metric whole = slope, end = slope;
  whole.name = "slope, " + times(first, last);
  round.add(whole, log_log_slope(sizes, seconds));
  if (sizes.size() < 3) return;
  const size_t at = sizes.size() - 2;
  end.name = "slope, " + times(static_cast<uint64_t>(sizes[at]), last);
  round.add(end, log_log_slope({sizes[at], sizes[at + 1]}, {seconds[at], seconds[at + 1]}));
  round.add({.name = "time of " + std::to_string(last),
             .unit = "s",
             .better = Better::kLower,
             .comparable = false},
            seconds.back());
}

class GrowthShardsCase final : public Case {
 public:
  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * memory, bench.source());
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    memory->change(round.number);
    // A smoke test with little memory ends earlier.
    const uint64_t most = std::min(kShardsMax, bench.tensor_bytes() / 1024);
    std::vector<double> sizes, seconds;
    for (uint64_t count = 1000; count <= most; count *= 10) {
      const std::vector<TensorShard> shards = tiny_tensors(*memory, 0, count);
      const std::string run = "shards-" + std::to_string(count) + "/";
      CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed([&] {
        return save_whole(bench, *store, run + std::to_string(round.number), shards).status();
      }));
      sizes.push_back(static_cast<double>(count));
      seconds.push_back(usage.seconds);
    }
    add_slopes(round, sizes, seconds);
    return {};
  }
};

// Parts of equal size, sealed before the clock starts: what rank 0 does at commit.
class GrowthPartsCase final : public Case {
 public:
  Status run(Workbench& bench, Round& round) override {
    std::vector<double> sizes, seconds;
    for (uint32_t parts = 1; parts <= kPartsMax; parts *= 4) {
      CAISSON_ASSIGN_OR_RETURN(const double taken, commit(bench, round, parts));
      sizes.push_back(parts);
      seconds.push_back(taken);
    }
    add_slopes(round, sizes, seconds);
    return {};
  }

 private:
  static Result<double> commit(Workbench& bench, Round& round, uint32_t parts) {
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * memory, bench.source());
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    const std::string name = "parts-" + std::to_string(parts) + "/" + std::to_string(round.number);
    CAISSON_ASSIGN_OR_RETURN(const std::string ticket, store->begin_save(name));
    std::vector<SealedPart> sealed;
    for (uint32_t rank = 0; rank < parts; ++rank) {
      CAISSON_RETURN_IF_ERROR(bench.check_stop());
      CAISSON_ASSIGN_OR_RETURN(const auto part, store->join_save(ticket, rank));
      const auto shards = tiny_tensors(*memory, rank * kShardsOfPart, kShardsOfPart);
      CAISSON_RETURN_IF_ERROR(part->put({.tensors = shards}));
      CAISSON_ASSIGN_OR_RETURN(SealedPart token, part->seal());
      sealed.push_back(std::move(token));
    }
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed([&] {
      return store->commit_save(ticket, parts, sealed).status();
    }));
    return usage.seconds;
  }
};

}  // namespace

std::unique_ptr<Case> make_growth_shards() { return std::make_unique<GrowthShardsCase>(); }
std::unique_ptr<Case> make_growth_parts() { return std::make_unique<GrowthPartsCase>(); }

}  // namespace caisson::bench

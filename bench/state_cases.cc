#include "bench/state_cases.h"

#include <algorithm>
#include <cstring>

#include "bench/fresh_memory.h"
#include "bench/workbench.h"
#include "client/mapped_file.h"
#include "client/safetensors.h"

namespace caisson::bench {

namespace {

constexpr const char* kSaved = "state/1";
constexpr uint64_t kTensorAlignment = 64;  // what frameworks hand out
// Every copy of the state but the first differs from the others in the low bits of one element of
// so many: so much that nothing is stored once for all, so little that codecs see the same data.
constexpr uint64_t kChangeElements = 32 * 1024;
constexpr uint64_t kChangeFirst = 1234;  // not where whoever looks for twins looks

// Tensors of a file, repeated until they are about as many bytes as the other cases save.
struct State {
  AlignedBuffer memory;
  std::vector<TensorShard> shards;
  uint64_t bytes = 0;
  bool mixed = false;  // bf16 weights beside fp32 masters
};

void add_tensor(State& state, const TensorSpec& spec, Bytes bytes, uint64_t copy, uint64_t at) {
  std::byte* const data = state.memory.data() + at;
  std::ranges::copy(bytes, data);
  const uint64_t element = spec.dtype.bits / 8;
  for (uint64_t i = kChangeFirst * element; copy > 0 && element > 0 && i < bytes.size();
       i += kChangeElements * element) {
    data[i] ^= static_cast<std::byte>(copy & 0xf);
  }
  TensorShard shard;
  shard.tensor = spec;
  shard.tensor.name += "." + std::to_string(copy);
  shard.box = Box::whole(spec.shape);
  shard.data = data;
  state.shards.push_back(std::move(shard));
  state.bytes += bytes.size();
  if (spec.dtype.code == DTypeCode::kBfloat) state.mixed = true;
}

Result<State> load_state(const BenchOptions& options) {
  if (options.state.empty()) {
    return unsupported("needs a training state: --state FILE, as bench/train_state.py makes it");
  }
  CAISSON_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::open(options.state));
  const Bytes all = file.bytes();
  const Bytes prefix = all.first(std::min<size_t>(all.size(), safetensors::kPrefixBytes));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t json,
                           safetensors::header_bytes(prefix, all.size(), options.state));
  CAISSON_ASSIGN_OR_RETURN(const safetensors::Header header,
                           safetensors::parse_header(all.subspan(safetensors::kPrefixBytes, json),
                                                     all.size(), options.state));
  const Bytes data = all.subspan(safetensors::kPrefixBytes + json);
  uint64_t one = 0;
  for (const safetensors::Entry& entry : header.tensors) {
    one += align_up(entry.end - entry.begin, kTensorAlignment);
  }
  if (one == 0) return invalid_argument(options.state + " holds no tensors");
  const uint64_t copies = std::clamp<uint64_t>(options.bytes / one, 1, 16);
  State state;
  CAISSON_ASSIGN_OR_RETURN(state.memory, AlignedBuffer::allocate(one * copies, true));
  uint64_t at = 0;
  for (uint64_t copy = 0; copy < copies; ++copy) {
    for (const safetensors::Entry& entry : header.tensors) {
      const Bytes bytes = data.subspan(entry.begin, entry.end - entry.begin);
      add_tensor(state, entry.spec, bytes, copy, at);
      at += align_up(bytes.size(), kTensorAlignment);
    }
  }
  return state;
}

Result<SaveReport> save_as(const Workbench& bench, Store& store, const std::string& name,
                           std::span<const TensorShard> shards, const char* codec,
                           uint32_t workers = 1) {
  SaveOptions options;
  options.codec = codec;
  options.workers = workers;
  options.dedup = false;  // the packs of earlier rounds are gone
  options.stop = bench.options().stop;
  CAISSON_ASSIGN_OR_RETURN(PendingSave pending, store.save(name, {.tensors = shards}, options));
  CAISSON_RETURN_IF_ERROR(pending.wait());
  return pending.report();
}

class StateSaveCase final : public Case {
 public:
  explicit StateSaveCase(const char* codec, uint32_t workers = 1)
      : codec_(codec), workers_(workers) {}

  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(state_, load_state(bench.options()));
    return {};
  }

  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    const std::string name = std::string("state-") + codec_ + "-" + std::to_string(workers_) + "/" +
                             std::to_string(round.number + 1);
    SaveReport report;
    CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed_store([&]() -> Status {
      CAISSON_ASSIGN_OR_RETURN(report,
                               save_as(bench, *store, name, state_.shards, codec_, workers_));
      return {};
    }));
    std::optional<double> target;
    if (std::string_view(codec_) == "auto") target = state_.mixed ? 1.28 : 1.10;
    if (workers_ > 1 && state_.mixed) target = 1.33;  // there is processor time to spare
    add_ratio(round, state_.bytes, usage.seconds, round.limits.write, target);
    add_rate(round, state_.bytes, usage.seconds);
    add_cpu(round, state_.bytes, usage.cpu_seconds);
    add_memory(round, bench.options(), usage.peak_bytes);
    round.add({.name = "coded", .unit = "x"},
              static_cast<double>(report.raw_bytes) / static_cast<double>(report.stored_bytes));
    for (const CodecUse& use : report.codecs) {
      round.add({.name = use.codec + ", " + use.reason, .unit = "of bytes", .comparable = false},
                static_cast<double>(use.raw_bytes) / static_cast<double>(report.raw_bytes));
    }
    return bench.discard_packs();
  }

 private:
  const char* const codec_;
  const uint32_t workers_;
  State state_;
};

// The checkpoint that both cases of restoring read.
Status save_once(Workbench& bench, const State& state) {
  CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
  const auto known = store->info(kSaved);
  if (known.ok() || known.status().code() != StatusCode::kNotFound) return known.status();
  CAISSON_RETURN_IF_ERROR(save_as(bench, *store, kSaved, state.shards, "auto").status());
  return bench.settle();
}

class StateRestoreCase final : public Case {
 public:
  explicit StateRestoreCase(bool touched) : touched_(touched) {}

  Status prepare(Workbench& bench) override {
    CAISSON_ASSIGN_OR_RETURN(state_, load_state(bench.options()));
    if (touched_) {
      CAISSON_ASSIGN_OR_RETURN(target_, AlignedBuffer::allocate(state_.memory.size(), true));
    }
    return save_once(bench, state_);
  }

  Status run(Workbench& bench, Round& round) override {
    const uint64_t bytes = state_.memory.size();
    if (touched_) {
      std::memset(target_.data(), 0, bytes);
      return restore_into(bench, round, target_.data());
    }
    CAISSON_ASSIGN_OR_RETURN(const FreshMemory fresh, FreshMemory::map(bytes));
    return restore_into(bench, round, fresh.data());
  }

 private:
  Status restore_into(Workbench& bench, Round& round, std::byte* memory) {
    std::vector<TensorTarget> targets;
    for (const TensorShard& shard : state_.shards) {
      targets.push_back({.name = shard.tensor.name,
                         .box = shard.box,
                         .data = memory + (shard.data - state_.memory.data()),
                         .strides_bytes = {}});
    }
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    RestoreOptions options;
    options.stop = bench.options().stop;
    CAISSON_ASSIGN_OR_RETURN(
        const Usage usage,
        bench.timed_store([&] { return store->restore(kSaved, targets, options); },
                          touched_ ? 0 : state_.bytes));
    if (std::memcmp(memory, state_.memory.data(), state_.memory.size()) != 0) {
      return corruption("bench: the restored tensors differ from the saved ones");
    }
    const double target = !touched_ ? 1.05 : state_.mixed ? 1.28 : 1.08;
    add_ratio(round, state_.bytes, usage.seconds, round.limits.read, target);
    add_rate(round, state_.bytes, usage.seconds);
    add_cpu(round, state_.bytes, usage.cpu_seconds);
    add_memory(round, bench.options(), usage.peak_bytes);
    return {};
  }

  const bool touched_;
  State state_;
  AlignedBuffer target_;
};

// Both ways in every round, in turn first, so that the device is the same for both.
class SaveAutoCase final : public Case {
 public:
  Status run(Workbench& bench, Round& round) override {
    CAISSON_ASSIGN_OR_RETURN(Store * store, bench.store());
    CAISSON_ASSIGN_OR_RETURN(TensorMemory * source, bench.source());
    const std::vector<TensorShard> shards = whole_tensors(*source);
    double seconds[2] = {};
    for (uint32_t i = 0; i < 2; ++i) {
      const bool coded = (i + round.number) % 2 == 0;
      source->change(2 * round.number + i);
      const std::string name = (coded ? "auto/" : "off/") + std::to_string(round.number + 1);
      CAISSON_ASSIGN_OR_RETURN(const Usage usage, bench.timed_store([&] {
        return save_as(bench, *store, name, shards, coded ? "auto" : "raw").status();
      }));
      seconds[coded ? 1 : 0] = usage.seconds;
      CAISSON_RETURN_IF_ERROR(bench.discard_packs());
    }
    round.add({.name = "ratio", .unit = "of codecs off", .target = 0.97}, seconds[0] / seconds[1]);
    add_rate(round, source->bytes(), seconds[1]);
    return {};
  }
};

}  // namespace

std::unique_ptr<Case> make_state_save() { return std::make_unique<StateSaveCase>("auto"); }
std::unique_ptr<Case> make_state_save_two() { return std::make_unique<StateSaveCase>("auto", 2); }
std::unique_ptr<Case> make_state_save_raw() { return std::make_unique<StateSaveCase>("raw"); }
std::unique_ptr<Case> make_state_restore() { return std::make_unique<StateRestoreCase>(true); }
std::unique_ptr<Case> make_state_restore_untouched() {
  return std::make_unique<StateRestoreCase>(false);
}
std::unique_ptr<Case> make_save_auto() { return std::make_unique<SaveAutoCase>(); }

}  // namespace caisson::bench

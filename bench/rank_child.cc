// One rank process of the bench: holds rows of every tensor, saves them, and restores columns.
#include <signal.h>
#include <sys/prctl.h>

#include <iostream>
#include <string>

#include "bench/machine.h"
#include "bench/rank_team.h"
#include "bench/tensors.h"
#include "caisson/store.h"

namespace caisson::bench {

namespace {

using Json = RankTeam::Json;

class Rank {
 public:
  Result<Json> answer(const Json& request);

 private:
  Result<Json> set_up(const Json& request);
  Result<Json> save(const Json& request);
  Result<Json> restore(const Json& request);

  uint32_t rank_ = 0, ranks_ = 1;
  uint64_t bytes_ = 0;
  int64_t retained_ = 0;
  std::unique_ptr<Store> store_;
  std::shared_ptr<TensorMemory> memory_;
};

uint64_t sum_of(const TensorMemory& memory) {
  uint64_t sum = 0;
  for (const std::byte* block : memory.blocks()) {
    for (uint64_t i = 0; i < kTensorBytes; i += 8) sum += load_le<uint64_t>(block + i);
  }
  return sum;
}

// Times `work`, and counts what earlier sections left resident as memory of this one too.
template <typename Work>
Result<Json> measured(int64_t& retained, Work&& work) {
  const uint64_t read = storage_bytes_read();
  const Stopwatch watch;
  CAISSON_RETURN_IF_ERROR(work());
  const Usage usage = watch.stop();
  Json answer = {{"cpu_seconds", usage.cpu_seconds},
                 {"extra_bytes", usage.peak_bytes + retained},
                 {"read_bytes", storage_bytes_read() - read}};
  retained += usage.retained_bytes;
  return answer;
}

Result<Json> Rank::set_up(const Json& request) {
  rank_ = request.at("rank");
  ranks_ = request.at("ranks");
  bytes_ = request.at("bytes");
  StoreOptions options;
  options.io_engine = request.at("io_engine");
  options.memory_bytes_max = request.at("memory_bytes_max");
  CAISSON_ASSIGN_OR_RETURN(memory_, TensorMemory::aligned(bytes_));
  memory_->fill(100 + rank_);
  CAISSON_ASSIGN_OR_RETURN(store_, Store::open(request.at("store"), options));
  return Json{{"sum", sum_of(*memory_)}};
}

Result<Json> Rank::save(const Json& request) {
  SaveOptions options;
  options.codec = "raw";
  const std::vector<TensorShard> shards = row_shards(*memory_, rank_, ranks_);
  std::string token;
  CAISSON_ASSIGN_OR_RETURN(Json answer, measured(retained_, [&]() -> Status {
                             CAISSON_ASSIGN_OR_RETURN(
                                 const auto part,
                                 store_->join_save(request.at("ticket"), rank_, options));
                             CAISSON_RETURN_IF_ERROR(part->put({.tensors = shards}));
                             CAISSON_ASSIGN_OR_RETURN(SealedPart sealed, part->seal());
                             token = std::move(sealed.token);
                             return {};
                           }));
  answer["token"] = token;
  return answer;
}

Result<Json> Rank::restore(const Json& request) {
  const std::vector<TensorTarget> targets = column_targets(*memory_, rank_, ranks_);
  return measured(retained_, [&] { return store_->restore(request.at("name"), targets); });
}

Result<Json> Rank::answer(const Json& request) {
  const std::string what = request.at("do");
  if (what == "set up") return set_up(request);
  if (memory_ == nullptr) return invalid_argument("set up first");
  if (what == "change") {
    memory_->change(request.at("seed"));
    return Json::object();
  }
  if (what == "save") return save(request);
  if (what == "clear") {
    memory_->clear();
    return Json::object();
  }
  if (what == "restore") return restore(request);
  if (what == "sum") return Json{{"sum", sum_of(*memory_)}};
  return invalid_argument("unknown request " + what);
}

}  // namespace

Status run_rank_child() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  Rank rank;
  bool any = false;
  for (std::string line; std::getline(std::cin, line); any = true) {
    const Json request = Json::parse(line, nullptr, false);
    if (!request.is_object() || !request.contains("do")) break;
    const Result<Json> answer = rank.answer(request);
    std::cout << (answer.ok() ? *answer : Json{{"error", answer.status().to_string()}}) << "\n"
              << std::flush;
  }
  return any ? ok_status()
             : invalid_argument("this verb is how caisson bench calls itself; use bench");
}

}  // namespace caisson::bench

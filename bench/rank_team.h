// Rank processes that live through all rounds of a case, as the ranks of a job do: `ranks` copies
// of this program, told what to do by one JSON object a line and answering with one. rank_child.cc
// is their side. They die with this process. Single-threaded driver.
#pragma once

#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>
#include <vector>

#include "caisson/result.h"

namespace caisson::bench {

// The hidden verb that main() hands to run_rank_child().
inline constexpr const char* kRankVerb = "bench-rank";

class RankTeam {
 public:
  using Json = nlohmann::json;

  static Result<std::unique_ptr<RankTeam>> start(uint32_t ranks, std::stop_token stop);
  ~RankTeam();  // their standard input ends, and so do they
  RankTeam(const RankTeam&) = delete;
  RankTeam& operator=(const RankTeam&) = delete;

  uint32_t ranks() const { return static_cast<uint32_t>(children_.size()); }
  // Sends `request` to all at once; their answers in the order of the ranks, or the first error.
  Result<std::vector<Json>> ask(Json request);

 private:
  struct Child {
    int pid = -1;
    int in = -1, out = -1;
    std::string read_ahead;
  };
  explicit RankTeam(std::stop_token stop) : stop_(std::move(stop)) {}
  Status spawn();
  Result<Json> answer_of(Child& child);

  const std::stop_token stop_;
  std::vector<Child> children_;
};

// The child's whole life: answers requests on standard output until standard input ends.
Status run_rank_child();

}  // namespace caisson::bench

// The table of codecs on training states: what is wanted of each kind of tensor, what was measured,
// and whether that is enough; as text and as JSON ("caisson.bench.codecs/1"). Thread-compatible.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "bench/codecs/measurement.h"
#include "bench/spread.h"

namespace caisson::bench {

struct Figure {
  std::string name;  // "ratio", "encode", "decode", "with hashing"
  std::string unit;  // "", "of memcpy", "GB/s"
  Spread value;
  std::optional<double> target;  // at least
  bool printed = true;
  bool met() const { return !target || value.median >= *target; }
};

struct Row {
  std::string data, codec;
  std::vector<Figure> figures;
};

class CodecTable {
 public:
  // Rows of every track of a sample. `data` says what the sample is: "bf16 weights".
  void add(const std::string& data, const Sample& sample, const Measurement& measurement);
  // What saving all samples so far comes to, each by the codecs of a policy. Those with a twin are
  // stored as that.
  void add_whole_state(const std::string& data);

  // Prints the rows since the last call.
  void print_new();
  nlohmann::ordered_json json() const;

 private:
  // A policy on the samples so far.
  struct State {
    double raw_bytes = 0, stored_bytes = 0;
    std::vector<double> seconds;  // encoding and hashing, one for each round
    void add(const Sample& sample, const Track& track, const std::vector<double>& hash);
  };

  State fast_, small_, chosen_;
  std::vector<Row> rows_;
  size_t printed_ = 0;
};

}  // namespace caisson::bench

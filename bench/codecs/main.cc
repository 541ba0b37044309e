// caisson_codecs: ratio and speed of every float codec on real tensors, and of what a save chooses
// among all of them ("auto"), on one core, beside memcpy of the same bytes in the same round;
// medians of rounds.
//
//   caisson_codecs [--rounds N] [--mib N] [--json FILE] PATH...
//
// A PATH is a safetensors file, or a directory that bench/train_state.py filled: then the last step
// of each run is measured, and the bf16 weights against those of 1 and 100 steps before.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "bench/codecs/codec_table.h"
#include "bench/codecs/measurement.h"
#include "bench/codecs/samples.h"
#include "bench/machine.h"
#include "compression/codecs.h"
#include "compression/float_layout.h"
#include "compression/plane_kernels.h"

namespace caisson::bench {
namespace {

namespace fs = std::filesystem;

struct Options {
  unsigned rounds = 7;
  uint64_t bytes_min = uint64_t{256} << 20;
  std::string json;
  std::vector<std::string> paths;
};

// What people call a kind of tensor.
std::string words_for(const Sample& sample) {
  const std::string bits =
      sample.dtype.bits == 16 ? "bf16" : "fp" + std::to_string(sample.dtype.bits);
  if (sample.kind == "model") return bits + " weights";
  if (sample.kind == "master") return "master beside bf16";
  if (sample.kind == "exp_avg") return "Adam m";
  if (sample.kind == "exp_avg_sq") return "Adam v";
  return "pretrained " + dtype_name(sample.dtype);
}

Status measure_samples(const Options& options, const std::vector<Sample>& samples,
                       CodecTable& table) {
  for (const Sample& sample : samples) {
    if (!float_layout_of(sample.format())) continue;
    std::vector<const Codec*> codecs = {&bit_planes_codec(), &entropy_planes_codec(), nullptr};
    if (sample.base.size() != 0) codecs.push_back(&twin_codec());
    CAISSON_ASSIGN_OR_RETURN(Measurement measurement, Measurement::make(sample, codecs));
    CAISSON_RETURN_IF_ERROR(measurement.run(options.rounds));
    table.add(words_for(sample), sample, measurement);
    table.print_new();
  }
  return ok_status();
}

Status measure_file(const Options& options, const std::string& path, CodecTable& table) {
  std::printf("%s\n", path.c_str());
  CAISSON_ASSIGN_OR_RETURN(const std::vector<Sample> samples,
                           load_samples(path, {}, options.bytes_min));
  return measure_samples(options, samples, table);
}

// The bf16 weights of `path` against those of `anchor`.
Status measure_delta(const Options& options, const std::string& path, const std::string& anchor,
                     const std::string& words, CodecTable& table) {
  CAISSON_ASSIGN_OR_RETURN(const std::vector<Sample> samples,
                           load_samples(path, anchor, options.bytes_min));
  for (const Sample& sample : samples) {
    if (sample.kind != "model" || sample.dtype.bits != 16) continue;
    CAISSON_ASSIGN_OR_RETURN(Measurement measurement, Measurement::make(sample, {&delta_codec()}));
    CAISSON_RETURN_IF_ERROR(measurement.run(options.rounds));
    table.add(words, sample, measurement);
    table.print_new();
  }
  return ok_status();
}

// RUN-STEP.safetensors of a directory, by run and step.
std::map<std::string, std::map<uint64_t, std::string>> find_states(const std::string& directory) {
  std::map<std::string, std::map<uint64_t, std::string>> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    const std::string stem = entry.path().stem();
    const size_t dash = stem.rfind('-');
    if (entry.path().extension() != ".safetensors" || dash == std::string::npos) continue;
    found[stem.substr(0, dash)][std::strtoull(stem.c_str() + dash + 1, nullptr, 10)] =
        entry.path().string();
  }
  return found;
}

Status measure_directory(const Options& options, const std::string& directory, CodecTable& table) {
  const auto runs = find_states(directory);
  if (runs.empty()) return invalid_argument(directory + ": no RUN-STEP.safetensors in it");
  for (const auto& [run, states] : runs) {
    const auto& [last, path] = *states.rbegin();
    CAISSON_RETURN_IF_ERROR(measure_file(options, path, table));
    table.add_whole_state(run == "mixed" ? "whole 14 B state" : "whole 12 B state");
    table.print_new();
    for (const uint64_t before : {1, 100}) {
      const auto anchor = last < before ? states.end() : states.find(last - before);
      if (anchor == states.end()) continue;
      const std::string words =
          "bf16, " + std::to_string(before) + (before == 1 ? " step" : " steps");
      CAISSON_RETURN_IF_ERROR(
          measure_delta(options, path, anchor->second, words + " later", table));
    }
  }
  return ok_status();
}

Status write_json(const Options& options, const CodecTable& table) {
  const nlohmann::ordered_json report = {
      {"schema", "caisson.bench.codecs/1"}, {"machine", machine_words()},
      {"kernels", plane_kernels().name},    {"bytes", options.bytes_min},
      {"rounds", options.rounds},           {"rows", table.json()}};
  std::ofstream file(options.json);
  file << report.dump(2) << "\n";
  return file.good() ? ok_status() : io_error(options.json + ": cannot be written");
}

Status measure(const Options& options) {
  CodecTable table;
  std::printf("%s, %s kernels, one core, %u rounds of %llu MiB\n", machine_words().c_str(),
              plane_kernels().name, options.rounds,
              static_cast<unsigned long long>(options.bytes_min >> 20));
  for (const std::string& path : options.paths) {
    if (fs::is_directory(path)) {
      CAISSON_RETURN_IF_ERROR(measure_directory(options, path, table));
    } else {
      CAISSON_RETURN_IF_ERROR(measure_file(options, path, table));
    }
  }
  return options.json.empty() ? ok_status() : write_json(options, table);
}

int run(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--rounds" && has_value) {
      options.rounds = std::max(1u, static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10)));
    } else if (argument == "--mib" && has_value) {
      options.bytes_min = std::max<uint64_t>(1, std::strtoull(argv[++i], nullptr, 10)) << 20;
    } else if (argument == "--json" && has_value) {
      options.json = argv[++i];
    } else {
      options.paths.push_back(argument);
    }
  }
  if (options.paths.empty()) {
    std::fprintf(stderr,
                 "usage: caisson_codecs [--rounds N] [--mib N] [--json FILE] PATH...\n"
                 "PATH is a safetensors file, or a directory that bench/train_state.py filled\n");
    return 2;
  }
  const Status status = measure(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.to_string().c_str());
  return 1;
}

}  // namespace
}  // namespace caisson::bench

int main(int argc, char** argv) { return caisson::bench::run(argc, argv); }

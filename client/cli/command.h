// What a verb of the command line is, and what it may use while it runs. Every verb is one file
// with one Command; commands.h lists them and main.cc runs the chosen one. Single-threaded.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <stop_token>
#include <string>

#include "caisson/options.h"
#include "caisson/result.h"

namespace caisson::cli {

using Json = nlohmann::ordered_json;

// Options that every verb has.
struct Globals {
  bool json = false;
  bool quiet = false;
  std::string io_engine = "auto";
  uint64_t memory_bytes_max = StoreOptions{}.memory_bytes_max;
  std::string trace_file;    // empty: none
  std::string metrics_file;  // empty: none
};

class TraceFile;    // trace_file.h
class MetricsFile;  // metrics_file.h

struct Session {
  const Globals& globals;
  std::stop_token stop;  // the person pressed Ctrl-C, or SIGTERM came
  TraceFile& trace;
  MetricsFile& metrics;

  StoreOptions store_options(bool create) const;
};

class Command {
 public:
  virtual ~Command() = default;
  // True for a verb that forks and so must find no other thread: Ctrl-C then ends it at once.
  virtual bool is_single_threaded() const { return false; }
  // Adds options and arguments to the verb's own CLI::App.
  virtual void define(CLI::App& app) = 0;
  // The exit code (exit_code.h); a Status that is not ok is printed and mapped to one by main.
  virtual Result<int> run(const Session& session) = 0;
};

}  // namespace caisson::cli

// How numbers, names and times look to people, and how JSON goes out. Used by every verb. Pure, but
// for print_json.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "caisson/result.h"
#include "client/cli/command.h"

namespace caisson::cli {

std::string human_bytes(uint64_t bytes);  // "90.9 MB": powers of 1000, three digits
std::string human_rate(uint64_t bytes, double seconds);
std::string human_seconds(double seconds);  // "0.8 s", "3 min 20 s"
std::string percent(uint64_t part, uint64_t whole);
std::string utc_time(int64_t unix_ns);  // "2026-01-31 12:00:00Z"
// Names come from files of others: control characters and broken UTF-8 never reach a terminal.
std::string printable(std::string_view name);
// "5GB", "256MiB", "1048576". kInvalidArgument for anything else or zero.
Result<uint64_t> parse_bytes(std::string_view text);

// Columns padded to their widest cell, two blanks between; columns in `right` are right-aligned.
class Table {
 public:
  explicit Table(std::vector<std::string> titles, std::vector<bool> right);
  void add(std::vector<std::string> row);
  void print() const;

 private:
  std::vector<std::vector<std::string>> rows_;
  std::vector<bool> right_;
};

// A checkpoint's metadata; an empty object where it is not JSON.
Json metadata_json(const std::string& text);

// One document on standard output, indented.
void print_json(const Json& json);

}  // namespace caisson::cli

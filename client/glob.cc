// See glob.h. One place to go back to is enough: an earlier '*' never has to give more than a later
// one can take.
#include "client/glob.h"

#include <cstddef>

namespace caisson {
namespace {

// How many bytes of `glob` make its first element, and whether that element matches `byte`.
struct Step {
  size_t length = 1;
  bool matches = false;
};

// REQUIRES: glob[0] == '['.
Step match_set(std::string_view glob, char byte) {
  size_t at = 1;
  const bool negated = at < glob.size() && (glob[at] == '!' || glob[at] == '^');
  if (negated) ++at;
  const size_t first = at;
  bool found = false;
  const auto value = static_cast<unsigned char>(byte);
  while (at < glob.size() && (glob[at] != ']' || at == first)) {
    const auto low = static_cast<unsigned char>(glob[at]);
    auto high = low;
    if (at + 2 < glob.size() && glob[at + 1] == '-' && glob[at + 2] != ']') {
      high = static_cast<unsigned char>(glob[at + 2]);
      at += 2;
    }
    found = found || (low <= value && value <= high);
    ++at;
  }
  if (at >= glob.size()) return {.length = 1, .matches = byte == '['};  // never closed
  return {.length = at + 1, .matches = found != negated};
}

// REQUIRES: glob is not empty and does not start with '*'.
Step match_one(std::string_view glob, char byte) {
  if (glob[0] == '?') return {.length = 1, .matches = true};
  if (glob[0] == '[') return match_set(glob, byte);
  if (glob[0] == '\\' && glob.size() > 1) return {.length = 2, .matches = glob[1] == byte};
  return {.length = 1, .matches = glob[0] == byte};
}

}  // namespace

bool matches_glob(std::string_view glob, std::string_view name) {
  bool has_star = false;
  std::string_view star_glob;  // what follows the last '*'
  std::string_view star_name;  // what that '*' has not taken yet
  while (!name.empty()) {
    if (!glob.empty() && glob[0] == '*') {
      glob.remove_prefix(1);
      has_star = true;
      star_glob = glob;
      star_name = name;
      continue;
    }
    const Step step = glob.empty() ? Step{} : match_one(glob, name[0]);
    if (!glob.empty() && step.matches) {
      glob.remove_prefix(step.length);
      name.remove_prefix(1);
      continue;
    }
    if (!has_star) return false;
    star_name.remove_prefix(1);
    glob = star_glob;
    name = star_name;
  }
  while (!glob.empty() && glob[0] == '*') glob.remove_prefix(1);
  return glob.empty();
}

}  // namespace caisson

#include "io/object_store.h"

#include <algorithm>

namespace caisson {

Status check_key(std::string_view key) {
  constexpr size_t kKeyBytesMax = 200;
  const auto bad = [&](std::string_view why) {
    return invalid_argument("object key \"" + std::string(key.substr(0, kKeyBytesMax)) + "\" " +
                            std::string(why));
  };
  if (key.empty()) return bad("is empty");
  if (key.size() > kKeyBytesMax) return bad("is longer than 200 bytes");
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '/' || c == '_' || c == '.' ||
           c == '-';
  };
  if (!std::all_of(key.begin(), key.end(), allowed)) return bad("has a byte outside [a-z0-9/_.-]");
  if (key.front() == '/' || key.back() == '/') return bad("starts or ends with \"/\"");
  if (key.find("//") != key.npos) return bad("has an empty part");
  for (size_t at = 0; at != key.npos;) {
    const size_t end = key.find('/', at);
    const std::string_view part = key.substr(at, end == key.npos ? key.npos : end - at);
    if (part == ".") return bad("has a part \".\"");
    at = end == key.npos ? key.npos : end + 1;
  }
  if (key.find("..") != key.npos) return bad("has \"..\" in it");
  return ok_status();
}

}  // namespace caisson

// The sentence that ends every message about damage: what a person should run next. Pure.
#pragma once

#include <string>
#include <string_view>

namespace caisson {

// `name` is "run/step", or empty where the damage hides it. `depth` is one of verify's depths.
inline std::string verify_hint(std::string_view name, std::string_view depth) {
  std::string text = "; next: caisson verify STORE ";
  text += name.empty() ? std::string_view("NAME") : name;
  text += " --depth ";
  text += depth;
  return text;
}

}  // namespace caisson

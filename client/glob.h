// Globs over tensor names, as Store::tensors, export and show take them. Pure.
//
//   "*.weight" matches "a.b.weight" and "a/weight"; "layer.[0-3].*", "l?yer", "[!a]*"
#pragma once

#include <string_view>

namespace caisson {

// '*' matches any run of bytes (separators too), '?' one byte, '[a-z]' one byte of the set,
// '[!a-z]' one outside it; '\' takes the next byte literally. A '[' without its ']' is a plain
// byte. Time is at most the product of the two lengths.
bool matches_glob(std::string_view glob, std::string_view name);

}  // namespace caisson

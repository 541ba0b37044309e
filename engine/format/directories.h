// A store whose packs lie in several directories, each on a device of its own perhaps: the list of
// the further directories, the marker in each of them, and where a pack belongs. docs/format.md,
// "Several directories". Pure; decoders treat bytes as hostile.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/format/names.h"

namespace caisson::format {

inline constexpr uint32_t kDirectoriesMax = 64;
inline constexpr size_t kDirectoryPathBytesMax = 4096;

// In the store's own directory, the first; written last when such a store is made.
inline constexpr std::string_view kDirectoriesKey = "caisson.directories";
// In each further directory.
inline constexpr std::string_view kDirectoryKey = "caisson.directory";

// The further directories where they were when the store was made: absolute paths.
ByteVector encode_directories(const Uuid& store, const std::vector<std::string>& paths);
Result<std::vector<std::string>> decode_directories(const Uuid& store, Bytes bytes);

struct DirectoryMarker {
  Uuid store;
  uint32_t number = 1;  // from 1; the first directory is 0 and has the store file instead
  uint32_t count = 2;   // of all directories
  bool operator==(const DirectoryMarker&) const = default;
};
ByteVector encode_directory_marker(const DirectoryMarker& marker);
// `what` names the object in messages.
Result<DirectoryMarker> decode_directory_marker(Bytes bytes, std::string_view what);

// The directory of `count` that an object belongs to: packs are spread, one after the other of a
// writer; everything else lies in the first.
uint32_t directory_of(std::string_view key, uint32_t count);

}  // namespace caisson::format

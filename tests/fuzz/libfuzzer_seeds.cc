// For libFuzzer builds: writes a target's seeds into the first corpus directory on the command line
// before fuzzing starts.
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  for (int i = 1; i < *argc; ++i) {
    const std::string directory = (*argv)[i];
    if (directory.starts_with("-")) continue;
    if (std::filesystem::is_regular_file(directory)) return 0;  // replays one input
    std::filesystem::create_directories(directory);
    int number = 0;
    for (const caisson::ByteVector& seed : caisson::testing::fuzz_seeds()) {
      std::ofstream out(directory + "/seed-" + std::to_string(number++), std::ios::binary);
      out.write(reinterpret_cast<const char*>(seed.data()),
                static_cast<std::streamsize>(seed.size()));
    }
    return 0;
  }
  return 0;
}

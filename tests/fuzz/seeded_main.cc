// Runs a fuzz target without libFuzzer: every seed, then mutations of seeds that are the same in
// every run.
//
//   x_fuzz [RUNS [SEED]]   mutated inputs, 20000 by default
//   x_fuzz --replay FILE   one input, such as one that libFuzzer found
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "tests/fuzz/fuzz.h"

namespace {

using caisson::ByteVector;

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  ByteVector mutate(ByteVector bytes, const ByteVector& other) {
    for (uint64_t i = below(4) + 1; i > 0; --i) mutate_once(bytes, other);
    return bytes;
  }
  uint64_t below(uint64_t end) { return end == 0 ? 0 : random_() % end; }

 private:
  void mutate_once(ByteVector& bytes, const ByteVector& other) {
    static constexpr uint64_t kInteresting[] = {0,   1,    40,       64,         4095,      4096,
                                                255, 1024, 1u << 16, 0x7fffffff, UINT64_MAX};
    const uint64_t at = below(bytes.size());
    switch (bytes.empty() ? 5 : below(7)) {
      case 0:
        bytes[at] ^= static_cast<std::byte>(1 << below(8));
        break;
      case 1:
        bytes[at] = static_cast<std::byte>(random_());
        break;
      case 2:  // a length or an offset
        for (uint64_t i = 0, value = kInteresting[below(std::size(kInteresting))],
                      count = uint64_t{1} << below(4);
             i < count && at + i < bytes.size(); ++i) {
          bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
        }
        break;
      case 3:
        bytes.resize(at);
        break;
      case 4: {  // a range again, or gone
        const auto begin = bytes.begin() + static_cast<ptrdiff_t>(at);
        const auto end = begin + static_cast<ptrdiff_t>(below(bytes.size() - at));
        if (below(2) == 0) {
          bytes.erase(begin, end);
        } else {
          const ByteVector copy(begin, end);
          bytes.insert(begin, copy.begin(), copy.end());
        }
        break;
      }
      case 5:
        bytes.insert(bytes.end(), below(64), static_cast<std::byte>(random_()));
        break;
      default:  // the tail of another seed
        if (other.size() > at) {
          bytes.resize(at);
          bytes.insert(bytes.end(), other.begin() + static_cast<ptrdiff_t>(at), other.end());
        }
    }
  }

  std::mt19937_64 random_;
};

void run(const ByteVector& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "--replay") {
    std::ifstream in(argv[2], std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const auto bytes = caisson::as_bytes(text);
    run(ByteVector(bytes.begin(), bytes.end()));
    return 0;
  }
  const uint64_t runs = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20'000;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
  std::printf("%llu runs, seed %llu\n", static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  const std::vector<ByteVector> seeds = caisson::testing::fuzz_seeds();
  for (const ByteVector& input : seeds) run(input);
  Mutator mutator(seed);
  for (uint64_t i = 0; i < runs; ++i) {
    const ByteVector& from = seeds[mutator.below(seeds.size())];
    run(mutator.mutate(from, seeds[mutator.below(seeds.size())]));
  }
  return 0;
}

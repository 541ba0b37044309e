// Content ids and checksums of whole tiles and of small ones. Bytes a second; "cold" goes through
// more memory than any cache has.
#include <benchmark/benchmark.h>

#include "io/base/buffer.h"
#include "io/base/hash.h"

namespace caisson {
namespace {

constexpr uint64_t kColdBytes = 256u << 20;

template <typename Hash>
void hash_over(benchmark::State& state, uint64_t memory_bytes, Hash&& hash) {
  const auto bytes = static_cast<uint64_t>(state.range(0));
  auto memory = AlignedBuffer::allocate(memory_bytes, true);
  if (!memory.ok()) return state.SkipWithError("no memory");
  uint64_t at = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(hash(Bytes(memory->bytes()).subspan(at, bytes)));
    at = at + 2 * bytes <= memory_bytes ? at + bytes : 0;
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void content_id_cold(benchmark::State& state) {
  hash_over(state, kColdBytes, [](Bytes raw) { return content_id(raw, 16); });
}
void content_id_cached(benchmark::State& state) {
  hash_over(state, static_cast<uint64_t>(state.range(0)),
            [](Bytes raw) { return content_id(raw, 16); });
}
void checksum_cold(benchmark::State& state) {
  hash_over(state, kColdBytes, [](Bytes raw) { return checksum64(raw, 7); });
}

BENCHMARK(content_id_cold)->Arg(20 << 10)->Arg(512 << 10)->Arg(1 << 20);
BENCHMARK(content_id_cached)->Arg(4 << 10)->Arg(20 << 10)->Arg(512 << 10);
BENCHMARK(checksum_cold)->Arg(20 << 10)->Arg(512 << 10);

}  // namespace
}  // namespace caisson

// THE restore path: fills boxes of a checkpoint's tensors in the caller's memory, verified. Called
// by client/restorer.cc. The stages carry the numbers of docs/architecture.md: 1 manifest, 2 plan,
// 3 read, 4 decode, 5 verify, 6 place. Thread-safe: every call has its own queue and buffers.
#pragma once

#include <span>

#include "caisson/options.h"
#include "engine/manifest.h"
#include "io/base/buffer.h"

namespace caisson {

// What a restore did, for reports and benches.
struct RestoreReport {
  uint64_t raw_bytes = 0;     // placed
  uint64_t stored_bytes = 0;  // of the chunks that were needed, each once
  uint64_t read_bytes = 0;    // with gaps and alignment
  uint64_t chunks = 0;
  uint64_t reads = 0;
  uint64_t retried_chunks = 0;  // failed their check once and passed on a second reading
};

// Ok means that every byte of every target is the committed one. On an error the targets' content
// is unspecified: bytes are read and copied to their place first and verified there.
Result<RestoreReport> restore_boxes(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                                    std::span<const TensorTarget> targets,
                                    const RestoreOptions& options, Trace* trace = nullptr,
                                    Metrics* metrics = nullptr);

}  // namespace caisson

// An IoQueue on io_uring. Made by PosixFileSystem; belongs to the thread that submits first.
#pragma once

#include <memory>

#include "caisson/result.h"
#include "io/file_system.h"

namespace caisson {

// Ok when this process may use io_uring and the kernel has what we need; otherwise the errno's own
// words, for io_engine().
Status probe_uring();

// Registers options.registered_memory, or goes on without where the kernel refuses. That memory
// outlives the queue.
Result<std::unique_ptr<IoQueue>> make_uring_queue(const IoQueueOptions& options);

}  // namespace caisson

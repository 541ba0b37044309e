// An IoQueue on pread and pwrite by a few threads, for hosts that forbid io_uring. Made by
// PosixFileSystem; belongs to one thread, as every IoQueue.
#pragma once

#include <memory>

#include "caisson/result.h"
#include "io/file_system.h"

namespace caisson {

// Does not register memory: there is no kernel object to register it with.
Result<std::unique_ptr<IoQueue>> make_thread_queue(const IoQueueOptions& options);

}  // namespace caisson

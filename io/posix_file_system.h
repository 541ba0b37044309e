// The real FileSystem: POSIX files with O_DIRECT, and io_uring or threads below its queues. Whoever
// opens a store makes one. Thread-safe.
#pragma once

#include <memory>
#include <string_view>

#include "caisson/result.h"
#include "io/file_system.h"

namespace caisson {

// `engine`: "auto" probes io_uring once and falls back to threads, keeping the reason for
// io_engine(); "io_uring" fails with kUnsupported where it is forbidden; "threads" is pread and
// pwrite; "buffered" is threads without O_DIRECT. Anything else is kInvalidArgument.
Result<std::unique_ptr<FileSystem>> make_posix_file_system(std::string_view engine = "auto");

}  // namespace caisson

// The exit codes that scripts may rely on: docs/operations.md, "Exit codes". Never renumber. Pure.
#pragma once

#include "caisson/status.h"

namespace caisson::cli {

inline constexpr int kExitOk = 0;
inline constexpr int kExitDifferent = 1;  // diff --exit-code found a difference
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitCorruption = 4;
inline constexpr int kExitConflict = 5;  // exists already, or fenced by another writer
inline constexpr int kExitIo = 6;
inline constexpr int kExitNoSpace = 7;  // disk, quota, descriptors or memory
inline constexpr int kExitUnsupported = 8;
inline constexpr int kExitInterrupted = 130;

constexpr int exit_code_of(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return kExitOk;
    case StatusCode::kInvalidArgument:
      return kExitUsage;
    case StatusCode::kNotFound:
      return kExitNotFound;
    case StatusCode::kAlreadyExists:
    case StatusCode::kFenced:
      return kExitConflict;
    case StatusCode::kCorruption:
      return kExitCorruption;
    case StatusCode::kIoError:
      return kExitIo;
    case StatusCode::kNoSpace:
    case StatusCode::kOutOfMemory:
      return kExitNoSpace;
    case StatusCode::kCancelled:
      return kExitInterrupted;
    case StatusCode::kUnsupported:
      return kExitUnsupported;
  }
  return kExitIo;
}

}  // namespace caisson::cli

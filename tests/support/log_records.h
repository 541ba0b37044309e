// Records of the log by hand, for tests of the log, of gc and of the model. Pure.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/log_state.h"

namespace caisson {

// Distinct, and readable in failures: the number is the last byte in hex.
inline Uuid numbered_uuid(uint8_t number) {
  Uuid uuid;
  uuid.bytes.back() = std::byte{number};
  return uuid;
}

inline format::ObjectRef object_of(uint8_t save, format::ObjectKind kind, uint32_t number = 0) {
  return {
      .kind = kind, .save = numbered_uuid(save), .writer = numbered_uuid(save), .number = number};
}
inline format::SealedRef root_of(uint8_t save, uint32_t number = 0) {
  return {.object = object_of(save, format::ObjectKind::kRoot, number), .bytes = 100, .digest = {}};
}

inline format::OpenRecord open_save(uint8_t save, uint64_t step, uint64_t epoch = 1,
                                    std::vector<format::CommitSeq> bases = {},
                                    std::string run = "r") {
  return {.save = numbered_uuid(save),
          .run = std::move(run),
          .step = step,
          .epoch = epoch,
          .bases = std::move(bases)};
}
inline format::CommitRecord commit_save(uint8_t save, uint64_t step, uint64_t epoch = 1,
                                        bool replaces = false, std::string run = "r") {
  return {.save = numbered_uuid(save),
          .run = std::move(run),
          .step = step,
          .epoch = epoch,
          .root = root_of(save),
          .replaces_same_step = replaces};
}
inline format::ClaimRecord claim_run(uint64_t epoch, format::CommitSeq base = 0,
                                     std::string run = "r") {
  return {.run = std::move(run), .epoch = epoch, .base = base};
}

}  // namespace caisson

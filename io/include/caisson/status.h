// The outcome of an operation that can fail. Nothing in Caisson throws; every fallible call
// returns a Status, or a Result<T> (result.h). A Status is one pointer; null means success, so
// the good path costs a register. Copies share the immutable message. Thread-compatible.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace caisson {

// At most ten ways to fail. A caller decides by the code; a person decides by the message.
enum class StatusCode : uint8_t {
  kOk = 0,
  kInvalidArgument = 1,  // the caller asked for something that cannot be; do not retry as it is
  kNotFound = 2,         // the named thing is not there
  kAlreadyExists = 3,    // create-once found an earlier creation
  kCorruption = 4,       // bytes from storage are not what was written; the message says where
  kIoError = 5,          // the device or the network failed; the writer concerned is poisoned
  kNoSpace = 6,          // disk, quota or descriptor table is full; nothing was acknowledged
  kOutOfMemory = 7,      // the memory budget or the host refused
  kFenced = 8,           // a newer claim, prune or condemn came first; this writer or reader lost
  kCancelled = 9,        // the caller cancelled
  kUnsupported = 10,     // a newer format, or a feature that this build or target lacks
};

// Lower-case words for people, logs and --json ("not found", "corruption", ...).
std::string_view status_code_name(StatusCode code);

class [[nodiscard]] Status {
 public:
  Status() = default;  // success
  // REQUIRES: code != kOk. Messages say what, where (file, offset, id) and what to do next.
  Status(StatusCode code, std::string message);

  bool ok() const { return rep_ == nullptr; }
  StatusCode code() const { return ok() ? StatusCode::kOk : rep_->code; }
  // Empty on success. Valid as long as this Status (or a copy) lives.
  std::string_view message() const;
  // "corruption: pack 3f..: ..." or "ok".
  std::string to_string() const;
  // The same code, the message prefixed by "where: ". Success stays success.
  Status with_context(std::string_view where) const;

 private:
  struct Rep {
    StatusCode code;
    std::string message;
  };
  std::shared_ptr<const Rep> rep_;
};

inline Status ok_status() { return {}; }
Status invalid_argument(std::string message);
Status not_found(std::string message);
Status already_exists(std::string message);
Status corruption(std::string message);
Status io_error(std::string message);
Status no_space(std::string message);
Status out_of_memory(std::string message);
Status fenced(std::string message);
Status cancelled(std::string message);
Status unsupported(std::string message);
// The Status for an errno value: ENOSPC, EDQUOT, EMFILE and ENFILE become kNoSpace, ENOENT
// kNotFound, EEXIST kAlreadyExists, ENOMEM kOutOfMemory, everything else kIoError. The message is
// "what: strerror (errno n)".
Status errno_status(int error, std::string_view what);

}  // namespace caisson

#define CAISSON_RETURN_IF_ERROR(expr)                  \
  do {                                                 \
    ::caisson::Status caisson_status_ = (expr);        \
    if (!caisson_status_.ok()) return caisson_status_; \
  } while (false)

#include "caisson/status.h"

#include <cerrno>
#include <cstring>

#include "io/base/check.h"

namespace caisson {

std::string_view status_code_name(StatusCode code) {
  switch (code) {
    case StatusCode::kOk:
      return "ok";
    case StatusCode::kInvalidArgument:
      return "invalid argument";
    case StatusCode::kNotFound:
      return "not found";
    case StatusCode::kAlreadyExists:
      return "already exists";
    case StatusCode::kCorruption:
      return "corruption";
    case StatusCode::kIoError:
      return "I/O error";
    case StatusCode::kNoSpace:
      return "no space";
    case StatusCode::kOutOfMemory:
      return "out of memory";
    case StatusCode::kFenced:
      return "fenced";
    case StatusCode::kCancelled:
      return "cancelled";
    case StatusCode::kUnsupported:
      return "unsupported";
  }
  return "unknown";
}

Status::Status(StatusCode code, std::string message)
    : rep_(std::make_shared<const Rep>(Rep{code, std::move(message)})) {
  CAISSON_CHECK(code != StatusCode::kOk);
}

std::string_view Status::message() const { return ok() ? std::string_view() : rep_->message; }

std::string Status::to_string() const {
  if (ok()) return "ok";
  return std::string(status_code_name(rep_->code)) + ": " + rep_->message;
}

Status Status::with_context(std::string_view where) const {
  if (ok()) return {};
  return {rep_->code, std::string(where) + ": " + rep_->message};
}

Status invalid_argument(std::string m) { return {StatusCode::kInvalidArgument, std::move(m)}; }
Status not_found(std::string m) { return {StatusCode::kNotFound, std::move(m)}; }
Status already_exists(std::string m) { return {StatusCode::kAlreadyExists, std::move(m)}; }
Status corruption(std::string m) { return {StatusCode::kCorruption, std::move(m)}; }
Status io_error(std::string m) { return {StatusCode::kIoError, std::move(m)}; }
Status no_space(std::string m) { return {StatusCode::kNoSpace, std::move(m)}; }
Status out_of_memory(std::string m) { return {StatusCode::kOutOfMemory, std::move(m)}; }
Status fenced(std::string m) { return {StatusCode::kFenced, std::move(m)}; }
Status cancelled(std::string m) { return {StatusCode::kCancelled, std::move(m)}; }
Status unsupported(std::string m) { return {StatusCode::kUnsupported, std::move(m)}; }

Status errno_status(int error, std::string_view what) {
  StatusCode code = StatusCode::kIoError;
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
      code = StatusCode::kNoSpace;
      break;
    case ENOENT:
      code = StatusCode::kNotFound;
      break;
    case EEXIST:
      code = StatusCode::kAlreadyExists;
      break;
    case ENOMEM:
      code = StatusCode::kOutOfMemory;
      break;
    default:
      break;
  }
  char text[128] = {};
  const char* words = ::strerror_r(error, text, sizeof text);  // the GNU form returns the text
  return {code, std::string(what) + ": " + words + " (errno " + std::to_string(error) + ")"};
}

}  // namespace caisson

// A value, or the Status that says why there is none. Thread-compatible.
#pragma once

#include <cstdlib>
#include <utility>
#include <variant>

#include "caisson/status.h"

namespace caisson {

template <typename T>
class [[nodiscard]] Result {
 public:
  // Implicit on purpose: `return value;` and `return status;` both read well.
  // NOLINTNEXTLINE(google-explicit-constructor)
  Result(T value) : rep_(std::in_place_index<0>, std::move(value)) {}
  // REQUIRES: !status.ok().
  // NOLINTNEXTLINE(google-explicit-constructor)
  Result(Status status) : rep_(std::in_place_index<1>, std::move(status)) {
    if (std::get<1>(rep_).ok()) std::abort();
  }

  bool ok() const { return rep_.index() == 0; }
  Status status() const { return ok() ? Status() : std::get<1>(rep_); }

  // REQUIRES: ok().
  T& value() & { return std::get<0>(rep_); }
  const T& value() const& { return std::get<0>(rep_); }
  T&& value() && { return std::get<0>(std::move(rep_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

 private:
  std::variant<T, Status> rep_;
};

}  // namespace caisson

#define CAISSON_CONCAT_INNER(a, b) a##b
#define CAISSON_CONCAT(a, b) CAISSON_CONCAT_INNER(a, b)
// CAISSON_ASSIGN_OR_RETURN(auto x, f()); binds x to the value, or returns the Status.
#define CAISSON_ASSIGN_OR_RETURN(decl, expr) \
  CAISSON_ASSIGN_OR_RETURN_IMPL(CAISSON_CONCAT(caisson_result_, __LINE__), decl, expr)
#define CAISSON_ASSIGN_OR_RETURN_IMPL(tmp, decl, expr) \
  auto tmp = (expr);                                   \
  if (!tmp.ok()) return tmp.status();                  \
  decl = std::move(tmp).value()

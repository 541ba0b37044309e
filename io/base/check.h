// CAISSON_CHECK(condition): always on, and a failure is a bug of ours, never bad input. Bytes from
// disk or network must be refused with `corruption` instead.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CAISSON_CHECK(condition)                                                                 \
  do {                                                                                           \
    if (!(condition)) [[unlikely]] {                                                             \
      std::fprintf(stderr, "%s:%d: CAISSON_CHECK failed: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                              \
    }                                                                                            \
  } while (false)

// Whether this binary runs under a sanitizer, some ten times slower: long searches then take a
// share of what they take otherwise. ./dev test, which has none, takes all.
#pragma once

namespace caisson::testing {

// gcc has macros for it, Clang has features.
#if defined(__has_feature)
inline constexpr bool kAddressSanitized = __has_feature(address_sanitizer);
inline constexpr bool kThreadSanitized = __has_feature(thread_sanitizer);
#else
#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kAddressSanitized = true;
#else
inline constexpr bool kAddressSanitized = false;
#endif
#if defined(__SANITIZE_THREAD__)
inline constexpr bool kThreadSanitized = true;
#else
inline constexpr bool kThreadSanitized = false;
#endif
#endif
inline constexpr bool kSanitized = kAddressSanitized || kThreadSanitized;

}  // namespace caisson::testing

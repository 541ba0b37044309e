// Whether this binary runs under a sanitizer, some ten times slower: long searches then take a share
// of what they take otherwise. ./dev test, which has none, takes all.
#pragma once

namespace caisson::testing {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace caisson::testing

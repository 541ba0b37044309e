// Tests of client/glob.h.
#include "client/glob.h"

#include <gtest/gtest.h>

#include <string>

namespace caisson {
namespace {

TEST(Glob, MatchesWhatItSays) {
  EXPECT_TRUE(matches_glob("*", ""));
  EXPECT_TRUE(matches_glob("*", "a.b/c"));
  EXPECT_TRUE(matches_glob("*.weight", "a.b.weight"));
  EXPECT_TRUE(matches_glob("layer.[0-3].*", "layer.2.bias"));
  EXPECT_TRUE(matches_glob("l?yer", "layer"));
  EXPECT_TRUE(matches_glob("[!a]*", "b"));
  EXPECT_TRUE(matches_glob("a*b*c", "axxbyybzzc"));
  EXPECT_TRUE(matches_glob("", ""));
  EXPECT_TRUE(matches_glob("[]]", "]"));
  EXPECT_TRUE(matches_glob("\\*", "*"));
  EXPECT_TRUE(matches_glob("a[b", "a[b"));
  EXPECT_TRUE(matches_glob("[a-]x", "-x"));
}

TEST(Glob, RefusesTheRest) {
  EXPECT_FALSE(matches_glob("", "a"));
  EXPECT_FALSE(matches_glob("a", ""));
  EXPECT_FALSE(matches_glob("a?", "a"));
  EXPECT_FALSE(matches_glob("*.weight", "a.weights"));
  EXPECT_FALSE(matches_glob("layer.[0-3].*", "layer.4.bias"));
  EXPECT_FALSE(matches_glob("[!a]*", "a"));
  EXPECT_FALSE(matches_glob("\\*", "a"));
  EXPECT_FALSE(matches_glob("a*b*c", "axxbyybzz"));
}

TEST(Glob, ManyStarsStayCheap) {
  std::string glob;
  for (int i = 0; i < 200; ++i) glob += "a*";
  EXPECT_FALSE(matches_glob(glob + "b", std::string(4000, 'a')));
}

}  // namespace
}  // namespace caisson

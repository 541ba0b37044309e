// Keeps the tree as docs/CONTRIBUTING.md says it is: the dependency rule, the sole users of the
// libraries, names and sizes. It reads the sources as text; CAISSON_SOURCE_DIR is the checkout.
#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

namespace caisson {
namespace {

namespace fs = std::filesystem;

struct Source {
  std::string path;  // relative to the checkout
  std::vector<std::string> lines;
};

std::vector<Source> read_sources(const std::set<std::string>& directories,
                                 const std::set<std::string>& extensions = {".h", ".cc"}) {
  std::vector<Source> sources;
  const fs::path root = CAISSON_SOURCE_DIR;
  for (const std::string& directory : directories) {
    if (!fs::exists(root / directory)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / directory)) {
      if (!extensions.contains(entry.path().extension().string())) continue;
      Source source{fs::relative(entry.path(), root).string(), {}};
      std::ifstream in(entry.path());
      for (std::string line; std::getline(in, line);) source.lines.push_back(line);
      sources.push_back(std::move(source));
    }
  }
  std::sort(sources.begin(), sources.end(),
            [](const Source& a, const Source& b) { return a.path < b.path; });
  return sources;
}

const std::vector<Source>& product() {
  static const std::vector<Source> sources =
      read_sources({"io", "compression", "engine", "client", "bench"});
  return sources;
}

const std::vector<Source>& everything() {
  static const std::vector<Source> sources =
      read_sources({"io", "compression", "engine", "client", "bench", "tests"});
  return sources;
}

// "io/base", "io", "compression", "engine" or "client": the layer of a path or of an include.
std::string layer_of(const std::string& path) {
  static const std::map<std::string, std::string> public_headers = {
      {"caisson/status.h", "io/base"}, {"caisson/result.h", "io/base"},
      {"caisson/tensor.h", "engine"},  {"caisson/options.h", "engine"},
      {"caisson/metrics.h", "engine"}, {"caisson/trace.h", "engine"},
      {"caisson/store.h", "client"},   {"caisson/c.h", "client"}};
  if (const auto found = public_headers.find(path); found != public_headers.end()) {
    return found->second;
  }
  if (path.starts_with("io/base/") || path.starts_with("io/include/")) return "io/base";
  return path.substr(0, path.find('/'));
}

std::vector<std::string> includes_of(const Source& source, char open) {
  std::vector<std::string> found;
  const std::string start = std::string("#include ") + open;
  for (const std::string& line : source.lines) {
    if (!line.starts_with(start)) continue;
    found.push_back(line.substr(10, line.find_first_of("\">", 10) - 10));
  }
  return found;
}

TEST(Tidy, LayersSeeOnlyTheLayersBelow) {
  const std::map<std::string, std::set<std::string>> sees = {
      {"io/base", {"io/base"}},
      {"io", {"io", "io/base"}},
      {"compression", {"compression", "io/base"}},
      {"engine", {"engine", "compression", "io", "io/base"}},
      {"client", {"client", "engine", "compression", "io", "io/base", "bench"}},
      {"bench", {"bench", "client", "engine", "compression", "io", "io/base"}}};
  for (const Source& source : product()) {
    const std::string layer = layer_of(source.path);
    for (const std::string& include : includes_of(source, '"')) {
      EXPECT_TRUE(sees.at(layer).contains(layer_of(include)))
          << source.path << " (layer " << layer << ") includes " << include;
    }
  }
}

TEST(Tidy, EachLibraryHasOneUser) {
  const std::map<std::string, std::string> sole_user = {{"rocksdb/", "engine/index.cc"},
                                                        {"liburing", "io/uring_queue.cc"},
                                                        {"zstd", "compression/zstd_codec.cc"},
                                                        {"xxhash", "io/base/hash.cc"}};
  for (const Source& source : product()) {
    for (const std::string& include : includes_of(source, '<')) {
      for (const auto& [library, user] : sole_user) {
        if (include.starts_with(library)) {
          EXPECT_EQ(source.path, user) << "includes <" << include << ">";
        }
      }
    }
  }
}

TEST(Tidy, PublicHeadersIncludeOnlyTheStandardAndEachOther) {
  for (const Source& source : product()) {
    if (source.path.find("/include/caisson/") == std::string::npos) continue;
    for (const std::string& include : includes_of(source, '"')) {
      EXPECT_TRUE(include.starts_with("caisson/")) << source.path << " includes " << include;
    }
    for (const std::string& include : includes_of(source, '<')) {
      EXPECT_EQ(include.find('/'), std::string::npos) << source.path << " includes " << include;
    }
  }
}

TEST(Tidy, FilesHaveOneSubjectAndSayWhich) {
  static const std::regex drawer("(^|[/_])(util|utils|common|helper|helpers|manager|misc)[._]");
  for (const Source& source : everything()) {
    EXPECT_FALSE(std::regex_search(source.path, drawer)) << source.path << ": name the subject";
    if (source.path.ends_with(".h")) {
      ASSERT_FALSE(source.lines.empty()) << source.path;
      EXPECT_TRUE(source.lines.front().starts_with("//"))
          << source.path << ": open with what it is, who calls it, thread-safety";
      EXPECT_TRUE(std::find(source.lines.begin(), source.lines.end(), "#pragma once") !=
                  source.lines.end())
          << source.path;
    }
    EXPECT_LE(source.lines.size(), 600u) << source.path << ": split it";
  }
}

TEST(Tidy, ScriptsAreNoLonger) {
  const auto scripts = read_sources({"bench", "client", "tests"}, {".c", ".py", ".sh"});
  for (const Source& source : scripts) {
    EXPECT_LE(source.lines.size(), 600u) << source.path << ": split it";
  }
  EXPECT_GT(scripts.size(), 30u) << "they are no longer found";
}

TEST(Tidy, NothingIsThrownDetachedOrLeftUndone) {
  static const std::regex banned(
      R"(\bthrow\b|\.detach\(\)|std::hash<|std::shuffle|\bTODO\b|\bFIXME\b|\bXXX\b|using namespace std)");
  for (const Source& source : product()) {
    for (size_t i = 0; i < source.lines.size(); ++i) {
      const std::string code = source.lines[i].substr(0, source.lines[i].find("//"));
      EXPECT_FALSE(std::regex_search(code, banned))
          << source.path << ":" << i + 1 << ": " << source.lines[i];
    }
  }
}

// The code alone: comments, strings and characters become blanks, preprocessor lines empty.
std::string code_of(const Source& source) {
  std::string code;
  bool in_comment = false;
  bool directive = false;
  for (const std::string& line : source.lines) {
    directive = directive || (!in_comment && line.starts_with('#'));
    for (size_t i = 0; i < line.size() && !directive; ++i) {
      if (in_comment) {
        in_comment = line.compare(i, 2, "*/") != 0;
        if (!in_comment) ++i;
      } else if (line.compare(i, 2, "/*") == 0) {
        in_comment = true;
      } else if (line.compare(i, 2, "//") == 0) {
        break;
      } else if (line.compare(i, 3, "R\"(") == 0) {
        const size_t end = line.find(")\"", i);  // raw strings of ours end on their line
        i = end == std::string::npos ? line.size() : end + 1;
      } else if (line[i] == '"' ||
                 (line[i] == '\'' &&
                  (i == 0 || !std::isalnum(static_cast<unsigned char>(line[i - 1]))))) {
        const char quote = line[i];
        while (++i < line.size() && line[i] != quote) i += line[i] == '\\' ? 1 : 0;
      } else {
        code += line[i];
      }
    }
    directive = directive && line.ends_with('\\');
    code += '\n';
  }
  return code;
}

struct Function {
  size_t line = 0;  // of its opening brace, from 1
  size_t lines = 0;
};

// Function bodies at namespace or class scope; what stands within one counts for it.
std::vector<Function> functions_of(const std::string& code) {
  static const std::regex scope(
      R"(^\s*(template\s*<[^{]*>\s*)?(inline\s+)?(namespace|class|struct|union|enum|extern)\b)");
  enum class Brace : uint8_t { kScope, kFunction, kInitialiser, kOther };
  std::vector<Brace> open;
  std::vector<Function> found;
  std::string head;  // since the last ';' or brace
  size_t line = 1;
  for (const char c : code) {
    if (c == '\n') ++line;
    bool ends_head = c == '{' || c == '}' || c == ';';
    if (c == '{') {
      const bool outside = open.empty() || open.back() == Brace::kScope;
      const bool is_scope = outside && std::regex_search(head, scope);
      const bool has_list = outside && !is_scope && head.find('(') != std::string::npos;
      // "a_{1}" among a constructor's initialisers: its body follows a blank.
      const bool is_body = has_list && std::isspace(static_cast<unsigned char>(head.back())) != 0;
      open.push_back(is_scope   ? Brace::kScope
                     : is_body  ? Brace::kFunction
                     : has_list ? Brace::kInitialiser
                                : Brace::kOther);
      if (is_body) found.push_back({line, 0});
      ends_head = !has_list || is_body;
    } else if (c == '}' && !open.empty()) {
      if (open.back() == Brace::kFunction) found.back().lines = line - found.back().line;
      ends_head = open.back() != Brace::kInitialiser;
      open.pop_back();
    }
    if (ends_head) {
      head.clear();
    } else {
      head += c;
    }
  }
  return found;
}

TEST(Tidy, FunctionsAreMeasured) {
  const Source source{
      "x.cc",
      {"namespace a {", "// {", "class B : public C<int()> {", "  int f() const {", "    if (x) {",
       "      g(\"{\", '{', R\"({)\");", "    }", "  }", "};", "int h(int i) { return i; }",
       "constexpr int kX[] = {1, 2};", "B::B(int i)", "    : a_(i), b_{1} {", "  f();", "}", "}"}};
  std::vector<std::pair<size_t, size_t>> measured;
  for (const Function& function : functions_of(code_of(source))) {
    if (function.lines > 0) measured.emplace_back(function.line, function.lines);
  }
  EXPECT_EQ(measured, (std::vector<std::pair<size_t, size_t>>{{4, 4}, {13, 2}}));
}

TEST(Tidy, FunctionsHaveSeventyLinesAtMost) {
  size_t functions = 0;
  for (const Source& source : everything()) {
    for (const Function& function : functions_of(code_of(source))) {
      ++functions;
      EXPECT_LE(function.lines, 70u) << source.path << ":" << function.line << ": divide it";
    }
  }
  EXPECT_GT(functions, 1000u) << "they are no longer found";
}

// A source that no CMake file lists is dead.
TEST(Tidy, EverySourceIsBuilt) {
  std::string lists;
  for (const auto& entry : fs::recursive_directory_iterator(CAISSON_SOURCE_DIR)) {
    if (entry.path().filename() != "CMakeLists.txt") continue;
    if (entry.path().string().find("/build/") != std::string::npos) continue;
    std::ifstream in(entry.path());
    std::stringstream text;
    text << in.rdbuf();
    lists += text.str();
  }
  for (const Source& source : everything()) {
    if (!source.path.ends_with(".cc")) continue;
    const std::string name = fs::path(source.path).filename().string();
    const std::string stem = fs::path(source.path).stem().string();
    EXPECT_TRUE(lists.find(name) != std::string::npos || lists.find(stem) != std::string::npos)
        << source.path << " is in no CMakeLists.txt";
  }
}

}  // namespace
}  // namespace caisson

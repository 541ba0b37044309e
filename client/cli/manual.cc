// See manual.h.
#include "client/cli/manual.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "client/cli/exit_code.h"

namespace caisson::cli {
namespace {

// The verbs that people see.
std::vector<const CLI::App*> visible_verbs(const CLI::App& app) {
  std::vector<const CLI::App*> verbs;
  for (const CLI::App* verb : app.get_subcommands({})) {
    if (!verb->get_group().empty()) verbs.push_back(verb);
  }
  return verbs;
}

// Text as roff: backslashes, hyphens, and lines that would begin a request.
std::string roff(const std::string& text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\' || c == '-') out += '\\';
    out += c;
    line_start = c == '\n';
  }
  return out;
}

std::string synopsis(const CLI::App& verb) {
  std::string out = fmt::format(".B caisson {}\n", roff(verb.get_name()));
  for (const CLI::Option* option : verb.get_options()) {
    if (!option->get_positional()) continue;
    const std::string name = option->get_name(true);
    out += option->get_required() ? fmt::format(".I {}\n", roff(name))
                                  : fmt::format(".RI [ {} ]\n", roff(name));
  }
  return out + ".RI [ options ]\n";
}

std::string option_entry(const CLI::Option& option) {
  std::string out = ".TP\n";
  if (option.get_positional()) {
    out += fmt::format(".I {}\n", roff(option.get_name(true)));
  } else {
    out += fmt::format(".B {}", roff(option.get_name(false, true)));
    if (option.get_type_size() > 0) out += " " + roff(option.get_type_name());
    out += '\n';
  }
  return out + roff(option.get_description()) + "\n";
}

struct ExitMeaning {
  int code;
  const char* meaning;
};
constexpr std::array kExitMeanings = {
    ExitMeaning{kExitOk, "done"},
    ExitMeaning{kExitDifferent, "diff --exit-code: the checkpoints differ"},
    ExitMeaning{kExitUsage, "the command line or an argument is wrong"},
    ExitMeaning{kExitNotFound, "the store, checkpoint, tensor or file is not there"},
    ExitMeaning{kExitCorruption, "stored or imported bytes are damaged"},
    ExitMeaning{kExitConflict, "the name is taken, or another writer came first"},
    ExitMeaning{kExitIo, "a device or a process failed"},
    ExitMeaning{kExitNoSpace, "no space, descriptors or memory left"},
    ExitMeaning{kExitUnsupported, "a newer format, or this build or machine cannot"},
    ExitMeaning{kExitInterrupted, "interrupted"},
};

// "--name" and "-n" of every option of a verb.
std::string option_words(const CLI::App& verb) {
  std::string words;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) words += " --" + name;
    for (const std::string& name : option->get_snames()) words += " -" + name;
  }
  return words.empty() ? words : words.substr(1);
}

}  // namespace

std::string manual_page(const CLI::App& app, const std::string& version) {
  std::string out = fmt::format(".TH CAISSON 1 \"\" \"caisson {}\" \"User Commands\"\n", version);
  out += fmt::format(".SH NAME\ncaisson \\- {}\n", roff(app.get_description()));
  out += ".SH SYNOPSIS\n.B caisson\n.I verb\n.RI [ arguments ]\n.RI [ options ]\n";
  out +=
      ".SH DESCRIPTION\n"
      "A store is a directory that holds checkpoints, named run/step; run/latest is the newest "
      "of a run.\n.SH VERBS\n";
  for (const CLI::App* verb : visible_verbs(app)) {
    out += fmt::format(".SS {}\n{}.PP\n{}.\n", roff(verb->get_name()), synopsis(*verb),
                       roff(verb->get_description()));
    for (const CLI::Option* option : verb->get_options()) out += option_entry(*option);
    std::string example = verb->get_footer();
    if (const size_t line = example.find('\n'); line != std::string::npos) {
      out += fmt::format(".PP\nExample:\n.PP\n.nf\n.RS\n{}\n.RE\n.fi\n",
                         roff(example.substr(line + 3)));
    }
  }
  out += ".SH EXIT STATUS\n";
  for (const ExitMeaning& exit : kExitMeanings) {
    out += fmt::format(".TP\n{}\n{}\n", exit.code, roff(exit.meaning));
  }
  return out;
}

std::string bash_completion(const CLI::App& app) {
  std::string verbs;
  std::string cases;
  for (const CLI::App* verb : visible_verbs(app)) {
    verbs += (verbs.empty() ? "" : " ") + verb->get_name();
    cases += fmt::format("    {}) words=\"{}\" ;;\n", verb->get_name(), option_words(*verb));
  }
  return fmt::format(R"(# bash completion of caisson; printed by `caisson completion bash`
_caisson() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if (( COMP_CWORD == 1 )); then
    mapfile -t COMPREPLY < <(compgen -W "{} --help --version" -- "$word")
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{}  esac
  if [[ "$word" == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  fi
}}
complete -o filenames -F _caisson caisson
)",
                     verbs, cases);
}

}  // namespace caisson::cli

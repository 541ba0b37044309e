// The command line: one table of verbs, the options that all have, how errors and exit codes come
// out. Every verb is a Command of its own file (commands.h).
//
// Streams: results go to standard output, progress and errors to standard error; with --json both
// results and errors are one JSON document on standard output.
#include <fmt/format.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <exception>
#include <optional>
#include <system_error>

#include "client/cli/commands.h"
#include "client/cli/exit_code.h"
#include "client/cli/interrupt.h"
#include "client/cli/manual.h"
#include "client/cli/metrics_file.h"
#include "client/cli/text.h"
#include "client/cli/trace_file.h"

#ifndef CAISSON_VERSION
#define CAISSON_VERSION "unknown"
#endif

namespace caisson::cli {
namespace {

struct Verb {
  const char* name;
  const char* summary;
  const char* example;
  std::unique_ptr<Command> (*make)();
  bool hidden = false;
};

constexpr std::array kVerbs = {
    Verb{"import", "Store checkpoint files as a checkpoint",
         "caisson import /ckpt llama/0 model-dir/ --ranks 4", make_import},
    Verb{"export", "Write a checkpoint as safetensors files",
         "caisson export /ckpt llama/latest model.safetensors", make_export},
    Verb{"restore", "Write tensors to files, in any sharding",
         "caisson restore /ckpt llama/latest --out slices --ranks 3 --shard-dim 1", make_restore},
    Verb{"ls", "List checkpoints", "caisson ls /ckpt llama", make_ls},
    Verb{"show", "Show the tensors of a checkpoint", "caisson show /ckpt llama/latest '*.mlp.*'",
         make_show},
    Verb{"diff", "Compare two checkpoints", "caisson diff /ckpt llama/100 llama/200", make_diff},
    Verb{"verify", "Check that checkpoints are whole", "caisson verify /ckpt --depth full",
         make_verify},
    Verb{"stat", "Show where the bytes are", "caisson stat /ckpt", make_stat},
    Verb{"rm", "Give up checkpoints; gc frees their space",
         "caisson rm /ckpt --run llama --keep-last 5", make_rm},
    Verb{"rewrite", "Give a checkpoint packs of its own, with the same content",
         "caisson rewrite /ckpt llama/1000 --codec entropy", make_rewrite},
    Verb{"gc", "Free the space that nothing needs", "caisson gc /ckpt --dry-run", make_gc},
    Verb{"doctor", "Show what this machine and a directory can do", "caisson doctor /ckpt",
         make_doctor},
    Verb{"bench", "Measure saves and restores against what the device can do",
         "caisson bench /data --case all --html report.html", make_bench},
    Verb{"index", "Update, show or ask the index", "caisson index sync /ckpt", make_index},
    Verb{"import-rank", "", "", make_import_rank, true},
    Verb{"restore-rank", "", "", make_restore_rank, true},
    Verb{"bench-rank", "", "", make_bench_rank, true},
};

}  // namespace

StoreOptions Session::store_options(bool create) const {
  StoreOptions options;
  options.create = create;
  options.io_engine = globals.io_engine;
  options.memory_bytes_max = globals.memory_bytes_max;
  options.trace = trace.trace();
  options.metrics = metrics.metrics();
  return options;
}

namespace {

void add_globals(CLI::App& app, Globals& globals) {
  app.add_flag("--json", globals.json, "Print one JSON document");
  app.add_flag("-q,--quiet", globals.quiet, "No progress and no summary");
  app.add_option("--io", globals.io_engine, "How to do I/O: auto, io_uring, threads or buffered")
      ->check(CLI::IsMember({"auto", "io_uring", "threads", "buffered"}));
  app.add_option("--trace", globals.trace_file,
                 "Write what the stages of saves and restores did, and when, to this file")
      ->type_name("FILE");
  app.add_option("--metrics", globals.metrics_file,
                 "Write counters and histograms of saves and restores to this file, for Prometheus")
      ->type_name("FILE");
  app.add_option_function<std::string>(
         "--memory",
         [&globals](const std::string& text) {
           globals.memory_bytes_max = parse_bytes(text).value();  // checked below, before
         },
         "Staging memory at most, per process (192MiB)")
      ->check(
          [](const std::string& text) { return std::string(parse_bytes(text).status().message()); })
      ->type_name("SIZE");
}

// The whole command line; `chosen` receives the verb that was given.
void define_app(CLI::App& app, Globals& globals, std::vector<std::unique_ptr<Command>>& commands,
                Command** chosen) {
  app.require_subcommand(0, 1);
  app.set_version_flag("--version", "caisson " CAISSON_VERSION);
  app.footer(
      "caisson VERB --help explains one verb. caisson man and caisson completion bash print\n"
      "the manual page and the shell completion.");
  for (const Verb& verb : kVerbs) {
    CLI::App* sub = app.add_subcommand(verb.name, verb.summary);
    commands.push_back(verb.make());
    Command* command = commands.back().get();
    command->define(*sub);
    sub->callback([command, chosen] { *chosen = command; });
    if (verb.hidden) {
      sub->group("");
      continue;
    }
    add_globals(*sub, globals);
    sub->footer(fmt::format("Example:\n  {}", verb.example));
  }
}

int report_error(const Status& error, bool json) {
  const int code = exit_code_of(error.code());
  if (json) {
    print_json({{"schema", "caisson.error/1"},
                {"error", status_code_name(error.code())},
                {"message", error.message()},
                {"exit_code", code}});
  }
  fmt::print(stderr, "caisson: {}\n", printable(error.to_string()));
  return code;
}

int report_unwritten(int error) {
  return report_error(errno_status(error, "write to standard output"), false);
}

// The end of a run: what was printed has to have arrived.
int after_output(int code) {
  errno = EIO;  // where an earlier call met the error and had nobody to tell
  const bool arrived = std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
  return arrived || code != kExitOk ? code : report_unwritten(errno);
}

int run_command(Command& command, const Globals& globals, const std::stop_token& stop) {
  TraceFile trace;
  if (!globals.trace_file.empty()) trace.start();
  MetricsFile metrics;
  if (!globals.metrics_file.empty()) metrics.start();
  const Result<int> outcome =
      command.run({.globals = globals, .stop = stop, .trace = trace, .metrics = metrics});
  int code = outcome.ok() ? *outcome : report_error(outcome.status(), globals.json);
  if (!globals.trace_file.empty()) {  // of a failure, too: where it stood still
    const Status written = trace.write(globals.trace_file);
    if (!written.ok()) code = report_error(written.with_context("--trace"), false);
  }
  if (!globals.metrics_file.empty()) {
    const Status written = metrics.write(globals.metrics_file);
    if (!written.ok()) code = report_error(written.with_context("--metrics"), false);
  }
  return after_output(code);
}

int run(int argc, char** argv) {
  Globals globals;
  std::vector<std::unique_ptr<Command>> commands;
  Command* chosen = nullptr;
  CLI::App app("Checkpoint storage for large-model training", "caisson");
  define_app(app, globals, commands, &chosen);
  std::string shell;
  CLI::App* man = app.add_subcommand("man", "Print the manual page")->group("");
  CLI::App* completion = app.add_subcommand("completion", "Print a shell completion")->group("");
  completion->add_option("shell", shell, "bash")->required()->check(CLI::IsMember({"bash"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    const int code = app.exit(error);
    return code == 0 ? kExitOk : kExitUsage;
  }
  if (man->parsed()) {
    fmt::print("{}", manual_page(app, CAISSON_VERSION));
    return after_output(kExitOk);
  }
  if (completion->parsed()) {
    fmt::print("{}", bash_completion(app));
    return after_output(kExitOk);
  }
  if (chosen == nullptr) {
    fmt::print("{}", app.help());
    return kExitUsage;
  }
  std::optional<InterruptWatch> interrupts;
  if (!chosen->is_single_threaded()) interrupts.emplace();
  return run_command(*chosen, globals, interrupts ? interrupts->token() : std::stop_token());
}

}  // namespace
}  // namespace caisson::cli

// CLI11 and nlohmann-json throw; nothing of ours does, and nothing leaves here.
int main(int argc, char** argv) {
  try {
    return caisson::cli::run(argc, argv);
  } catch (const std::system_error& error) {  // fmt's, when what it prints cannot be written
    return caisson::cli::report_unwritten(error.code().value());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "caisson: %s\n", error.what());
    return caisson::cli::kExitUsage;
  }
}

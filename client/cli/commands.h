// Every verb's factory, in the order of the help text. Used by the table in main.cc.
#pragma once

#include <memory>

#include "client/cli/command.h"

namespace caisson::cli {

std::unique_ptr<Command> make_import();
std::unique_ptr<Command> make_import_rank();  // hidden: one process of `import --ranks`
std::unique_ptr<Command> make_export();
std::unique_ptr<Command> make_restore();
std::unique_ptr<Command> make_restore_rank();  // hidden: one process of `restore --ranks`
std::unique_ptr<Command> make_ls();
std::unique_ptr<Command> make_show();
std::unique_ptr<Command> make_diff();
std::unique_ptr<Command> make_verify();
std::unique_ptr<Command> make_stat();
std::unique_ptr<Command> make_rm();
std::unique_ptr<Command> make_rewrite();
std::unique_ptr<Command> make_gc();
std::unique_ptr<Command> make_doctor();
std::unique_ptr<Command> make_bench();
std::unique_ptr<Command>
make_bench_rank();  // hidden: one process of the bench's cases by many ranks
std::unique_ptr<Command> make_index();

}  // namespace caisson::cli

// Every case of the bench, in the order of the report.
#include <algorithm>

#include "bench/async_cases.h"
#include "bench/engine_cases.h"
#include "bench/find_case.h"
#include "bench/growth_cases.h"
#include "bench/rank_cases.h"
#include "bench/restore_cases.h"
#include "bench/save_cases.h"
#include "bench/state_cases.h"

namespace caisson::bench {

namespace {

// Two saves of tensors may lie on the device at once: the one just written and L's file.
Needs one_state(const BenchOptions& o) { return {2 * o.bytes, o.bytes}; }
Needs two_states(const BenchOptions& o) { return {2 * o.bytes, 2 * o.bytes}; }

Needs team(const BenchOptions& o) { return {3 * o.bytes, 2 * o.bytes}; }
Needs large(const BenchOptions& o) { return {o.large_bytes + o.bytes, o.large_bytes}; }
Needs confined(const BenchOptions& o) { return {3 * o.bytes, 2 * o.bytes}; }
Needs find(const BenchOptions& o) { return {o.store_bytes + o.bytes, o.bytes}; }
Needs growth(const BenchOptions& o) {
  return {1ull << 30, o.bytes + std::min<uint64_t>(o.bytes, 2ull << 30)};
}

std::string names_of_all() {
  std::string names;
  for (const CaseEntry& entry : case_table()) {
    if (!names.empty()) names += ", ";
    names += entry.name;
  }
  return names;
}

}  // namespace

const std::vector<CaseEntry>& case_table() {
  static const std::vector<CaseEntry> table = {
      {"save", Group::kSave, true, "save of page-aligned tensors", one_state, make_save},
      {"save-first", Group::kSave, false, "first save of a process: its staging memory is new",
       one_state, make_save_first},
      {"save-unaligned", Group::kSave, false, "save of tensors aligned to 64 bytes", two_states,
       make_save_unaligned},
      {"save-columns", Group::kSave, false, "save of column views: every tile is gathered",
       one_state, make_save_columns},
      {"save-small", Group::kSave, false, "save of tensors of 20 KiB (100,000 in 2 GiB)", one_state,
       make_save_small},
      {"save-auto", Group::kSave, false, "save of incompressible tensors with the codecs on",
       one_state, make_save_auto},
      {"resave", Group::kSave, false, "save of an unchanged state", one_state, make_resave},
      {"buffered",
       Group::kSave,
       true,
       "write(2) and fsync of the same bytes",
       one_state,
       make_buffered,
       {"save", 5.0}},
      {"restore", Group::kRestore, true, "restore, verified, into touched memory", two_states,
       make_restore},
      {"restore-unaligned", Group::kRestore, false, "the same into memory aligned to 64 bytes",
       two_states, make_restore_unaligned},
      {"restore-untouched", Group::kRestore, false, "the same into new memory", two_states,
       make_restore_untouched},
      {"restore-beside", Group::kRestore, false, "the same while a save drains", two_states,
       make_restore_beside},
      {"mmap",
       Group::kRestore,
       false,
       "mmap and copy of the same bytes, cold",
       two_states,
       make_mapped,
       {"restore", 2.0}},
      {"threads", Group::kEngines, false, "save and restore by threads instead of io_uring",
       two_states, make_threads},
      {"save-ranks", Group::kRanks, false, "save by 4 processes at once", team, make_save_ranks},
      {"reshard", Group::kRanks, false, "rows were saved, 4 processes restore columns", team,
       make_reshard},
      {"save-large", Group::kLarge, false, "save of one tensor of 8 GiB (--large-size)", large,
       make_save_large},
      {"save-confined", Group::kConfined, false,
       "save of 4 GiB (twice --size) with 400 MiB of address space beside them", confined,
       make_save_confined},
      {"find", Group::kFind, false, "one tensor of 64 MiB out of 20 GB, cold (--store-size)", find,
       make_find},
      {"blocking", Group::kAsync, false, "how long save() holds up its caller", two_states,
       make_blocking},
      {"interference", Group::kAsync, false, "a compute loop on another core while a save runs",
       one_state, make_interference},
      {"growth-shards", Group::kGrowth, false, "time of saves of 10^3 to 10^6 tiny shards", growth,
       make_growth_shards},
      {"growth-parts", Group::kGrowth, false, "time of the commit of 1 to 64 ranks' parts", growth,
       make_growth_parts},
      {"state-save", Group::kState, false, "save of a training state (--state FILE), codecs on",
       two_states, make_state_save},
      {"state-save-two", Group::kState, false, "the same by two workers", two_states,
       make_state_save_two},
      {"state-save-raw", Group::kState, false, "the same with the codecs off", two_states,
       make_state_save_raw},
      {"state-restore", Group::kStateRestore, false, "restore of it, verified, into touched memory",
       two_states, make_state_restore},
      {"state-restore-untouched", Group::kStateRestore, false, "the same into new memory",
       two_states, make_state_restore_untouched},
  };
  return table;
}

Result<std::vector<const CaseEntry*>> choose_cases(const std::vector<std::string>& names) {
  const std::vector<CaseEntry>& table = case_table();
  std::vector<bool> chosen(table.size(), false);
  for (const std::string& name : names) {
    bool known = false;
    for (size_t i = 0; i < table.size(); ++i) {
      const bool meant =
          name == "all" || table[i].name == name || (name == "quick" && table[i].quick);
      if (meant) known = chosen[i] = true;
    }
    if (!known) {
      return invalid_argument("bench: no case \"" + name + "\"; there are all, quick, " +
                              names_of_all());
    }
  }
  std::vector<const CaseEntry*> entries;
  for (size_t i = 0; i < table.size(); ++i) {
    if (chosen[i]) entries.push_back(&table[i]);
  }
  return entries;
}

}  // namespace caisson::bench

// caisson diff: tensors added, removed and changed between two checkpoints, and how many bytes they
// share. Content ids tell; bytes are read only of tensors that the two cut differently.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "caisson/store.h"
#include "client/cli/commands.h"
#include "client/cli/compare.h"
#include "client/cli/exit_code.h"
#include "client/cli/indexed.h"
#include "client/cli/text.h"
#include "client/file_writer.h"
#include "client/store_context.h"
#include "engine/live_read.h"

namespace caisson::cli {
namespace {

constexpr uint64_t kCompareBytesMax = 32ull << 20;

struct ChangeWords {
  const char* word;
  char sign;
};
ChangeWords words_of(Change change) {
  switch (change) {
    case Change::kAdded:
      return {.word = "added", .sign = '+'};
    case Change::kRemoved:
      return {.word = "removed", .sign = '-'};
    case Change::kRetyped:
      return {.word = "retyped", .sign = '!'};
    case Change::kChanged:
      break;
  }
  return {.word = "changed", .sign = '~'};
}

// Reads one tensor of both checkpoints, box by box, and compares.
Result<bool> equal_bytes(Store& store, const std::string& a, const std::string& b,
                         const TensorSpec& spec) {
  const FilePiece whole{
      .tensor = spec.name, .dtype = spec.dtype, .box = Box::whole(spec.shape), .offset = 0};
  ByteVector left;
  ByteVector right;
  for (const FilePiece& piece : cut_piece(whole, kCompareBytesMax)) {
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes, packed_bytes(piece.box.elements(), spec.dtype));
    left.resize(bytes);
    right.resize(bytes);
    TensorTarget target{
        .name = spec.name, .box = piece.box, .data = left.data(), .strides_bytes = {}};
    CAISSON_RETURN_IF_ERROR(store.restore(a, {&target, 1}));
    target.data = right.data();
    CAISSON_RETURN_IF_ERROR(store.restore(b, {&target, 1}));
    if (left != right) return false;
  }
  return true;
}

std::string type_of(const TensorSpec& spec) {
  return fmt::format("{} {}", dtype_name(spec.dtype), to_string(spec.shape));
}

class DiffCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("a", a_, "The older checkpoint: run/step or run/latest")->required();
    app.add_option("b", b_, "The newer checkpoint")->required();
    app.add_flag("--exit-code", exit_code_, "Exit with 1 when they differ");
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    CAISSON_ASSIGN_OR_RETURN(const Checkpoint before, access.find(a_));
    CAISSON_ASSIGN_OR_RETURN(const Checkpoint after, access.find(b_));
    IndexedAnswers answers(access, session);
    CAISSON_ASSIGN_OR_RETURN(
        const Comparison comparison,
        answers.answer<Comparison>(
            "diff " + to_hex(before.root.digest) + " " + to_hex(after.root.digest),
            [&] { return compare(access, before, after, session); }));
    if (session.globals.json) {
      print_document(before, after, comparison);
    } else if (!session.globals.quiet) {
      print(comparison);
    }
    return exit_code_ && !comparison.changes.empty() ? kExitDifferent : kExitOk;
  }

 private:
  Result<Comparison> compare(StoreAccess& access, const Checkpoint& before, const Checkpoint& after,
                             const Session& session) const {
    CAISSON_ASSIGN_OR_RETURN(const std::unique_ptr<Store> store,
                             Store::open(store_, session.store_options(false)));
    const CompareBytes compare_bytes = [&](const TensorSpec& spec) {
      return equal_bytes(*store, pinned_name(before), pinned_name(after), spec);
    };
    return read_live(access.log(), before, [&](const Checkpoint& a) {
      return read_live(access.log(), after, [&](const Checkpoint& b) -> Result<Comparison> {
        CAISSON_ASSIGN_OR_RETURN(const auto manifest_a, access.manifest(a));
        CAISSON_ASSIGN_OR_RETURN(const auto manifest_b, access.manifest(b));
        return compare_checkpoints(*manifest_a, *manifest_b, compare_bytes);
      });
    });
  }

  static void print_document(const Checkpoint& before, const Checkpoint& after,
                             const Comparison& comparison) {
    Json changes = Json::array();
    for (const TensorChange& change : comparison.changes) {
      Json item = {{"name", change.name},
                   {"kind", change.blob ? "blob" : "tensor"},
                   {"change", words_of(change.change).word},
                   {"changed_bytes", change.changed_bytes}};
      const auto side = [](const TensorSpec& spec) {
        return Json{{"dtype", dtype_name(spec.dtype)}, {"shape", spec.shape.extents()}};
      };
      if (change.change != Change::kAdded) item["before"] = side(change.before);
      if (change.change != Change::kRemoved) item["after"] = side(change.after);
      changes.push_back(std::move(item));
    }
    print_json({{"schema", "caisson.diff/1"},
                {"a", before.name()},
                {"b", after.name()},
                {"same", comparison.same_tensors},
                {"changes", std::move(changes)},
                {"raw_bytes_a", comparison.raw_bytes_a},
                {"raw_bytes_b", comparison.raw_bytes_b},
                {"shared_bytes", comparison.shared_bytes}});
  }

  static void print(const Comparison& comparison) {
    std::array<uint64_t, 4> counts{};
    for (const TensorChange& change : comparison.changes) {
      ++counts[static_cast<size_t>(change.change)];
      std::string detail;
      if (change.change == Change::kRetyped) {
        detail = fmt::format("  {} -> {}", type_of(change.before), type_of(change.after));
      } else if (change.change == Change::kChanged) {
        detail = fmt::format("  {}", human_bytes(change.changed_bytes));
      }
      fmt::print("{} {}{}\n", words_of(change.change).sign, printable(change.name), detail);
    }
    fmt::print("{} same, {} changed, {} retyped, {} added, {} removed; {} of {} shared ({})\n",
               comparison.same_tensors, counts[static_cast<size_t>(Change::kChanged)],
               counts[static_cast<size_t>(Change::kRetyped)],
               counts[static_cast<size_t>(Change::kAdded)],
               counts[static_cast<size_t>(Change::kRemoved)], human_bytes(comparison.shared_bytes),
               human_bytes(comparison.raw_bytes_b),
               percent(comparison.shared_bytes, comparison.raw_bytes_b));
  }

  std::string store_;
  std::string a_;
  std::string b_;
  bool exit_code_ = false;
};

}  // namespace

std::unique_ptr<Command> make_diff() { return std::make_unique<DiffCommand>(); }

}  // namespace caisson::cli

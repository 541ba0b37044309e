// caisson show: the tensors of a checkpoint as a tree, with shapes, dtypes, sizes, what they take
// in the store, and the ranks that hold them. Names are split at dots and slashes.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "client/cli/commands.h"
#include "client/cli/store_access.h"
#include "client/cli/text.h"
#include "client/glob.h"
#include "compression/codec.h"
#include "engine/live_read.h"

namespace caisson::cli {
namespace {

struct CodecCount {
  uint64_t chunks = 0, raw_bytes = 0, stored_bytes = 0;
  std::map<std::string, uint64_t> reasons;  // raw bytes by why it was taken
};

struct ShownTensor {
  std::string name;
  std::string kind;  // "tensor", "blob", "alias"
  std::string dtype;
  Shape shape;
  std::string alias_of;
  uint64_t raw_bytes = 0;
  uint64_t stored_bytes = 0;
  uint64_t chunks = 0;
  std::map<std::string, CodecCount> codecs;  // by name; "inline" for what lies in a part
  std::set<uint32_t> ranks;
};

// A node of the tree: a group of names, or a tensor when it has one.
struct Node {
  std::map<std::string, Node> children;
  const ShownTensor* tensor = nullptr;
  char separator = '.';  // in front of the name of this node
  uint64_t tensors = 0, raw_bytes = 0, stored_bytes = 0;
};

std::string codec_of(const format::ChunkEntry& entry) {
  if (entry.pack == format::kPackInline) return "inline";
  const auto codec = find_codec(entry.codec);
  return codec.ok() ? std::string((*codec)->name()) : "codec " + std::to_string(entry.codec);
}

// "twin 90%, planes 10%", by raw bytes.
std::string mix_of(const std::map<std::string, uint64_t>& raw_bytes, uint64_t all) {
  std::vector<std::pair<uint64_t, std::string>> shares;
  shares.reserve(raw_bytes.size());
  for (const auto& [name, bytes] : raw_bytes) shares.emplace_back(bytes, name);
  std::sort(shares.begin(), shares.end(), std::greater<>());
  if (shares.size() == 1 && shares.front().first == all) return shares.front().second;
  std::string mix;
  for (const auto& [bytes, name] : shares) {
    if (!mix.empty()) mix += ", ";
    mix += name + " " + percent(bytes, all);
  }
  return mix;
}

std::string codec_mix(const ShownTensor& tensor) {
  std::map<std::string, uint64_t> raw_bytes;
  for (const auto& [name, count] : tensor.codecs) raw_bytes[name] = count.raw_bytes;
  return mix_of(raw_bytes, tensor.raw_bytes);
}

std::string reason_mix(const ShownTensor& tensor) {
  std::map<std::string, uint64_t> raw_bytes;
  for (const auto& [name, count] : tensor.codecs) {
    for (const auto& [reason, bytes] : count.reasons) raw_bytes[reason] += bytes;
  }
  return mix_of(raw_bytes, tensor.raw_bytes);
}

// "0-3, 5"
std::string ranges(const std::set<uint32_t>& ranks) {
  std::string out;
  for (auto it = ranks.begin(); it != ranks.end();) {
    const uint32_t first = *it;
    uint32_t last = first;
    while (++it != ranks.end() && *it == last + 1) last = *it;
    if (!out.empty()) out += ", ";
    out += first == last ? std::to_string(first) : fmt::format("{}-{}", first, last);
  }
  return out;
}

Result<ShownTensor> show_record(Manifest& manifest, const TensorRecord& record) {
  ShownTensor shown{.name = record.spec.name,
                    .kind = record.kind == TensorKind::kBlob    ? "blob"
                            : record.kind == TensorKind::kAlias ? "alias"
                                                                : "tensor",
                    .dtype = dtype_name(record.spec.dtype),
                    .shape = record.spec.shape,
                    .alias_of = record.alias_of,
                    .codecs = {},
                    .ranks = {}};
  for (const ShardRecord& shard : record.shards) {
    shown.ranks.insert(manifest.root().parts[shard.part].rank);
    if (shard.pieces == 0) continue;
    CAISSON_ASSIGN_OR_RETURN(const std::vector<format::ChunkEntry> entries,
                             manifest.entries(shard.part, shard.first_entry, shard.pieces));
    for (const format::ChunkEntry& entry : entries) {
      shown.raw_bytes += entry.raw_bytes;
      shown.stored_bytes += entry.stored_bytes;
      ++shown.chunks;
      CodecCount& count = shown.codecs[codec_of(entry)];
      ++count.chunks;
      count.raw_bytes += entry.raw_bytes;
      count.stored_bytes += entry.stored_bytes;
      if (entry.reason == format::CodecReason::kNotTold) continue;
      count.reasons[std::string(to_string(entry.reason))] += entry.raw_bytes;
    }
  }
  return shown;
}

void insert(Node& root, const ShownTensor& tensor) {
  Node* node = &root;
  const auto count = [&tensor](Node& at) {
    ++at.tensors;
    at.raw_bytes += tensor.raw_bytes;
    at.stored_bytes += tensor.stored_bytes;
  };
  count(*node);
  // Blobs are paths: their dots are no levels.
  const char* separators = tensor.kind == "blob" ? "/" : "./";
  size_t begin = 0;
  while (begin <= tensor.name.size()) {
    const size_t end = std::min(tensor.name.find_first_of(separators, begin), tensor.name.size());
    node = &node->children[tensor.name.substr(begin, end - begin)];
    node->separator = begin == 0 ? '.' : tensor.name[begin - 1];
    count(*node);
    begin = end + 1;
  }
  node->tensor = &tensor;
}

// Numbers in the order of numbers.
bool name_before(const std::string& a, const std::string& b) {
  const auto number = [](const std::string& text) {
    return !text.empty() && text.size() < 18 &&
           text.find_first_not_of("0123456789") == std::string::npos;
  };
  if (number(a) && number(b)) return std::stoull(a) < std::stoull(b);
  return a < b;
}

class ShowCommand final : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("store", store_, "Directory of the store")->required();
    app.add_option("name", name_, "Checkpoint: run/step or run/latest")->required();
    app.add_option("tensors", glob_, "Only tensors and blobs that match this glob");
    app.add_option("--depth", depth_, "Fold the tree below this level")->check(CLI::Range(1, 4096));
    app.add_flag("--flat", flat_, "One line a tensor, no tree");
  }

  Result<int> run(const Session& session) override {
    CAISSON_ASSIGN_OR_RETURN(StoreAccess access, StoreAccess::open(store_, session));
    CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, access.find(name_));
    std::shared_ptr<Manifest> manifest;
    std::vector<ShownTensor> tensors;
    const auto read = [&](const Checkpoint& now) -> Status {
      tensors.clear();
      CAISSON_ASSIGN_OR_RETURN(manifest, access.manifest(now));
      return manifest->for_each([&](const TensorRecord& record) -> Status {
        if (session.stop.stop_requested()) return cancelled("interrupted");
        if (!matches_glob(glob_, record.spec.name)) return ok_status();
        CAISSON_ASSIGN_OR_RETURN(ShownTensor shown, show_record(*manifest, record));
        tensors.push_back(std::move(shown));
        return ok_status();
      });
    };
    CAISSON_RETURN_IF_ERROR(read_live(access.log(), checkpoint, read));
    if (tensors.empty() && glob_ != "*") {
      return not_found(fmt::format("{}: nothing matches \"{}\"", checkpoint.name(), glob_));
    }
    if (session.globals.json) {
      print_document(*manifest, checkpoint, tensors);
    } else if (flat_) {
      print_flat(tensors);
    } else {
      print_tree(checkpoint, tensors);
    }
    return 0;
  }

 private:
  static void print_document(Manifest& manifest, const Checkpoint& checkpoint,
                             const std::vector<ShownTensor>& tensors) {
    Json list = Json::array();
    for (const ShownTensor& tensor : tensors) {
      Json item = {{"name", tensor.name},           {"kind", tensor.kind},
                   {"dtype", tensor.dtype},         {"shape", tensor.shape.extents()},
                   {"raw_bytes", tensor.raw_bytes}, {"stored_bytes", tensor.stored_bytes},
                   {"chunks", tensor.chunks},       {"ranks", tensor.ranks}};
      if (!tensor.alias_of.empty()) item["alias_of"] = tensor.alias_of;
      Json codecs = Json::object();
      for (const auto& [name, count] : tensor.codecs) {
        codecs[name] = {{"chunks", count.chunks},
                        {"raw_bytes", count.raw_bytes},
                        {"stored_bytes", count.stored_bytes},
                        {"reasons", count.reasons}};
      }
      item["codecs"] = std::move(codecs);
      list.push_back(std::move(item));
    }
    const format::Root& root = manifest.root();
    print_json({{"schema", "caisson.show/1"},
                {"checkpoint", checkpoint.name()},
                {"epoch", checkpoint.epoch},
                {"created_unix_ns", root.created_unix_ns},
                {"ranks", root.parts.size()},
                {"raw_bytes", root.raw_bytes},
                {"newly_stored_bytes", root.stored_bytes},
                {"metadata", metadata_json(root.metadata_json)},
                {"tensors", std::move(list)}});
  }

  static std::vector<std::string> cells(const std::string& label, const ShownTensor& tensor) {
    const bool alias = !tensor.alias_of.empty();
    const std::string type = alias                   ? "-> " + printable(tensor.alias_of)
                             : tensor.kind == "blob" ? "blob"
                                                     : tensor.dtype;
    return {label,
            type,
            tensor.kind == "tensor" ? to_string(tensor.shape) : "",
            alias ? "" : human_bytes(tensor.raw_bytes),
            alias ? "" : human_bytes(tensor.stored_bytes),
            codec_mix(tensor),
            reason_mix(tensor),
            ranges(tensor.ranks)};
  }

  static Table make_table() {
    return Table({"NAME", "TYPE", "SHAPE", "SIZE", "STORED", "CODECS", "WHY", "RANKS"},
                 {false, false, false, true, true, false, false, false});
  }

  static void print_flat(const std::vector<ShownTensor>& tensors) {
    Table table = make_table();
    for (const ShownTensor& tensor : tensors) table.add(cells(printable(tensor.name), tensor));
    table.print();
  }

  void print_tree(const Checkpoint& checkpoint, const std::vector<ShownTensor>& tensors) const {
    Node root;
    for (const ShownTensor& tensor : tensors) insert(root, tensor);
    Table table = make_table();
    table.add({printable(checkpoint.name()), "", fmt::format("{} tensors", root.tensors),
               human_bytes(root.raw_bytes), human_bytes(root.stored_bytes), "", "", ""});
    add_children(root, 1, table);
    table.print();
  }

  // Recursion is bounded by the length of a name, and by --depth.
  void add_children(const Node& node, int level, Table& table) const {
    std::vector<const std::pair<const std::string, Node>*> children;
    for (const auto& child : node.children) children.push_back(&child);
    std::sort(children.begin(), children.end(),
              [](const auto* a, const auto* b) { return name_before(a->first, b->first); });
    for (const auto* entry : children) {
      std::string label = entry->first;
      const Node* child = &entry->second;
      // A group of one is no group: show it on its parent's line.
      while (child->tensor == nullptr && child->children.size() == 1) {
        label += child->children.begin()->second.separator + child->children.begin()->first;
        child = &child->children.begin()->second;
      }
      label = std::string(static_cast<size_t>(level) * 2, ' ') + printable(label);
      if (child->tensor != nullptr) table.add(cells(label, *child->tensor));
      if (child->children.empty()) continue;
      table.add({label, "", fmt::format("{} tensors", child->tensors),
                 human_bytes(child->raw_bytes), human_bytes(child->stored_bytes), "", "", ""});
      if (level < depth_) add_children(*child, level + 1, table);
    }
  }

  std::string store_;
  std::string name_;
  std::string glob_ = "*";
  int depth_ = 4096;
  bool flat_ = false;
};

}  // namespace

std::unique_ptr<Command> make_show() { return std::make_unique<ShowCommand>(); }

}  // namespace caisson::cli

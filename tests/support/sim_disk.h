// What a simulated disk holds: a tree of directories and files as one copyable value, and the
// effects that change it. sim_file_system.h executes effects on a live image and records them;
// crash_states.h builds from the record what a crash could have left. Copies share file contents in
// blocks (copy on write), so an image costs microseconds. Thread-compatible.
//
// Invariants: node 0 is the root directory and always there; a node's id is never used again, so an
// effect means the same in every image of one history; bytes of a file that were never written are
// zero.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson::sim {

inline constexpr uint64_t kSectorBytes = 512;  // what a device writes whole or not at all
inline constexpr uint64_t kBlockBytes = 4096;

using NodeId = uint32_t;
inline constexpr NodeId kRoot = 0;
inline constexpr NodeId kNoNode = UINT32_MAX;

enum class EffectKind : uint8_t {
  kData,    // bytes at an offset of a file, whatever its size says
  kGrow,    // a file's size becomes at least `size`
  kResize,  // a file's size becomes exactly `size`; what lies behind it is gone
  kAdd,     // directory `node` gets `name` -> `target`, unless the name is there
  kRemove,  // directory `node` loses `name`, if it still names `target`
  kRename,  // `node`/`name` -> `to_node`/`to_name`, replacing; one step, never half
};

// One change that a disk makes whole (kData: sector by sector) at some time after it was asked for.
struct Effect {
  EffectKind kind = EffectKind::kData;
  NodeId node = 0;
  NodeId target = kNoNode;
  NodeId to_node = kNoNode;
  uint64_t offset = 0;
  uint64_t size = 0;
  std::string name{}, to_name{};
  std::shared_ptr<const ByteVector> bytes{};
};

class Image {
 public:
  Image();

  // Every node that a history mentions gets its id from the live image; an image replayed from the
  // history learns of it here.
  NodeId add_node(bool directory);
  void ensure_node(NodeId id, bool directory);

  void apply(const Effect& effect);
  // kData only: those sectors of the write (counted from the one that holds `offset`) for which
  // `kept` says true.
  void apply_torn(const Effect& effect, const std::vector<bool>& kept);

  // The node at an absolute path; nothing where a component is missing.
  std::optional<NodeId> find(std::string_view path) const;
  bool is_directory(NodeId id) const { return nodes_[id]->directory; }
  uint64_t size(NodeId id) const { return nodes_[id]->size; }
  const std::map<std::string, NodeId>& entries(NodeId id) const { return nodes_[id]->entries; }
  // REQUIRES: offset + into.size() <= size(id).
  void read(NodeId id, uint64_t offset, MutableBytes into) const;
  size_t nodes() const { return nodes_.size(); }
  // Over everything that can be reached from the root: equal digests, equal disks.
  Digest digest() const;
  // Paths of all files, in order of name: for messages and for corruption sweeps.
  std::vector<std::string> files() const;

 private:
  using Block = std::array<std::byte, kBlockBytes>;
  struct Node {
    bool directory = false;
    uint64_t size = 0;
    std::vector<std::shared_ptr<Block>> blocks;  // null: zeros; may be shorter or longer than size
    std::map<std::string, NodeId> entries;
  };
  Node& mutate(NodeId id);
  void write(Node& node, uint64_t offset, Bytes from);
  static void cut(Node& node, uint64_t size);

  std::vector<std::shared_ptr<Node>> nodes_;
};

// How many sectors a kData effect touches.
size_t sectors_of(const Effect& effect);

// "/a/b/c" -> {"/a/b", "c"}.
std::pair<std::string_view, std::string_view> split_path(std::string_view path);

}  // namespace caisson::sim

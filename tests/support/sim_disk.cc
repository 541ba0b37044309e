#include "tests/support/sim_disk.h"

#include <algorithm>
#include <functional>

#include "io/base/check.h"

namespace caisson::sim {

Image::Image() { add_node(true); }

NodeId Image::add_node(bool directory) {
  auto node = std::make_shared<Node>();
  node->directory = directory;
  nodes_.push_back(std::move(node));
  return static_cast<NodeId>(nodes_.size() - 1);
}

void Image::ensure_node(NodeId id, bool directory) {
  while (nodes_.size() <= id) add_node(directory);
}

Image::Node& Image::mutate(NodeId id) {
  CAISSON_CHECK(id < nodes_.size());
  if (nodes_[id].use_count() > 1) nodes_[id] = std::make_shared<Node>(*nodes_[id]);
  return *nodes_[id];
}

void Image::write(Node& node, uint64_t offset, Bytes from) {
  while (!from.empty()) {
    const size_t index = offset / kBlockBytes;
    const size_t within = offset % kBlockBytes;
    const size_t count = std::min<size_t>(from.size(), kBlockBytes - within);
    if (node.blocks.size() <= index) node.blocks.resize(index + 1);
    std::shared_ptr<Block>& block = node.blocks[index];
    if (!block) {
      block = std::make_shared<Block>();
    } else if (block.use_count() > 1) {
      block = std::make_shared<Block>(*block);
    }
    std::copy_n(from.begin(), count, block->begin() + static_cast<ptrdiff_t>(within));
    from = from.subspan(count);
    offset += count;
  }
}

void Image::cut(Node& node, uint64_t size) {
  const size_t whole = align_up(size, kBlockBytes) / kBlockBytes;
  if (node.blocks.size() > whole) node.blocks.resize(whole);
  const size_t within = size % kBlockBytes;
  if (within != 0 && node.blocks.size() == whole && node.blocks.back()) {
    auto block = std::make_shared<Block>(*node.blocks.back());
    std::fill(block->begin() + static_cast<ptrdiff_t>(within), block->end(), std::byte{0});
    node.blocks.back() = std::move(block);
  }
  node.size = size;
}

void Image::apply(const Effect& effect) {
  Node& node = mutate(effect.node);
  switch (effect.kind) {
    case EffectKind::kData:
      write(node, effect.offset, *effect.bytes);
      break;
    case EffectKind::kGrow:
      node.size = std::max(node.size, effect.size);
      break;
    case EffectKind::kResize:
      if (effect.size < node.size || !node.blocks.empty()) cut(node, effect.size);
      node.size = effect.size;
      break;
    case EffectKind::kAdd:
      node.entries.try_emplace(effect.name, effect.target);
      break;
    case EffectKind::kRemove: {
      const auto found = node.entries.find(effect.name);
      if (found != node.entries.end() && found->second == effect.target) node.entries.erase(found);
      break;
    }
    case EffectKind::kRename: {
      const auto found = node.entries.find(effect.name);
      if (found != node.entries.end() && found->second == effect.target) node.entries.erase(found);
      mutate(effect.to_node).entries.insert_or_assign(effect.to_name, effect.target);
      break;
    }
  }
}

size_t sectors_of(const Effect& effect) {
  const uint64_t end = effect.offset + effect.bytes->size();
  return (align_up(end, kSectorBytes) - effect.offset / kSectorBytes * kSectorBytes) / kSectorBytes;
}

void Image::apply_torn(const Effect& effect, const std::vector<bool>& kept) {
  Node& node = mutate(effect.node);
  const uint64_t first = effect.offset / kSectorBytes * kSectorBytes;
  const uint64_t end = effect.offset + effect.bytes->size();
  for (size_t i = 0; i < kept.size(); ++i) {
    if (!kept[i]) continue;
    const uint64_t from = std::max(effect.offset, first + i * kSectorBytes);
    const uint64_t to = std::min(end, first + (i + 1) * kSectorBytes);
    write(node, from, Bytes(*effect.bytes).subspan(from - effect.offset, to - from));
  }
}

std::optional<NodeId> Image::find(std::string_view path) const {
  NodeId at = kRoot;
  while (!path.empty()) {
    if (path.front() == '/') {
      path.remove_prefix(1);
      continue;
    }
    const std::string_view name = path.substr(0, path.find('/'));
    path.remove_prefix(name.size());
    const auto& entries = nodes_[at]->entries;
    const auto found = entries.find(std::string(name));
    if (found == entries.end()) return std::nullopt;
    at = found->second;
  }
  return at;
}

void Image::read(NodeId id, uint64_t offset, MutableBytes into) const {
  const Node& node = *nodes_[id];
  CAISSON_CHECK(offset + into.size() <= node.size);
  while (!into.empty()) {
    const size_t index = offset / kBlockBytes;
    const size_t within = offset % kBlockBytes;
    const size_t count = std::min<size_t>(into.size(), kBlockBytes - within);
    if (index < node.blocks.size() && node.blocks[index]) {
      std::copy_n(node.blocks[index]->begin() + static_cast<ptrdiff_t>(within), count,
                  into.begin());
    } else {
      std::fill_n(into.begin(), count, std::byte{0});
    }
    into = into.subspan(count);
    offset += count;
  }
}

Digest Image::digest() const {
  DigestStream stream;
  ByteVector content;
  const auto number = [&](uint64_t value) {
    std::array<std::byte, 8> raw;
    store_le(raw.data(), value);
    stream.add(raw);
  };
  const std::function<void(NodeId)> visit = [&](NodeId id) {
    const Node& node = *nodes_[id];
    number(node.directory ? node.entries.size() : node.size);
    if (!node.directory) {
      const size_t blocks =
          std::min<size_t>(node.blocks.size(), align_up(node.size, kBlockBytes) / kBlockBytes);
      content.resize(std::min<uint64_t>(node.size, blocks * kBlockBytes));
      read(id, 0, content);
      while (!content.empty() && content.back() == std::byte{0}) content.pop_back();
      number(content.size());
      stream.add(content);
      return;
    }
    for (const auto& [name, child] : node.entries) {
      number(name.size());
      stream.add(as_bytes(name));
      visit(child);
    }
  };
  visit(kRoot);
  return stream.finish();
}

std::vector<std::string> Image::files() const {
  std::vector<std::string> paths;
  const std::function<void(NodeId, const std::string&)> visit = [&](NodeId id,
                                                                    const std::string& path) {
    if (!nodes_[id]->directory) {
      paths.push_back(path);
      return;
    }
    for (const auto& [name, child] : nodes_[id]->entries) visit(child, path + "/" + name);
  };
  visit(kRoot, "");
  return paths;
}

std::pair<std::string_view, std::string_view> split_path(std::string_view path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string_view::npos) return {"", path};
  return {path.substr(0, slash), path.substr(slash + 1)};
}

}  // namespace caisson::sim

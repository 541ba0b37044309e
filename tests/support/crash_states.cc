#include "tests/support/crash_states.h"

#include <algorithm>

#include "io/base/check.h"

namespace caisson::sim {
namespace {

bool is_content(EffectKind kind) {
  return kind == EffectKind::kData || kind == EffectKind::kGrow || kind == EffectKind::kResize;
}

bool concerns_directory(const Effect& effect, NodeId node) {
  if (is_content(effect.kind)) return false;
  return effect.node == node || (effect.kind == EffectKind::kRename && effect.to_node == node);
}

// Which sectors of `count` a crash left written: a prefix, a suffix, all but one, or any.
std::vector<bool> torn_pattern(size_t count, std::mt19937_64& random) {
  std::vector<bool> kept(count);
  const size_t at = random() % count;
  const uint64_t kind = random() % 4;
  for (size_t i = 0; i < count; ++i) {
    kept[i] = kind == 0 ? i < at : kind == 1 ? i > at : kind == 2 ? i != at : random() % 2 == 0;
  }
  return kept;
}

}  // namespace

CrashStates::CrashStates(Image base, History history, const CrashLimits& limits, uint64_t seed)
    : history_(std::move(history)), limits_(limits), seed_(seed), durable_(std::move(base)) {}

void CrashStates::advance_to(size_t prefix) {
  CAISSON_CHECK(prefix >= prefix_ && prefix <= history_.size());
  for (; prefix_ < prefix; ++prefix_) {
    const Op& op = history_[prefix_];
    if (op.made != kNoNode) durable_.ensure_node(op.made, op.directory);
    switch (op.kind) {
      case OpKind::kEffects:
        for (const Effect& effect : op.effects) {
          undecided_.push_back({&effect, false});
          if (effect.kind == EffectKind::kData) written_.push_back(&effect);
        }
        break;
      case OpKind::kSyncFile:
        settle_file(op.node);
        break;
      case OpKind::kSyncDirectory:
        settle_directory(op.node);
        break;
      case OpKind::kSyncFailed:
        forget(op.node);
        break;
      case OpKind::kMark:
        marks_.push_back(op.mark);
        break;
    }
  }
}

void CrashStates::settle_file(NodeId node) {
  std::erase_if(undecided_, [&](const Undecided& item) {
    const bool settled =
        !item.forgotten && is_content(item.effect->kind) && item.effect->node == node;
    if (settled) durable_.apply(*item.effect);
    return settled;
  });
}

void CrashStates::settle_directory(NodeId node) {
  std::erase_if(undecided_, [&](const Undecided& item) {
    const bool settled = !item.forgotten && concerns_directory(*item.effect, node);
    if (settled) durable_.apply(*item.effect);
    return settled;
  });
}

void CrashStates::forget(NodeId node) {
  for (Undecided& item : undecided_) {
    if (is_content(item.effect->kind) && item.effect->node == node) item.forgotten = true;
  }
}

bool CrashStates::has_data() const {
  return std::any_of(undecided_.begin(), undecided_.end(),
                     [](const Undecided& item) { return item.effect->kind == EffectKind::kData; });
}

uint32_t CrashStates::variants() const {
  const size_t count = undecided_.size();
  if (count <= limits_.subset_max) return (1u << count) + (has_data() ? limits_.torn : 0);
  return 2 + 2 * std::min(limits_.recent, static_cast<uint32_t>(count)) + limits_.samples;
}

CrashStates::Fate CrashStates::fate(uint32_t variant, size_t index, std::mt19937_64& random) const {
  const size_t count = undecided_.size();
  const bool all_subsets = count <= limits_.subset_max;
  const uint32_t planned =
      all_subsets ? 1u << count : 2 + 2 * std::min(limits_.recent, static_cast<uint32_t>(count));
  if (variant >= planned) {  // a random choice
    if (undecided_[index].effect->kind != EffectKind::kData) {
      return random() % 2 == 0 ? Fate::kKept : Fate::kLost;
    }
    return static_cast<Fate>(random() % 3);
  }
  if (all_subsets) {
    // 0 keeps nothing, 1 everything, the others what their bits say.
    const uint32_t all = (1u << count) - 1;
    const uint32_t subset = variant == 0 ? 0 : variant == 1 ? all : variant - 1;
    return (subset >> index & 1) != 0 ? Fate::kKept : Fate::kLost;
  }
  if (variant < 2) return variant == 1 ? Fate::kKept : Fate::kLost;
  const bool chosen = index == count - 1 - (variant - 2) / 2;
  const bool keep_others = variant % 2 == 0;
  return chosen != keep_others ? Fate::kKept : Fate::kLost;
}

// Applies some sectors; of those that are lost where nothing was before, some read as stale bytes.
void CrashStates::tear(Image& image, const Effect& effect, std::mt19937_64& random) const {
  const std::vector<bool> kept = torn_pattern(sectors_of(effect), random);
  if (random() % 2 == 0) {
    std::vector<bool> lost = kept;
    lost.flip();
    const Effect* source = written_[random() % written_.size()];
    if (source->node == effect.node) source = written_[random() % written_.size()];
    Effect stale = effect;
    ByteVector bytes(effect.bytes->size());
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = (*source->bytes)[i % source->bytes->size()];
    const uint64_t end = effect.offset + bytes.size();
    ByteVector before(bytes.size());
    if (image.size(effect.node) >= end) image.read(effect.node, effect.offset, before);
    const bool fresh = std::all_of(before.begin(), before.end(),
                                   [](std::byte byte) { return byte == std::byte{0}; });
    stale.bytes = std::make_shared<ByteVector>(std::move(bytes));
    if (fresh) image.apply_torn(stale, lost);
  }
  image.apply_torn(effect, kept);
}

Image CrashStates::build(uint32_t variant) const {
  std::mt19937_64 random(seed_ * 0x9e3779b97f4a7c15u + prefix_ * 0x100000001b3u + variant);
  Image image = durable_;
  for (size_t i = 0; i < undecided_.size(); ++i) {
    const Effect& effect = *undecided_[i].effect;
    switch (fate(variant, i, random)) {
      case Fate::kLost:
        break;
      case Fate::kKept:
        image.apply(effect);
        break;
      case Fate::kTorn:
        tear(image, effect, random);
        break;
    }
  }
  return image;
}

std::string CrashStates::describe() const {
  if (prefix_ == 0) return "before the first operation";
  const Op& op = history_[prefix_ - 1];
  constexpr std::string_view kOps[] = {"change of", "sync of", "directory sync of",
                                       "failed sync of", "mark"};
  constexpr std::string_view kEffects[] = {"write", "growth",  "resize",
                                           "name",  "removal", "rename"};
  std::string text = "after " + std::string(kOps[static_cast<size_t>(op.kind)]) + " " + op.path;
  for (const Effect& effect : op.effects) {
    text += ", " + std::string(kEffects[static_cast<size_t>(effect.kind)]);
  }
  return text + " (" + std::to_string(undecided_.size()) + " undecided)";
}

}  // namespace caisson::sim

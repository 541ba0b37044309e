#include "engine/restore_request.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "engine/verify_hint.h"

namespace caisson {

namespace {

constexpr size_t kProblemsShownMax = 20;

// Everything that is wrong with what the caller asked for, told at once.
class Problems {
 public:
  void add(const std::string& problem, bool missing) {
    if (!missing) all_missing_ = false;
    if (++count_ <= kProblemsShownMax) text_ += "\n  " + problem;
  }
  Status status(const std::string& checkpoint) const {
    if (count_ == 0) return ok_status();
    std::string text = checkpoint + " cannot fill " + std::to_string(count_) + " of the targets:";
    text += text_;
    if (count_ > kProblemsShownMax) {
      text += "\n  and " + std::to_string(count_ - kProblemsShownMax) + " more";
    }
    text += "\nnothing was read; next: caisson show STORE " + checkpoint;
    return all_missing_ ? not_found(std::move(text)) : invalid_argument(std::move(text));
  }

 private:
  size_t count_ = 0;
  bool all_missing_ = true;
  std::string text_;
};

std::string checkpoint_name(const format::Root& root) {
  return root.run + "/" + std::to_string(root.step);
}

// The record that holds the bytes of `name`: of an alias, its target's.
Result<std::shared_ptr<const TensorRecord>> find_content(Manifest& manifest,
                                                         const std::string& name) {
  CAISSON_ASSIGN_OR_RETURN(std::shared_ptr<const TensorRecord> record, manifest.find(name));
  if (record == nullptr || record->kind != TensorKind::kAlias) return record;
  const std::string target = record->alias_of;
  CAISSON_ASSIGN_OR_RETURN(record, manifest.find(target));
  if (record == nullptr || record->kind == TensorKind::kAlias) {
    return corruption("\"" + name + "\" is another name of \"" + target +
                      "\", which holds no tensor" +
                      verify_hint(checkpoint_name(manifest.root()), "structure"));
  }
  return record;
}

Status check_target(const TensorRecord& record, const TensorTarget& target) {
  CAISSON_RETURN_IF_ERROR(check_box(record.spec, target.box));
  if (target.box.elements() == 0) return ok_status();
  if (target.data == nullptr) return invalid_argument("no memory was given");
  if (target.strides_bytes.empty()) return ok_status();
  if (target.strides_bytes.size() != static_cast<size_t>(target.box.rank)) {
    return invalid_argument(std::to_string(target.strides_bytes.size()) +
                            " strides were given for a box of " + std::to_string(target.box.rank) +
                            " dimensions");
  }
  if (record.spec.dtype.bits < 8 &&
      target.strides_bytes != contiguous_strides(target.box, record.spec.dtype)) {
    return invalid_argument("elements of less than a byte must be contiguous");
  }
  return ok_status();
}

// Resolves the targets of one tensor, `which` indexing `targets`.
class Resolver {
 public:
  Resolver(std::span<const TensorTarget> targets, RestoreRequest& request, Problems& problems)
      : targets_(targets), request_(request), problems_(problems) {}

  Status resolve(const TensorRecord& record, std::span<const uint32_t> which) {
    const auto tensor = static_cast<uint32_t>(request_.tensors.size());
    request_.tensors.push_back({.spec = record.spec, .shards = {}});
    kept_.assign(record.shards.size(), kNotKept);
    const ShardIndex index(record.shards);
    for (const uint32_t i : which) {
      const TensorTarget& target = targets_[i];
      const Status fits = check_target(record, target);
      if (!fits.ok()) {
        problems_.add(
            "\"" + target.name + "\" " + to_string(target.box) + ": " + std::string(fits.message()),
            false);
        continue;
      }
      CAISSON_RETURN_IF_ERROR(select(record, index, tensor, i));
    }
    return ok_status();
  }

 private:
  static constexpr uint32_t kNotKept = UINT32_MAX;

  Status select(const TensorRecord& record, const ShardIndex& index, uint32_t tensor, uint32_t i) {
    const TensorTarget& target = targets_[i];
    WantedBox& wanted = request_.targets[i];
    wanted = {
        .tensor = tensor,
        .memory = {.box = target.box, .data = target.data, .strides_bytes = target.strides_bytes}};
    if (wanted.memory.strides_bytes.empty()) {
      wanted.memory.strides_bytes = contiguous_strides(target.box, record.spec.dtype);
    }
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes,
                             packed_bytes(target.box.elements(), record.spec.dtype));
    request_.raw_bytes += bytes;
    CAISSON_ASSIGN_OR_RETURN(const std::vector<ShardIndex::PieceRef> pieces,
                             index.pieces_of(target.box));
    for (const ShardIndex::PieceRef& ref : pieces) {
      const ShardRecord& shard = record.shards[ref.shard];
      std::vector<ShardRecord>& shards = request_.tensors[tensor].shards;
      if (kept_[ref.shard] == kNotKept) {
        kept_[ref.shard] = static_cast<uint32_t>(shards.size());
        shards.push_back(shard);
      }
      request_.uses.push_back({.part = shard.part,
                               .target = i,
                               .entry = shard.first_entry + (ref.piece - shard.first_piece),
                               .shard = kept_[ref.shard],
                               .piece = ref.piece});
    }
    return ok_status();
  }

  std::span<const TensorTarget> targets_;
  RestoreRequest& request_;
  Problems& problems_;
  std::vector<uint32_t> kept_;  // shard of the record -> shard of the WantedTensor
};

}  // namespace

Result<RestoreRequest> resolve_targets(Manifest& manifest, std::span<const TensorTarget> targets) {
  const std::string checkpoint = checkpoint_name(manifest.root());
  RestoreRequest request;
  request.targets.resize(targets.size());
  // In the order of names, so that each directory page is read once however many targets there are.
  std::vector<uint32_t> order(targets.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return targets[a].name < targets[b].name; });
  Problems problems;
  Resolver resolver(targets, request, problems);
  for (size_t i = 0; i < order.size();) {
    const std::string& name = targets[order[i]].name;
    size_t end = i + 1;
    while (end < order.size() && targets[order[end]].name == name) ++end;
    const auto which = std::span(order).subspan(i, end - i);
    i = end;
    CAISSON_ASSIGN_OR_RETURN(const std::shared_ptr<const TensorRecord> record,
                             find_content(manifest, name));
    if (record == nullptr) {
      for (size_t k = 0; k < which.size(); ++k) {
        problems.add("\"" + name + "\": no such tensor", true);
      }
      continue;
    }
    const Status done = resolver.resolve(*record, which);
    if (!done.ok()) {
      return corruption(checkpoint + ": tensor \"" + name + "\": " + std::string(done.message()) +
                        verify_hint(checkpoint, "structure"));
    }
  }
  CAISSON_RETURN_IF_ERROR(problems.status(checkpoint));
  std::sort(request.uses.begin(), request.uses.end(), [](const PieceUse& a, const PieceUse& b) {
    return std::tie(a.part, a.entry, a.target) < std::tie(b.part, b.entry, b.target);
  });
  return request;
}

}  // namespace caisson

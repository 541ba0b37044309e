// A set of uuids that only grows and is copied often: copies share one sorted array and carry the
// few additions since. For what the log must remember for ever (docs/commit.md). Thread-compatible.
#pragma once

#include <algorithm>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "io/base/hash.h"

namespace caisson {

class UuidSet {
 public:
  UuidSet() = default;
  // REQUIRES: `sorted` ascends strictly.
  explicit UuidSet(std::vector<Uuid> sorted)
      : settled_(std::make_shared<const std::vector<Uuid>>(std::move(sorted))) {}

  bool contains(const Uuid& uuid) const {
    return recent_.contains(uuid) ||
           (settled_ && std::binary_search(settled_->begin(), settled_->end(), uuid));
  }
  void insert(const Uuid& uuid) {
    if (contains(uuid)) return;
    recent_.insert(uuid);
    // Amortised: each merge moves at most eight times as many uuids as were added since the last.
    if (recent_.size() > 64 && recent_.size() > settled_count() / 8) {
      settled_ = std::make_shared<const std::vector<Uuid>>(sorted());
      recent_.clear();
    }
  }
  size_t size() const { return settled_count() + recent_.size(); }
  std::vector<Uuid> sorted() const {
    std::vector<Uuid> all;
    all.reserve(size());
    if (settled_) {
      std::merge(settled_->begin(), settled_->end(), recent_.begin(), recent_.end(),
                 std::back_inserter(all));
    } else {
      all.assign(recent_.begin(), recent_.end());
    }
    return all;
  }

 private:
  size_t settled_count() const { return settled_ ? settled_->size() : 0; }

  std::shared_ptr<const std::vector<Uuid>> settled_;
  std::set<Uuid> recent_;
};

}  // namespace caisson

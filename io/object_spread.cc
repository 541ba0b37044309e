#include "io/object_spread.h"

#include <algorithm>
#include <utility>

#include "io/base/check.h"

namespace caisson {

namespace {

class ObjectSpread final : public ObjectStore {
 public:
  ObjectSpread(std::vector<std::unique_ptr<ObjectStore>> stores, PlaceOfKey place)
      : stores_(std::move(stores)), place_(std::move(place)) {}

  Status put_new(std::string_view key, Bytes bytes) override { return of(key).put_new(key, bytes); }
  Result<ByteVector> get(std::string_view key, uint64_t bytes_max) override {
    return of(key).get(key, bytes_max);
  }
  Result<std::unique_ptr<ObjectWriter>> create(std::string_view key, uint64_t bytes_max) override {
    return of(key).create(key, bytes_max);
  }
  Result<std::unique_ptr<ObjectReader>> open(std::string_view key) override {
    return of(key).open(key);
  }
  Result<ObjectInfo> stat(std::string_view key) override { return of(key).stat(key); }
  Status list(std::string_view prefix,
              const std::function<Status(const ObjectInfo&)>& visit) override {
    return each(
        [&](ObjectStore& store, const auto& visit_own) { return store.list(prefix, visit_own); },
        visit);
  }
  Status list_after(std::string_view prefix, std::string_view key,
                    const std::function<Status(const ObjectInfo&)>& visit) override {
    return each([&](ObjectStore& store,
                    const auto& visit_own) { return store.list_after(prefix, key, visit_own); },
                visit);
  }
  Status remove(std::string_view key) override { return of(key).remove(key); }
  Status sync_names(std::string_view prefix) override {
    for (const auto& store : stores_) CAISSON_RETURN_IF_ERROR(store->sync_names(prefix));
    return ok_status();
  }

  ObjectCaps caps() override {
    ObjectCaps all = stores_.front()->caps();
    for (size_t i = 1; i < stores_.size(); ++i) {
      const ObjectCaps one = stores_[i]->caps();
      all.atomic_create = all.atomic_create && one.atomic_create;
      if (one.object_bytes_max != 0 &&
          (all.object_bytes_max == 0 || one.object_bytes_max < all.object_bytes_max)) {
        all.object_bytes_max = one.object_bytes_max;
      }
      all.alignment.memory = std::max(all.alignment.memory, one.alignment.memory);
      all.alignment.offset = std::max(all.alignment.offset, one.alignment.offset);
      all.alignment.direct = all.alignment.direct || one.alignment.direct;
      all.engine += "; " + one.engine;
    }
    return all;
  }
  uint32_t devices() const override { return static_cast<uint32_t>(stores_.size()); }
  uint32_t device_of(std::string_view key) const override { return place_(key, devices()); }
  Result<std::unique_ptr<TransferQueue>> make_queue(const IoQueueOptions& options) override {
    return stores_.front()->make_queue(options);
  }

 private:
  ObjectStore& of(std::string_view key) {
    const uint32_t device = device_of(key);
    CAISSON_CHECK(device < stores_.size());
    return *stores_[device];
  }

  template <typename List>
  Status each(List&& list, const std::function<Status(const ObjectInfo&)>& visit) {
    for (uint32_t device = 0; device < stores_.size(); ++device) {
      CAISSON_RETURN_IF_ERROR(list(*stores_[device], [&](const ObjectInfo& object) -> Status {
        return device_of(object.key) == device ? visit(object) : ok_status();
      }));
    }
    return ok_status();
  }

  const std::vector<std::unique_ptr<ObjectStore>> stores_;
  const PlaceOfKey place_;
};

}  // namespace

std::unique_ptr<ObjectStore> make_object_spread(std::vector<std::unique_ptr<ObjectStore>> stores,
                                                PlaceOfKey place) {
  CAISSON_CHECK(!stores.empty());
  return std::make_unique<ObjectSpread>(std::move(stores), std::move(place));
}

}  // namespace caisson

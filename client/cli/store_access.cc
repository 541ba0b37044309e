// See store_access.h.
#include "client/cli/store_access.h"

#include <fmt/format.h>

#include "client/open_objects.h"
#include "client/store_context.h"
#include "io/posix_file_system.h"

namespace caisson::cli {
namespace {

constexpr uint64_t kStoreFileBytesMax = 64 << 10;

}  // namespace

Result<StoreAccess> StoreAccess::open(const std::string& url, const Session& session) {
  CAISSON_ASSIGN_OR_RETURN(const StoreUrl parsed, parse_store_url(url));
  const std::string& root = parsed.root;
  CAISSON_ASSIGN_OR_RETURN(const std::shared_ptr<FileSystem> files,
                           make_posix_file_system(session.globals.io_engine));
  if (const auto there = files->stat(root); there.ok() && !there->is_directory) {
    return invalid_argument(root + " is a file; a store is a directory");
  }
  CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<ObjectStore> objects,
                           open_objects(files, parsed, system_uuids(), system_clock(),
                                        /*create=*/false));
  auto marker = objects->get(format::kStoreKey, kStoreFileBytesMax);
  if (!marker.ok()) {
    if (marker.status().code() != StatusCode::kNotFound) return marker.status();
    return not_found(fmt::format("{}: no store here (no {}); caisson import creates one", root,
                                 format::kStoreKey));
  }
  const auto store = format::decode_store_file(*marker);
  CAISSON_RETURN_IF_ERROR(store.status().with_context(root));
  CAISSON_ASSIGN_OR_RETURN(std::unique_ptr<Log> log,
                           Log::open(*objects, system_uuids(), this_process()));
  return StoreAccess(root, *store, std::move(objects), std::move(log));
}

StoreAccess::StoreAccess(std::string root, const format::StoreFile& store,
                         std::unique_ptr<ObjectStore> objects, std::unique_ptr<Log> log)
    : root_(std::move(root)),
      uuid_(store.uuid),
      writable_(format::may_write(store.features)),
      objects_(std::move(objects)),
      log_(std::move(log)) {}

Status StoreAccess::check_writable() const {
  if (writable_) return ok_status();
  return unsupported(root_ +
                     ": the store has a feature that this version may read but not write; " +
                     "use a newer one");
}

Result<Checkpoint> StoreAccess::find(const std::string& name) const {
  return find_checkpoint(*log_->state(), name);
}

Result<std::shared_ptr<Manifest>> StoreAccess::manifest(const Checkpoint& checkpoint) {
  return Manifest::open(*objects_, checkpoint.root);
}

Result<std::shared_ptr<Manifest>> StoreAccess::manifest(const std::string& name) {
  CAISSON_ASSIGN_OR_RETURN(const Checkpoint checkpoint, find(name));
  return manifest(checkpoint);
}

}  // namespace caisson::cli

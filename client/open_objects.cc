// A store of several directories is made in this order, so that a creation that was cut short is
// told from a directory that is missing:
//   1. the store file, in the first directory: from here on every build that does not know the
//      feature refuses the store
//   2. a marker in each further directory: store, number, count
//   3. the list of the further directories, in the first: from here on they must all be there
// Each is created once; whoever finds 3 missing does 2 and 3 again.
#include "client/open_objects.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/format/directories.h"
#include "engine/format/root.h"
#include "io/object_dir.h"
#include "io/object_spread.h"

namespace caisson {

namespace {

constexpr uint64_t kSmallBytesMax = 1u << 20;  // of a store file, a marker, a list
constexpr std::string_view kDirectoriesOption = "?dirs=";

Result<std::string> absolute_directory(const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return invalid_argument("an empty path is no directory of a store");
  }
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  if (error) return errno_status(error.value(), path);
  std::string normal = absolute.lexically_normal().string();
  while (normal.size() > 1 && normal.ends_with('/')) normal.pop_back();
  return normal;
}

bool is_spread(const format::StoreFile& store) {
  return (store.features.incompatible & format::kFeatureDirectories) != 0;
}

// Create-once of what is the same whoever writes it.
Status put_same(ObjectStore& objects, std::string_view key, Bytes bytes, const std::string& what) {
  const Status status = objects.put_new(key, bytes);
  if (status.code() != StatusCode::kAlreadyExists) return status;
  CAISSON_ASSIGN_OR_RETURN(const ByteVector found, objects.get(key, kSmallBytesMax));
  if (std::ranges::equal(found, bytes)) return ok_status();
  return invalid_argument(what + " has another " + std::string(key) +
                          " already; give each store directories of its own");
}

Status create_spread_store(ObjectStore& first, const std::string& root, UuidSource& uuids,
                           Clock& clock) {
  CAISSON_RETURN_IF_ERROR(first.list("", [&](const ObjectInfo& object) -> Status {
    if (object.key == format::kStoreKey) return ok_status();  // created at this moment
    return invalid_argument("no store is created in " + root + ": it is not empty (\"" +
                            object.key + "\"); choose an empty directory");
  }));
  format::StoreFile fresh{.uuid = uuids.next(), .created_unix_ns = clock.unix_ns()};
  fresh.features.incompatible = format::kFeatureDirectories;
  const Status created = first.put_new(format::kStoreKey, format::encode_store_file(fresh));
  return created.code() == StatusCode::kAlreadyExists ? ok_status() : created;
}

Status refuse_foreign_entries(FileSystem& files, const std::string& path) {
  const auto entries = files.list(path);
  if (entries.status().code() == StatusCode::kNotFound) return ok_status();
  CAISSON_RETURN_IF_ERROR(entries.status());
  for (const DirEntry& entry : *entries) {
    if (entry.name == format::kDirectoryKey || entry.name == "tmp") continue;
    return invalid_argument(path + " is not empty (\"" + entry.name +
                            "\"); give a new store empty or new directories");
  }
  return ok_status();
}

// Steps 2 and 3.
Status make_directories(const std::shared_ptr<FileSystem>& files, const StoreUrl& url,
                        ObjectStore& first, const Uuid& store, UuidSource& uuids) {
  const auto count = static_cast<uint32_t>(url.directories.size()) + 1;
  for (uint32_t number = 1; number < count; ++number) {
    const std::string& path = url.directories[number - 1];
    CAISSON_RETURN_IF_ERROR(refuse_foreign_entries(*files, path));
    const ByteVector marker =
        format::encode_directory_marker({.store = store, .number = number, .count = count});
    const auto directory = make_object_dir(files, path, uuids);
    CAISSON_RETURN_IF_ERROR(put_same(*directory, format::kDirectoryKey, marker, path));
  }
  return put_same(first, format::kDirectoriesKey,
                  format::encode_directories(store, url.directories), url.root);
}

// The further directories of `first`, where they are now.
Result<std::vector<std::string>> further_directories(const StoreUrl& url, ObjectStore& first,
                                                     const Uuid& store) {
  auto bytes = first.get(format::kDirectoriesKey, kSmallBytesMax);
  if (bytes.status().code() == StatusCode::kNotFound) {
    return not_found("the making of store " + url.root +
                     " was cut short; open it for writing with the ?dirs= that it was to have");
  }
  if (!bytes.ok()) return bytes.status();
  CAISSON_ASSIGN_OR_RETURN(std::vector<std::string> paths,
                           format::decode_directories(store, *bytes));
  if (url.directories.empty()) return paths;
  if (url.directories.size() == paths.size()) return url.directories;
  return invalid_argument("store " + url.root + " has " + std::to_string(paths.size()) +
                          " directories beside the first, and ?dirs= names " +
                          std::to_string(url.directories.size()) +
                          "; a store keeps the number that it was made with");
}

// The directory at `path` in its place of `stores`, as its marker says: `path` may be that of
// another directory of the store, mounted there instead.
Status add_directory(const std::shared_ptr<FileSystem>& files, const StoreUrl& url,
                     const std::string& path, const Uuid& store, UuidSource& uuids,
                     std::vector<std::unique_ptr<ObjectStore>>& stores) {
  auto directory = make_object_dir(files, path, uuids);
  const auto bytes = directory->get(format::kDirectoryKey, kSmallBytesMax);
  if (bytes.status().code() == StatusCode::kNotFound) {
    return not_found(path + " is not the directory of store " + url.root +
                     " that it was: it is not mounted, or empty; mount it, or open the store as " +
                     url.root + "?dirs=... with the places where its directories are now");
  }
  CAISSON_RETURN_IF_ERROR(bytes.status());
  CAISSON_ASSIGN_OR_RETURN(
      const format::DirectoryMarker marker,
      format::decode_directory_marker(*bytes, path + "/" + std::string(format::kDirectoryKey)));
  if (marker.store != store || marker.count != stores.size()) {
    return invalid_argument(path + " belongs to another store than " + url.root +
                            "; nothing was read or written");
  }
  if (stores[marker.number] != nullptr) {
    return invalid_argument(path + " is directory " + std::to_string(marker.number) + " of store " +
                            url.root + ", and so is another one; one of them is a copy");
  }
  stores[marker.number] = std::move(directory);
  return ok_status();
}

}  // namespace

Result<StoreUrl> parse_store_url(const std::string& url) {
  StoreUrl parsed;
  const size_t option = url.find(kDirectoriesOption);
  std::string path = url.substr(0, option);
  if (const size_t scheme = path.find("://"); scheme != std::string::npos) {
    if (!path.starts_with("file://")) {
      return unsupported("\"" + url + "\": this version stores into directories only; give a " +
                         "path, or file:// and a path");
    }
    path = path.substr(scheme + 3);
    if (!path.starts_with('/')) {
      return invalid_argument("\"" + url + "\": a file URL has an absolute path, as in " +
                              "file:///data/checkpoints");
    }
  }
  CAISSON_ASSIGN_OR_RETURN(parsed.root, absolute_directory(path));
  if (option == std::string::npos) return parsed;
  std::string rest = url.substr(option + kDirectoriesOption.size());
  for (bool more = true; more;) {
    const size_t comma = rest.find(',');
    more = comma != std::string::npos;
    CAISSON_ASSIGN_OR_RETURN(std::string directory, absolute_directory(rest.substr(0, comma)));
    if (directory == parsed.root || std::ranges::count(parsed.directories, directory) > 0) {
      return invalid_argument("\"" + url + "\": " + directory + " is named twice");
    }
    parsed.directories.push_back(std::move(directory));
    if (more) rest = rest.substr(comma + 1);
  }
  if (parsed.directories.size() < format::kDirectoriesMax) return parsed;
  return invalid_argument("a store has at most " + std::to_string(format::kDirectoriesMax) +
                          " directories");
}

Result<std::unique_ptr<ObjectStore>> open_objects(const std::shared_ptr<FileSystem>& files,
                                                  const StoreUrl& url, UuidSource& uuids,
                                                  Clock& clock, bool create) {
  std::unique_ptr<ObjectStore> first = make_object_dir(files, url.root, uuids);
  auto bytes = first->get(format::kStoreKey, kSmallBytesMax);
  if (bytes.status().code() == StatusCode::kNotFound) {
    if (url.directories.empty() || !create) return first;
    CAISSON_RETURN_IF_ERROR(create_spread_store(*first, url.root, uuids, clock));
    bytes = first->get(format::kStoreKey, kSmallBytesMax);
  }
  if (!bytes.ok()) return bytes.status();
  CAISSON_ASSIGN_OR_RETURN(const format::StoreFile store, format::decode_store_file(*bytes));
  if (!is_spread(store)) {
    if (url.directories.empty()) return first;
    return invalid_argument(url.root +
                            " is a store of one directory: leave ?dirs= out; only a new store "
                            "can be given more");
  }
  auto paths = further_directories(url, *first, store.uuid);
  if (paths.status().code() == StatusCode::kNotFound && create && !url.directories.empty()) {
    CAISSON_RETURN_IF_ERROR(make_directories(files, url, *first, store.uuid, uuids));
    paths = further_directories(url, *first, store.uuid);
  }
  if (!paths.ok()) return paths.status();
  std::vector<std::unique_ptr<ObjectStore>> stores(paths->size() + 1);
  stores.front() = std::move(first);
  for (const std::string& path : *paths) {
    CAISSON_RETURN_IF_ERROR(add_directory(files, url, path, store.uuid, uuids, stores));
  }
  return make_object_spread(std::move(stores), format::directory_of);
}

Result<std::vector<std::string>> directories_of_store(const std::shared_ptr<FileSystem>& files,
                                                      const StoreUrl& url) {
  std::vector<std::string> all = {url.root};
  const auto first = make_object_dir(files, url.root, system_uuids());
  const auto bytes = first->get(format::kStoreKey, kSmallBytesMax);
  if (bytes.status().code() == StatusCode::kNotFound) return all;
  CAISSON_RETURN_IF_ERROR(bytes.status());
  CAISSON_ASSIGN_OR_RETURN(const format::StoreFile store, format::decode_store_file(*bytes));
  if (!is_spread(store)) return all;
  CAISSON_ASSIGN_OR_RETURN(const auto paths, further_directories(url, *first, store.uuid));
  all.insert(all.end(), paths.begin(), paths.end());
  return all;
}

}  // namespace caisson

// A store opened below the Store interface: objects, log and manifests, for the verbs that look
// inside. Thread-compatible.
#pragma once

#include <memory>
#include <string>

#include "client/cli/command.h"
#include "engine/format/root.h"
#include "engine/log.h"
#include "engine/manifest.h"
#include "io/object_store.h"

namespace caisson::cli {

class StoreAccess {
 public:
  // kNotFound when `url` holds no store; nothing is created.
  static Result<StoreAccess> open(const std::string& url, const Session& session);

  const std::string& root() const { return root_; }  // an absolute path
  const Uuid& uuid() const { return uuid_; }
  ObjectStore& objects() { return *objects_; }
  Log& log() { return *log_; }
  std::shared_ptr<const LogState> state() const { return log_->state(); }
  // kUnsupported for a store that this version may only read: asked before anything is appended.
  Status check_writable() const;

  // "run/step" or "run/latest". kNotFound naming what there is instead.
  Result<Checkpoint> find(const std::string& name) const;
  Result<std::shared_ptr<Manifest>> manifest(const Checkpoint& checkpoint);
  Result<std::shared_ptr<Manifest>> manifest(const std::string& name);

 private:
  StoreAccess(std::string root, const format::StoreFile& store,
              std::unique_ptr<ObjectStore> objects, std::unique_ptr<Log> log);

  std::string root_;
  Uuid uuid_;
  bool writable_;
  std::unique_ptr<ObjectStore> objects_;
  std::unique_ptr<Log> log_;  // after objects_, which it uses
};

}  // namespace caisson::cli

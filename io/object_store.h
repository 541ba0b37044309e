// The seam to storage engines: named immutable objects, created once. A directory is one
// implementation (object_dir.h); S3 and RADOS are others. Keys are relative, of [a-z0-9/_.-], at
// most 200 bytes, without "..", "//" or a leading or trailing "/": check_key. ObjectStore is
// thread-safe; writers, readers and queues belong to one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "caisson/result.h"
#include "io/base/bytes.h"
#include "io/file_system.h"

namespace caisson {

struct ObjectInfo {
  std::string key;
  uint64_t bytes = 0;
};

struct ObjectCaps {
  bool atomic_create = true;      // put_new has exactly one winner, ever
  uint64_t object_bytes_max = 0;  // 0: no limit
  IoAlignment alignment;          // what bulk reads and writes want
  std::string engine;             // for people: "directory /x, io_uring, O_DIRECT 512"
};

// One object while it is written. Nobody may rely on it before publish() returned ok. Destruction
// without publish removes what was written, as far as that is possible.
class ObjectWriter {
 public:
  virtual ~ObjectWriter() = default;
  virtual const std::string& key() const = 0;
  // Synchronous, any alignment.
  virtual Status write(uint64_t offset, Bytes from) = 0;
  // Cuts the object to `bytes`, makes data and name durable. REQUIRES: nothing in flight.
  virtual Status publish(uint64_t bytes) = 0;
};

class ObjectReader {
 public:
  virtual ~ObjectReader() = default;
  virtual const std::string& key() const = 0;
  virtual uint64_t bytes() const = 0;
  // What a queued read of it wants of memory, offset and length.
  virtual IoAlignment alignment() const { return {.memory = 1, .offset = 1, .direct = false}; }
  // Exactly that range; kCorruption when the object is shorter.
  virtual Status read(uint64_t offset, MutableBytes into) = 0;
};

// Bulk transfers in flight: same contract as IoQueue, on objects of the store that made the queue.
class TransferQueue {
 public:
  virtual ~TransferQueue() = default;
  virtual Status submit_write(ObjectWriter& object, uint64_t offset, Bytes from, uint64_t tag) = 0;
  virtual Status submit_read(ObjectReader& object, uint64_t offset, MutableBytes into,
                             uint64_t tag) = 0;
  // ObjectWriter::publish as a request. REQUIRES: nothing else of the object is in flight.
  virtual Status submit_publish(ObjectWriter& object, uint64_t bytes, uint64_t tag) = 0;
  virtual Result<IoCompletion> wait() = 0;
  virtual bool ready() const { return false; }
  virtual uint32_t in_flight() const = 0;
  virtual uint32_t depth() const = 0;
};

class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  // Create-once, atomic, durable when it returns ok. kAlreadyExists: another creation won. Any
  // other failure leaves the outcome unknown: get the key and compare.
  virtual Status put_new(std::string_view key, Bytes bytes) = 0;
  // The whole object; kNotFound; kCorruption when it is larger than bytes_max.
  virtual Result<ByteVector> get(std::string_view key, uint64_t bytes_max) = 0;
  // Starts an object of at most `bytes_max` bytes under a key that was never used.
  virtual Result<std::unique_ptr<ObjectWriter>> create(std::string_view key,
                                                       uint64_t bytes_max) = 0;
  virtual Result<std::unique_ptr<ObjectReader>> open(std::string_view key) = 0;
  virtual Result<ObjectInfo> stat(std::string_view key) = 0;
  // Every object whose key starts with `prefix` (which ends in "/" or is empty), in no order.
  // A listing may be stale; nothing that decides a commit or a deletion may depend on it alone.
  virtual Status list(std::string_view prefix,
                      const std::function<Status(const ObjectInfo&)>& visit) = 0;
  // The objects directly under `prefix`, no deeper, whose keys sort after `key`, which need not
  // exist. As stale as list, and cheap where few there sort after it.
  virtual Status list_after(std::string_view prefix, std::string_view key,
                            const std::function<Status(const ObjectInfo&)>& visit) = 0;
  // Success when the object is gone, also when it was never there. Not durable: after a power loss
  // the object may be back, whole, and nothing may rest on its absence.
  virtual Status remove(std::string_view key) = 0;
  // Makes the names directly under `prefix`, and of what leads there, durable as far as this
  // process has seen them. Whoever deletes because of a record it read calls this on the log first.
  // Costs the same however many names there are.
  virtual Status sync_names(std::string_view prefix) = 0;
  virtual ObjectCaps caps() = 0;
  // On how many devices it spreads what it holds, and on which of them, from 0, `key` lies: whoever
  // moves much keeps all of them busy.
  virtual uint32_t devices() const { return 1; }
  virtual uint32_t device_of(std::string_view /*key*/) const { return 0; }
  virtual Result<std::unique_ptr<TransferQueue>> make_queue(const IoQueueOptions& options) = 0;
};

// invalid_argument unless `key` obeys the rules above.
Status check_key(std::string_view key);

}  // namespace caisson

// What the cases of one group work with: a scratch directory, the store that a training process
// would have open, tensors, the device's limits, and the timed section. Everything that it made on
// the device goes with it. Single-threaded.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "bench/case.h"
#include "bench/device_limit.h"
#include "bench/machine.h"
#include "bench/tensors.h"
#include "caisson/store.h"
#include "io/file_system.h"

namespace caisson::bench {

class Workbench {
 public:
  // `name` is of the scratch directory below options.directory, and below each further one; none
  // may be there yet.
  static Result<std::unique_ptr<Workbench>> create(const BenchOptions& options,
                                                   const std::string& name);
  ~Workbench();
  Workbench(const Workbench&) = delete;
  Workbench& operator=(const Workbench&) = delete;

  const BenchOptions& options() const { return options_; }
  const std::string& scratch() const { return scratches_.front(); }
  FileSystem& files() { return *files_; }
  uint64_t tensor_bytes() const { return options_.bytes; }

  // The group's store, opened at the first call and kept: its staging memory is touched once, as in
  // a training process. Another I/O engine has another store.
  Result<Store*> store(const std::string& io_engine);
  Result<Store*> store() { return store(options_.store.io_engine); }
  static std::string store_name(const std::string& io_engine) { return "store-" + io_engine; }
  // A store of another name, in the same directories.
  Result<std::unique_ptr<Store>> open_store(const std::string& name) const;
  std::string url_of(const std::string& store_name) const;
  std::vector<std::string> paths_of(const std::string& store_name) const;  // one a directory

  // Tensors that are saved, filled, and where they are restored to, touched. Made at first use.
  Result<TensorMemory*> source();  // aligned
  Result<TensorMemory*> unaligned_source();
  Result<TensorMemory*> target();  // aligned
  Result<TensorMemory*> unaligned_target();

  // Bytes a second, measured now: of a fresh file, which is gone when it returns; and of one file
  // that is written once and read in every round. Of several directories together: a file in each.
  Result<double> write_limit();
  Result<double> read_limit();
  const std::string& read_limit_path() const { return read_path_; }

  // Runs `work` as a timed section.
  template <typename Work>
  Result<Usage> timed(Work&& work) const {
    CAISSON_RETURN_IF_ERROR(check_stop());
    const Stopwatch watch;
    const Status done = work();
    const Usage usage = watch.stop();
    CAISSON_RETURN_IF_ERROR(done);
    return usage;
  }
  // The same for work of the group's store: its peak counts the staging memory that the store has
  // kept from earlier sections too. `touched`: what the work makes resident that is the caller's.
  template <typename Work>
  Result<Usage> timed_store(const std::string& io_engine, Work&& work, uint64_t touched = 0) {
    CAISSON_ASSIGN_OR_RETURN(Usage usage, timed(std::forward<Work>(work)));
    int64_t& kept = kept_by_store_[io_engine];
    usage.peak_bytes += kept - static_cast<int64_t>(touched);
    kept += usage.retained_bytes - static_cast<int64_t>(touched);
    return usage;
  }
  template <typename Work>
  Result<Usage> timed_store(Work&& work, uint64_t touched = 0) {
    return timed_store(options_.store.io_engine, std::forward<Work>(work), touched);
  }

  // Deletes what earlier rounds stored and nobody reads again, and waits until the device has got
  // over it. The tables stay: the next save has something to compare with.
  Status discard_packs(const std::string& store_name);
  Status discard_packs() { return discard_packs(store_name(options_.store.io_engine)); }
  // The same for checkpoints of the group's store that were removed, beside others that stay.
  Status collect_garbage();
  Status discard(const std::string& path);
  // For the same reason, after a deletion by somebody else.
  Status settle();
  // kCancelled once the person has pressed Ctrl-C.
  Status check_stop() const;

 private:
  explicit Workbench(const BenchOptions& options) : options_(options) {}
  const BenchOptions& options_;
  std::vector<std::string> scratches_;  // one in each directory
  std::unique_ptr<FileSystem> files_;
  std::map<std::string, std::unique_ptr<Store>> stores_;
  std::shared_ptr<TensorMemory> source_, unaligned_source_, target_, unaligned_target_;
  std::unique_ptr<DeviceLimit> read_limit_;
  std::string read_path_;  // in the first directory
  std::map<std::string, int64_t> kept_by_store_;
};

// One save without codecs, from the call to durable and committed.
Result<SaveReport> save_whole(const Workbench& bench, Store& store, const std::string& name,
                              std::span<const TensorShard> shards);

// What most cases report, beside their ratio.
void add_rate(Round& round, uint64_t bytes, double seconds);
// `of`: round.limits.write or .read.
void add_ratio(Round& round, uint64_t bytes, double seconds, double of,
               std::optional<double> target = {});
void add_cpu(Round& round, uint64_t bytes, double cpu_seconds, std::optional<double> target = {});
// As measured, and as the stores of this process counted it so far.
void add_memory(Round& round, const BenchOptions& options, int64_t bytes);

}  // namespace caisson::bench

// caisson/c.h: structs of the caller, read with care. A struct is copied as far as both sides know
// it; what is missing is zero, and what only the caller knows must be.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "caisson/metrics.h"
#include "client/c_handles.h"

namespace caisson::c {

namespace {

constexpr uint32_t kStructBytesMax = 4096;

// The sizes of the first version: what a caller has at least.
template <typename T>
constexpr uint32_t kFirstBytes = sizeof(T);

std::string where(const char* what, uint64_t i, bool many) {
  return many ? std::string(what) + " " + std::to_string(i) : std::string("the ") + what;
}

// Copies a struct of `bytes` bytes at `from`.
template <typename T>
Status read_struct(const std::byte* from, uint32_t bytes, T& to, const std::string& what) {
  static_assert(std::is_trivially_copyable_v<T>);
  if (bytes < kFirstBytes<T> || bytes > kStructBytesMax) {
    return invalid_argument(what + " has struct_size " + std::to_string(bytes) +
                            ": set it to sizeof of the struct, " + std::to_string(sizeof(T)));
  }
  to = {};
  std::memcpy(&to, from, std::min<size_t>(bytes, sizeof(T)));
  const auto is_zero = [](std::byte b) { return b == std::byte{0}; };
  if (bytes > sizeof(T) && !std::all_of(from + sizeof(T), from + bytes, is_zero)) {
    return unsupported(what + " uses fields that this library, version " CAISSON_VERSION
                              ", does not have");
  }
  return ok_status();
}

uint32_t struct_size_at(const std::byte* at) {
  uint32_t bytes = 0;
  std::memcpy(&bytes, at, sizeof bytes);
  return bytes;
}

// Reads one struct; null stands for all its defaults.
template <typename T>
Status read_one(const T* given, T& to, const char* what) {
  to = {};
  if (given == nullptr) return ok_status();
  const auto* bytes = reinterpret_cast<const std::byte*>(given);
  return read_struct(bytes, struct_size_at(bytes), to, where(what, 0, false));
}

// Reads `count` structs that lie one after the other; `convert` makes the engine's word of each.
template <typename T, typename Word>
Result<std::vector<Word>> read_many(const T* given, uint64_t count, const char* what,
                                    Result<Word> (*convert)(const T&, uint64_t)) {
  std::vector<Word> words;
  if (count == 0) return words;
  if (count > kCountMax) {
    return invalid_argument(std::to_string(count) + " of " + what + ": more than the " +
                            std::to_string(kCountMax) + " that one call takes");
  }
  if (given == nullptr) {
    return invalid_argument(std::string("the array of ") + what + " is null, its count is " +
                            std::to_string(count));
  }
  const auto* at = reinterpret_cast<const std::byte*>(given);
  const uint32_t step = struct_size_at(at);
  for (uint64_t i = 0; i < count; ++i, at += step) {
    T one;
    const uint32_t bytes = struct_size_at(at);
    if (bytes != step) {
      return invalid_argument(where(what, i, true) + " has struct_size " + std::to_string(bytes) +
                              ", the first has " + std::to_string(step));
    }
    CAISSON_RETURN_IF_ERROR(read_struct(at, bytes, one, where(what, i, true)));
    CAISSON_ASSIGN_OR_RETURN(Word word, convert(one, i));
    words.push_back(std::move(word));
  }
  return words;
}

Status check_name(const char* name, const char* what, uint64_t i) {
  if (name != nullptr) return ok_status();
  return invalid_argument(where(what, i, true) + " has no name");
}

// Offset, extent and strides of a shard or a target.
template <typename T>
Status read_box(const T& given, Box& box, std::vector<int64_t>& strides) {
  if (given.rank > CAISSON_RANK_MAX) {
    return invalid_argument("\"" + std::string(given.name) + "\" has " +
                            std::to_string(given.rank) + " dimensions; at most " +
                            std::to_string(CAISSON_RANK_MAX) + " are stored");
  }
  box.rank = given.rank;
  std::copy_n(given.offset, given.rank, box.offset.begin());
  std::copy_n(given.extent, given.rank, box.extent.begin());
  if (given.strided != 0) {
    strides.assign(given.strides_bytes, given.strides_bytes + given.rank);
  }
  return ok_status();
}

Result<TensorShard> shard_of(const caisson_shard& given, uint64_t i) {
  CAISSON_RETURN_IF_ERROR(check_name(given.name, "shard", i));
  TensorShard shard;
  CAISSON_RETURN_IF_ERROR(read_box(given, shard.box, shard.strides_bytes));
  shard.tensor = {.name = given.name,
                  .dtype = {static_cast<DTypeCode>(given.dtype_code), given.dtype_bits},
                  .shape = {.rank = given.rank, .dims = {}}};
  std::copy_n(given.shape, given.rank, shard.tensor.shape.dims.begin());
  CAISSON_RETURN_IF_ERROR(
      check_dtype(shard.tensor.dtype).with_context("\"" + shard.tensor.name + "\""));
  shard.data = static_cast<const std::byte*>(given.data);
  shard.replica = {.index = given.replica_index,
                   .count = std::max<uint32_t>(given.replica_count, 1)};
  return shard;
}

Result<BlobView> blob_of(const caisson_blob& given, uint64_t i) {
  CAISSON_RETURN_IF_ERROR(check_name(given.name, "blob", i));
  if (given.data == nullptr && given.bytes > 0) {
    return invalid_argument(where("blob", i, true) + " has " + std::to_string(given.bytes) +
                            " bytes, and null for data");
  }
  return BlobView{.name = given.name,
                  .bytes = {static_cast<const std::byte*>(given.data), given.bytes}};
}

Result<Alias> alias_of(const caisson_alias& given, uint64_t i) {
  CAISSON_RETURN_IF_ERROR(check_name(given.name, "alias", i));
  CAISSON_RETURN_IF_ERROR(check_name(given.target, "target of alias", i));
  return Alias{.name = given.name, .target = given.target};
}

Result<TensorTarget> target_of(const caisson_target& given, uint64_t i) {
  CAISSON_RETURN_IF_ERROR(check_name(given.name, "target", i));
  TensorTarget target;
  target.name = given.name;
  CAISSON_RETURN_IF_ERROR(read_box(given, target.box, target.strides_bytes));
  target.data = static_cast<std::byte*>(given.data);
  return target;
}

Status check_bits(uint32_t given, uint32_t known, const char* what) {
  if ((given & ~known) == 0) return ok_status();
  return unsupported(std::string(what) + " has flags that this library does not know: " +
                     std::to_string(given & ~known));
}

void set_text(std::string& to, const char* from) {
  if (from != nullptr) to = from;
}

}  // namespace

Result<OwnedSave> read_input(const caisson_save_input* input) {
  if (input == nullptr) return invalid_argument("the input is null");
  caisson_save_input given;
  CAISSON_RETURN_IF_ERROR(read_one(input, given, "input"));
  CAISSON_RETURN_IF_ERROR(check_bits(given.flags, CAISSON_INPUT_DEFERRED, "the input"));
  OwnedSave owned;
  owned.deferred = (given.flags & CAISSON_INPUT_DEFERRED) != 0;
  CAISSON_ASSIGN_OR_RETURN(owned.shards,
                           read_many(given.shards, given.shards_count, "shard", shard_of));
  CAISSON_ASSIGN_OR_RETURN(owned.blobs, read_many(given.blobs, given.blobs_count, "blob", blob_of));
  CAISSON_ASSIGN_OR_RETURN(owned.aliases,
                           read_many(given.aliases, given.aliases_count, "alias", alias_of));
  return owned;
}

Result<std::vector<TensorTarget>> read_targets(const caisson_target* targets, uint64_t count) {
  return read_many(targets, count, "target", target_of);
}

Result<std::vector<std::string>> read_texts(const char* const* texts, uint64_t count,
                                            const char* what) {
  if (count > kCountMax || (texts == nullptr && count > 0)) {
    return invalid_argument(std::string("the array of ") + what +
                            " is null or too long: " + std::to_string(count));
  }
  std::vector<std::string> read;
  read.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    if (texts[i] == nullptr) return invalid_argument(where(what, i, true) + " is null");
    read.emplace_back(texts[i]);
  }
  return read;
}

Result<StoreOptions> read_options(const caisson_store_options* options) {
  caisson_store_options given;
  CAISSON_RETURN_IF_ERROR(read_one(options, given, "store options"));
  CAISSON_RETURN_IF_ERROR(check_bits(
      given.flags, CAISSON_STORE_NO_CREATE | CAISSON_STORE_TRACE | CAISSON_STORE_BESIDE_FILES,
      "the store options"));
  StoreOptions read;
  read.create = (given.flags & CAISSON_STORE_NO_CREATE) == 0;
  read.create_beside_files = (given.flags & CAISSON_STORE_BESIDE_FILES) != 0;
  if (given.memory_bytes_max > 0) read.memory_bytes_max = given.memory_bytes_max;
  set_text(read.io_engine, given.io_engine);
  if ((given.flags & CAISSON_STORE_TRACE) != 0) read.trace = std::make_shared<Trace>();
  read.metrics = std::make_shared<Metrics>();
  return read;
}

Result<SaveOptions> read_options(const caisson_save_options* options) {
  caisson_save_options given;
  CAISSON_RETURN_IF_ERROR(read_one(options, given, "save options"));
  CAISSON_RETURN_IF_ERROR(check_bits(given.flags,
                                     CAISSON_SAVE_NO_DEDUP | CAISSON_SAVE_STAGE |
                                         CAISSON_SAVE_OVERWRITE | CAISSON_SAVE_DETERMINISTIC,
                                     "the save options"));
  SaveOptions read;
  read.dedup = (given.flags & CAISSON_SAVE_NO_DEDUP) == 0;
  read.stage = (given.flags & CAISSON_SAVE_STAGE) != 0;
  read.overwrite = (given.flags & CAISSON_SAVE_OVERWRITE) != 0;
  read.codec_deterministic = (given.flags & CAISSON_SAVE_DETERMINISTIC) != 0;
  set_text(read.codec, given.codec);
  set_text(read.base, given.base);
  set_text(read.metadata_json, given.metadata_json);
  set_text(read.delta, given.delta);
  if (!(given.codec_cpu_max >= 0)) {  // NaN, too
    return invalid_argument("codec_cpu_max is a number of cores, 0 for no bound");
  }
  if (given.codec_cpu_max > 0) read.codec_cpu = given.codec_cpu_max;
  if (given.workers > 0) read.workers = given.workers;
  switch (given.memory_check) {
    case CAISSON_MEMORY_CHECK_SAMPLED:
      read.memory_check = MemoryCheck::kSampled;
      break;
    case CAISSON_MEMORY_CHECK_OFF:
      read.memory_check = MemoryCheck::kOff;
      break;
    case CAISSON_MEMORY_CHECK_FULL:
      read.memory_check = MemoryCheck::kFull;
      break;
    default:
      return unsupported("memory_check " + std::to_string(given.memory_check) +
                         " is none that this library knows");
  }
  return read;
}

Result<RestoreOptions> read_options(const caisson_restore_options* options) {
  caisson_restore_options given;
  CAISSON_RETURN_IF_ERROR(read_one(options, given, "restore options"));
  RestoreOptions read;
  if (given.workers > 0) read.workers = given.workers;
  return read;
}

Status write_report(const SaveReport& report, caisson_save_report* fields) {
  if (fields == nullptr) return invalid_argument("fields is null: where to put the report?");
  const uint32_t bytes = fields->struct_size;
  if (bytes < kFirstBytes<caisson_save_report> || bytes > kStructBytesMax) {
    return invalid_argument("the report's fields have struct_size " + std::to_string(bytes) +
                            ": set it to sizeof(caisson_save_report)");
  }
  const caisson_save_report made{.struct_size = bytes,
                                 .reserved = 0,
                                 .name = report.name.c_str(),
                                 .warning = report.warning.c_str(),
                                 .tensors = report.tensors,
                                 .tiles = report.tiles,
                                 .raw_bytes = report.raw_bytes,
                                 .deduplicated_bytes = report.deduplicated_bytes,
                                 .stored_bytes = report.stored_bytes,
                                 .stall_seconds = report.stall_seconds,
                                 .seconds = report.seconds};
  std::memcpy(fields, &made, std::min<size_t>(bytes, sizeof made));
  return ok_status();
}

}  // namespace caisson::c

// See import.h.
#include "client/import.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "engine/tiling.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTensorSuffix = ".safetensors";
constexpr std::string_view kIndexSuffix = ".safetensors.index.json";

// Regular files below `root`, sorted, relative to it. Symbolic links to files are followed (model
// caches are full of them), links to directories are not.
Result<std::vector<std::string>> list_files(const std::string& root) {
  std::vector<std::string> files;
  std::error_code error;
  fs::recursive_directory_iterator it(root, error);
  const fs::recursive_directory_iterator end;
  while (!error && it != end) {
    std::error_code kind;
    if (it->is_regular_file(kind)) files.push_back(fs::relative(it->path(), root, error).string());
    if (!error) it.increment(error);
  }
  if (error) return errno_status(error.value(), "list " + root);
  std::sort(files.begin(), files.end());
  return files;
}

// Bytes of the first `rows` rows: exact, since their bits are whole bytes.
uint64_t bytes_of_rows(const safetensors::Entry& entry, uint64_t rows) {
  const uint64_t bytes = entry.end - entry.begin;
  const uint64_t extent = entry.spec.shape.rank == 0 ? 1 : entry.spec.shape.dims[0];
  return bytes / extent * rows + bytes % extent * rows / extent;
}

}  // namespace

Result<ImportPlan> ImportPlan::make(std::span<const std::string> sources) {
  ImportPlan plan;
  for (const std::string& source : sources) {
    std::error_code error;
    const fs::file_status status = fs::status(source, error);
    if (status.type() == fs::file_type::not_found) {
      return not_found(source + ": no such file or directory");
    }
    if (fs::is_directory(status)) {
      CAISSON_RETURN_IF_ERROR(plan.add_directory(source));
    } else {
      CAISSON_RETURN_IF_ERROR(plan.add(source, fs::path(source).filename().string()));
    }
  }
  if (plan.sources_.empty()) {
    return invalid_argument("nothing to import: there are no files in " + sources.front() +
                            (sources.size() > 1 ? " and the others" : ""));
  }
  CAISSON_RETURN_IF_ERROR(plan.check_names());
  for (const ImportSource& source : plan.sources_) {
    if (source.relative.ends_with(kIndexSuffix)) CAISSON_RETURN_IF_ERROR(plan.check_index(source));
  }
  return plan;
}

Status ImportPlan::add_directory(const std::string& path) {
  CAISSON_ASSIGN_OR_RETURN(const std::vector<std::string> files, list_files(path));
  for (const std::string& file : files) {
    CAISSON_RETURN_IF_ERROR(add((fs::path(path) / file).string(), file));
  }
  return ok_status();
}

Status ImportPlan::add(const std::string& path, const std::string& relative) {
  CAISSON_ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  ImportSource source{.path = path,
                      .relative = relative,
                      .file = std::move(file),
                      .is_safetensors = relative.ends_with(kTensorSuffix),
                      .header_bytes = 0,
                      .header = {}};
  if (source.is_safetensors) {
    const Bytes bytes = source.file.bytes();
    const Bytes prefix = bytes.first(std::min<size_t>(bytes.size(), safetensors::kPrefixBytes));
    CAISSON_ASSIGN_OR_RETURN(source.header_bytes,
                             safetensors::header_bytes(prefix, bytes.size(), path));
    const Bytes json = bytes.subspan(safetensors::kPrefixBytes, source.header_bytes);
    CAISSON_ASSIGN_OR_RETURN(source.header, safetensors::parse_header(json, bytes.size(), path));
    tensors_ += source.header.tensors.size();
  }
  raw_bytes_ += source.file.bytes().size();
  sources_.push_back(std::move(source));
  return ok_status();
}

Status ImportPlan::check_names() const {
  std::unordered_map<std::string_view, const ImportSource*> tensors;
  std::unordered_map<std::string_view, const ImportSource*> files;
  for (const ImportSource& source : sources_) {
    const auto [file, fresh] = files.emplace(source.relative, &source);
    if (!fresh) {
      return invalid_argument(
          fmt::format("{} and {}: both would be called \"{}\"; import the "
                      "directory that holds them",
                      file->second->path, source.path, source.relative));
    }
    for (const safetensors::Entry& entry : source.header.tensors) {
      const auto [tensor, first] = tensors.emplace(entry.spec.name, &source);
      if (!first) {
        return invalid_argument(
            fmt::format("tensor \"{}\" is both in {} and in {}; import them as "
                        "two checkpoints",
                        entry.spec.name, tensor->second->path, source.path));
      }
    }
  }
  return ok_status();
}

// {"metadata": {...}, "weight_map": {"<tensor>": "<file beside the index>", ...}}
Status ImportPlan::check_index(const ImportSource& index) const {
  const std::string_view text = as_text(index.file.bytes());
  const auto json = nlohmann::json::parse(text.begin(), text.end(), nullptr, false);
  const bool usable =
      json.is_object() && json.contains("weight_map") && json["weight_map"].is_object();
  if (!usable) return corruption(index.path + ": not an index with a \"weight_map\" object");

  std::map<std::string, const ImportSource*> by_file;
  std::unordered_map<std::string_view, std::string_view> file_of;
  for (const ImportSource& source : sources_) {
    by_file.emplace(source.relative, &source);
    for (const safetensors::Entry& entry : source.header.tensors) {
      file_of.emplace(entry.spec.name, source.relative);
    }
  }
  const fs::path folder = fs::path(index.relative).parent_path();
  for (const auto& [tensor, value] : json["weight_map"].items()) {
    if (!value.is_string()) {
      return corruption(fmt::format("{}: weight_map[\"{}\"] is no file name", index.path, tensor));
    }
    const std::string file = (folder / value.get<std::string>()).lexically_normal().string();
    if (!by_file.contains(file)) {
      return not_found(fmt::format(
          "{}: it lists {}, which is not there; the download is incomplete", index.path, file));
    }
    const auto found = file_of.find(tensor);
    if (found == file_of.end() || found->second != file) {
      return corruption(fmt::format("{}: it says that {} holds tensor \"{}\", which it does not",
                                    index.path, file, tensor));
    }
  }
  return ok_status();
}

std::vector<RowRange> divide_rows(const TensorSpec& spec, uint64_t bytes,
                                  std::vector<uint64_t>& loads) {
  const uint64_t ranks = loads.size();
  std::vector<RowRange> rows(ranks);
  const uint64_t extent = spec.shape.rank == 0 ? 1 : spec.shape.dims[0];
  const uint64_t edge =  // rows of one tile
      spec.shape.rank == 0 ? 1 : choose_tile(spec.shape, spec.dtype).dims[0];
  const uint64_t tile_rows = (extent + edge - 1) / edge;
  if (tile_rows < ranks || ranks == 1) {
    const auto least =
        static_cast<size_t>(std::min_element(loads.begin(), loads.end()) - loads.begin());
    rows[least] = {.begin = 0, .end = extent};
    loads[least] += bytes;
    return rows;
  }
  for (uint64_t rank = 0; rank < ranks; ++rank) {
    rows[rank] = {.begin = tile_rows * rank / ranks * edge,
                  .end = std::min(extent, tile_rows * (rank + 1) / ranks * edge)};
    loads[rank] += bytes / extent * (rows[rank].end - rows[rank].begin);
  }
  return rows;
}

namespace {

// What of `entry` the rank that holds `rows` saves; nothing when that is nothing.
std::optional<TensorShard> shard_of(const safetensors::Entry& entry, const std::byte* data,
                                    RowRange rows) {
  TensorShard shard{.tensor = entry.spec,
                    .box = Box::whole(entry.spec.shape),
                    .data = data + entry.begin,
                    .strides_bytes = {},
                    .replica = {}};
  const Shape& shape = entry.spec.shape;
  if (shape.rank == 0) return rows.end > 0 ? std::optional(std::move(shard)) : std::nullopt;
  if (rows.begin >= rows.end) return std::nullopt;
  // Rows of a sub-byte type may share a byte, tile rows never do.
  shard.data += bytes_of_rows(entry, rows.begin);
  shard.box.offset[0] = rows.begin;
  shard.box.extent[0] = rows.end - rows.begin;
  return shard;
}

}  // namespace

Status ImportPlan::check_unchanged() const {
  for (const ImportSource& source : sources_) {
    CAISSON_RETURN_IF_ERROR(source.file.check_unchanged());
  }
  return ok_status();
}

ImportSlice ImportPlan::slice(uint32_t rank, uint32_t ranks) const {
  ImportSlice slice;
  const auto add_blob = [&slice, rank](std::string name, Bytes bytes) {
    if (rank != 0) return;
    slice.blobs.push_back({.name = std::move(name), .bytes = bytes});
    slice.raw_bytes += bytes.size();
  };
  std::vector<uint64_t> loads(ranks, 0);
  for (const ImportSource& source : sources_) {
    const Bytes bytes = source.file.bytes();
    if (!source.is_safetensors) {
      add_blob(std::string(kFileBlobPrefix) + source.relative, bytes);
      continue;
    }
    add_blob(fmt::format("{}{}{}", kHeaderBlobPrefix, source.relative, kHeaderBlobSuffix),
             bytes.subspan(safetensors::kPrefixBytes, source.header_bytes));
    const std::byte* data = bytes.data() + safetensors::kPrefixBytes + source.header_bytes;
    for (const safetensors::Entry& entry : source.header.tensors) {
      const uint64_t length = entry.end - entry.begin;
      if (length == 0) {  // no rows to divide
        if (rank != 0) continue;
        slice.tensors.push_back({.tensor = entry.spec,
                                 .box = Box::whole(entry.spec.shape),
                                 .data = data + entry.begin,
                                 .strides_bytes = {},
                                 .replica = {}});
        continue;
      }
      const RowRange rows = divide_rows(entry.spec, length, loads)[rank];
      if (auto shard = shard_of(entry, data, rows)) {
        slice.raw_bytes += bytes_of_rows(entry, rows.end) - bytes_of_rows(entry, rows.begin);
        slice.tensors.push_back(std::move(*shard));
      }
    }
  }
  return slice;
}

}  // namespace caisson

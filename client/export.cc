// See export.h.
#include "client/export.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>

#include "client/file_writer.h"
#include "client/import.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;
using safetensors::Entry;
using safetensors::Metadata;

// What the checkpoint holds, split by kind.
struct Contents {
  std::vector<TensorSpec> tensors;  // that match the glob
  uint64_t tensors_in_all = 0;
  std::vector<std::string> headers;  // <file> of every imported safetensors file
  std::vector<std::string> files;    // <file> of every other imported file
};

Result<Contents> read_contents(Store& store, const std::string& name, const std::string& glob) {
  Contents contents;
  CAISSON_ASSIGN_OR_RETURN(const std::vector<TensorInfo> selected, store.tensors(name, glob));
  for (const TensorInfo& info : selected) {
    if (!info.blob) contents.tensors.push_back(info.spec);
  }
  CAISSON_ASSIGN_OR_RETURN(const std::vector<TensorInfo> all, store.tensors(name));
  for (const TensorInfo& info : all) {
    if (!info.blob) {
      ++contents.tensors_in_all;
      continue;
    }
    std::string_view blob = info.spec.name;
    if (blob.starts_with(kHeaderBlobPrefix) && blob.ends_with(kHeaderBlobSuffix)) {
      blob.remove_prefix(kHeaderBlobPrefix.size());
      blob.remove_suffix(std::min(blob.size(), kHeaderBlobSuffix.size()));
      contents.headers.emplace_back(blob);
    } else if (blob.starts_with(kFileBlobPrefix)) {
      contents.files.emplace_back(blob.substr(kFileBlobPrefix.size()));
    }
  }
  if (contents.tensors.empty() && glob != "*") {
    return not_found(
        fmt::format("{}: no tensor matches \"{}\"; caisson show lists them", name, glob));
  }
  return contents;
}

uint64_t bytes_of(const TensorSpec& spec) {
  return packed_bytes(element_count(spec.shape).value(), spec.dtype).value();
}

// A file that is to be written: header first, then pieces.
struct PlannedFile {
  std::string path;
  std::string header;  // with its length prefix
  std::vector<FilePiece> pieces;
  uint64_t bytes = 0;
  uint64_t tensors = 0;
  bool original_header = false;
};

void place_entries(std::span<const Entry> entries, PlannedFile* file) {
  for (const Entry& entry : entries) {
    file->pieces.push_back({.tensor = entry.spec.name,
                            .dtype = entry.spec.dtype,
                            .box = Box::whole(entry.spec.shape),
                            .offset = file->header.size() + entry.begin});
  }
  file->tensors = entries.size();
  file->bytes = file->header.size() + (entries.empty() ? 0 : entries.back().end);
}

Result<PlannedFile> plan_file(std::string path, std::vector<TensorSpec> specs,
                              const Metadata& metadata) {
  PlannedFile file;
  file.path = std::move(path);
  CAISSON_RETURN_IF_ERROR(safetensors::sort_as_library(specs));
  std::vector<Entry> entries;
  CAISSON_ASSIGN_OR_RETURN(file.header, safetensors::encode_header(specs, metadata, &entries));
  place_entries(entries, &file);
  return file;
}

// The file as it was imported, or nothing when the checkpoint's tensors are not those of its
// header.
Result<std::optional<PlannedFile>> plan_original(
    Store& store, const std::string& name, const std::string& relative, std::string path,
    const std::map<std::string_view, const TensorSpec*>& tensors) {
  const std::string blob = fmt::format("{}{}{}", kHeaderBlobPrefix, relative, kHeaderBlobSuffix);
  CAISSON_ASSIGN_OR_RETURN(const std::vector<std::byte> json, store.read_blob(name, blob));
  CAISSON_ASSIGN_OR_RETURN(const safetensors::Header header,
                           safetensors::parse_header(json, safetensors::kFileBytesUnknown, blob));
  for (const Entry& entry : header.tensors) {
    const auto found = tensors.find(entry.spec.name);
    if (found == tensors.end() || *found->second != entry.spec) return std::optional<PlannedFile>();
  }
  PlannedFile file;
  file.path = std::move(path);
  file.header.resize(safetensors::kPrefixBytes);
  store_le(reinterpret_cast<std::byte*>(file.header.data()), uint64_t{json.size()});
  file.header += as_text(json);
  file.original_header = true;
  place_entries(header.tensors, &file);
  return std::optional(std::move(file));
}

// `specs` over files of at most `bytes_max` bytes of data each, in the order of names.
Result<std::vector<PlannedFile>> plan_shards(const std::string& directory, const std::string& stem,
                                             std::vector<TensorSpec> specs,
                                             const Metadata& metadata, uint64_t bytes_max) {
  std::sort(specs.begin(), specs.end(),
            [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; });
  std::vector<std::vector<TensorSpec>> groups(1);
  uint64_t filled = 0;
  for (TensorSpec& spec : specs) {
    const uint64_t bytes = bytes_of(spec);
    if (filled > 0 && filled + bytes > bytes_max) {
      groups.emplace_back();
      filled = 0;
    }
    filled += bytes;
    groups.back().push_back(std::move(spec));
  }
  std::vector<PlannedFile> files;
  for (size_t i = 0; i < groups.size(); ++i) {
    std::string path =
        fmt::format("{}/{}-{:05}-of-{:05}.safetensors", directory, stem, i + 1, groups.size());
    CAISSON_ASSIGN_OR_RETURN(PlannedFile file,
                             plan_file(std::move(path), std::move(groups[i]), metadata));
    files.push_back(std::move(file));
  }
  return files;
}

// The index that Hugging Face loaders read beside sharded files.
std::string encode_index(std::span<const PlannedFile> files) {
  std::map<std::string, std::string> places;
  uint64_t total = 0;
  for (const PlannedFile& file : files) {
    total += file.bytes - file.header.size();
    for (const FilePiece& piece : file.pieces) {
      places.emplace(piece.tensor, fs::path(file.path).filename().string());
    }
  }
  std::string json = fmt::format("{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n", total);
  json += "  \"weight_map\": {";
  const char* separator = "\n";
  for (const auto& [tensor, file] : places) {
    json += separator;
    json += "    ";
    safetensors::append_json_string(json, tensor);
    json += ": ";
    safetensors::append_json_string(json, file);
    separator = ",\n";
  }
  return json + "\n  }\n}\n";
}

// Everything that an export writes.
struct ExportPlan {
  std::vector<PlannedFile> tensor_files;
  std::vector<std::pair<std::string, std::string>> blobs;  // path, blob name
  std::string index_path;                                  // empty: no index
};

class ExportPlanner {
 public:
  ExportPlanner(Store& store, const std::string& name, const ExportOptions& options)
      : store_(store), name_(name), options_(options) {}

  Result<ExportPlan> plan(const std::string& destination) {
    CAISSON_ASSIGN_OR_RETURN(contents_, read_contents(store_, name_, options_.glob));
    for (const TensorSpec& spec : contents_.tensors) by_name_.emplace(spec.name, &spec);
    CAISSON_RETURN_IF_ERROR(read_metadata());
    if (!destination.ends_with(".safetensors")) return plan_directory(destination);
    const fs::path place(destination);
    const std::string parent = place.has_parent_path() ? place.parent_path().string() : ".";
    if (options_.shard_bytes_max > 0) return plan_sharded(parent, place.stem().string());
    ExportPlan plan;
    if (contents_.headers.size() == 1) {
      CAISSON_ASSIGN_OR_RETURN(
          auto original, plan_original(store_, name_, contents_.headers[0], destination, by_name_));
      if (original && original->tensors == contents_.tensors.size()) {
        plan.tensor_files.push_back(std::move(*original));
        return plan;
      }
    }
    CAISSON_RETURN_IF_ERROR(add_file(destination, contents_.tensors, &plan));
    return plan;
  }

 private:
  bool everything() const { return contents_.tensors.size() == contents_.tensors_in_all; }

  // Of the imported files, so that a loader finds what it looks for ("format"); else what a loader
  // of PyTorch weights expects.
  Status read_metadata() {
    metadata_ = {{"format", "pt"}};
    if (contents_.headers.empty()) return ok_status();
    const std::string blob =
        fmt::format("{}{}{}", kHeaderBlobPrefix, contents_.headers[0], kHeaderBlobSuffix);
    CAISSON_ASSIGN_OR_RETURN(const std::vector<std::byte> json, store_.read_blob(name_, blob));
    CAISSON_ASSIGN_OR_RETURN(safetensors::Header header,
                             safetensors::parse_header(json, safetensors::kFileBytesUnknown, blob));
    metadata_ = std::move(header.metadata);
    return ok_status();
  }

  Status add_file(const std::string& path, std::vector<TensorSpec> specs, ExportPlan* plan) {
    CAISSON_ASSIGN_OR_RETURN(PlannedFile file, plan_file(path, std::move(specs), metadata_));
    plan->tensor_files.push_back(std::move(file));
    return ok_status();
  }

  Result<ExportPlan> plan_sharded(const std::string& directory, const std::string& stem) {
    ExportPlan plan;
    CAISSON_ASSIGN_OR_RETURN(plan.tensor_files, plan_shards(directory, stem, contents_.tensors,
                                                            metadata_, options_.shard_bytes_max));
    plan.index_path = fmt::format("{}/{}.safetensors.index.json", directory, stem);
    return plan;
  }

  Result<ExportPlan> plan_directory(const std::string& directory) {
    ExportPlan plan;
    if (options_.shard_bytes_max > 0) {
      CAISSON_ASSIGN_OR_RETURN(plan, plan_sharded(directory, "model"));
    } else if (everything() && !contents_.headers.empty()) {
      CAISSON_RETURN_IF_ERROR(plan_originals(directory, &plan));
    } else if (!contents_.tensors.empty()) {
      CAISSON_RETURN_IF_ERROR(add_file(directory + "/model.safetensors", contents_.tensors, &plan));
    }
    if (!everything()) return plan;
    for (const std::string& file : contents_.files) {
      // The old index describes the old files.
      if (!plan.index_path.empty() && file.ends_with(".safetensors.index.json")) continue;
      CAISSON_ASSIGN_OR_RETURN(std::string path, path_below(directory, file));
      plan.blobs.emplace_back(std::move(path), std::string(kFileBlobPrefix) + file);
    }
    return plan;
  }

  // The imported files again, and one more for tensors that none of them has.
  Status plan_originals(const std::string& directory, ExportPlan* plan) {
    std::map<std::string_view, const TensorSpec*> left = by_name_;
    for (const std::string& file : contents_.headers) {
      CAISSON_ASSIGN_OR_RETURN(std::string path, path_below(directory, file));
      CAISSON_ASSIGN_OR_RETURN(auto original, plan_original(store_, name_, file, path, by_name_));
      if (!original) continue;  // its tensors changed: they come with the rest
      for (const FilePiece& piece : original->pieces) left.erase(piece.tensor);
      plan->tensor_files.push_back(std::move(*original));
    }
    if (left.empty()) return ok_status();
    std::vector<TensorSpec> rest;
    rest.reserve(left.size());
    for (const auto& [tensor, spec] : left) rest.push_back(*spec);
    return add_file(directory + "/more.safetensors", std::move(rest), plan);
  }

  Store& store_;
  const std::string& name_;
  const ExportOptions& options_;
  Contents contents_;
  std::map<std::string_view, const TensorSpec*> by_name_;  // into contents_
  Metadata metadata_;
};

Result<ExportedFile> write_planned(Store& store, const std::string& name, const PlannedFile& plan,
                                   bool overwrite, FileProgress& progress) {
  CAISSON_RETURN_IF_ERROR(make_directories(fs::path(plan.path).parent_path().string()));
  CAISSON_ASSIGN_OR_RETURN(NewFile file, NewFile::create(plan.path, plan.bytes, overwrite));
  CAISSON_RETURN_IF_ERROR(file.write(0, as_bytes(plan.header)));
  CAISSON_RETURN_IF_ERROR(write_pieces(store, name, plan.pieces, file, progress));
  CAISSON_RETURN_IF_ERROR(file.publish());
  return ExportedFile{.path = plan.path,
                      .bytes = plan.bytes,
                      .tensors = plan.tensors,
                      .original_header = plan.original_header};
}

Result<ExportedFile> write_bytes(const std::string& path, Bytes bytes, bool overwrite) {
  CAISSON_RETURN_IF_ERROR(make_directories(fs::path(path).parent_path().string()));
  CAISSON_ASSIGN_OR_RETURN(NewFile file, NewFile::create(path, bytes.size(), overwrite));
  CAISSON_RETURN_IF_ERROR(file.write(0, bytes));
  CAISSON_RETURN_IF_ERROR(file.publish());
  return ExportedFile{.path = path, .bytes = bytes.size()};
}

FileProgress progress_of(const ExportOptions& options, std::span<const PlannedFile> files) {
  FileProgress progress{.report = options.progress, .stop = options.stop};
  for (const PlannedFile& file : files) progress.total += file.bytes - file.header.size();
  return progress;
}

}  // namespace

Result<std::string> path_below(const std::string& root, const std::string& relative) {
  const fs::path path(relative);
  bool inside = !relative.empty() && path.is_relative() && relative.find('\0') == std::string::npos;
  for (const fs::path& step : path) inside = inside && step != ".." && step != ".";
  if (!inside || !path.has_filename()) {
    return corruption(
        fmt::format("the checkpoint has a file called \"{}\", which would lie outside "
                    "of {}; nothing was written there",
                    relative, root));
  }
  return (fs::path(root) / path).string();
}

Result<std::string> pin(Store& store, const std::string& name) {
  CAISSON_ASSIGN_OR_RETURN(const CheckpointInfo info, store.info(name));
  return fmt::format("{}@{}", info.name, info.commit_seq);
}

Result<std::vector<ExportedFile>> export_checkpoint(Store& store, const std::string& given,
                                                    const std::string& destination,
                                                    const ExportOptions& options) {
  CAISSON_ASSIGN_OR_RETURN(const std::string name, pin(store, given));
  ExportPlanner planner(store, name, options);
  CAISSON_ASSIGN_OR_RETURN(const ExportPlan plan, planner.plan(destination));
  FileProgress progress = progress_of(options, plan.tensor_files);
  std::vector<ExportedFile> written;
  for (const PlannedFile& file : plan.tensor_files) {
    CAISSON_ASSIGN_OR_RETURN(ExportedFile done,
                             write_planned(store, name, file, options.overwrite, progress));
    written.push_back(std::move(done));
  }
  for (const auto& [path, blob] : plan.blobs) {
    CAISSON_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, store.read_blob(name, blob));
    CAISSON_ASSIGN_OR_RETURN(ExportedFile done, write_bytes(path, bytes, options.overwrite));
    written.push_back(std::move(done));
  }
  if (!plan.index_path.empty()) {  // last: who finds it finds all that it lists
    const std::string json = encode_index(plan.tensor_files);
    CAISSON_ASSIGN_OR_RETURN(ExportedFile done,
                             write_bytes(plan.index_path, as_bytes(json), options.overwrite));
    written.push_back(std::move(done));
  }
  return written;
}

}  // namespace caisson

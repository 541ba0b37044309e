// One slice of a checkpoint into a file, and .npy files. See export.h.
#include <fmt/format.h>

#include <map>

#include "client/export.h"
#include "client/file_writer.h"
#include "engine/tiling.h"

namespace caisson {
namespace {

// A selected tensor and the box of it that this slice has.
struct SlicedTensor {
  TensorSpec spec;
  Box box;
};

Shape shape_of(const Box& box) {
  return Shape::of({box.extent.data(), static_cast<size_t>(box.rank)});
}

Result<std::vector<SlicedTensor>> select(Store& store, const std::string& name,
                                         const std::string& glob, const SliceOptions& slice) {
  CAISSON_ASSIGN_OR_RETURN(const std::vector<TensorInfo> infos, store.tensors(name, glob));
  std::vector<SlicedTensor> selected;
  uint64_t position = 0;
  for (const TensorInfo& info : infos) {
    if (info.blob) continue;
    if (auto box = slice_box(info.spec, position++, slice)) selected.push_back({info.spec, *box});
  }
  if (position == 0) {
    return not_found(
        fmt::format("{}: no tensor matches \"{}\"; caisson show lists them", name, glob));
  }
  return selected;
}

// numpy's name of a little-endian type; empty when it has none.
std::string npy_dtype(DType dtype) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 14> kTypes = {{
      {"BOOL", "|b1"},
      {"U8", "|u1"},
      {"I8", "|i1"},
      {"U16", "<u2"},
      {"I16", "<i2"},
      {"U32", "<u4"},
      {"I32", "<i4"},
      {"U64", "<u8"},
      {"I64", "<i8"},
      {"F16", "<f2"},
      {"F32", "<f4"},
      {"F64", "<f8"},
      {"C64", "<c8"},
      {"C128", "<c16"},
  }};
  const std::string name = dtype_name(dtype);
  for (const auto& [ours, numpys] : kTypes) {
    if (ours == name) return std::string(numpys);
  }
  return {};
}

// numpy's format 1.0: magic, version, header length, a Python dict, padded so that data is aligned
// to 64 bytes.
std::string npy_header(std::string_view dtype, const Shape& shape) {
  std::string dims;
  for (const uint64_t extent : shape.extents()) dims += fmt::format("{},", extent);
  std::string dict =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({}), }}", dtype, dims);
  constexpr size_t kFixedBytes = 10;
  dict.resize(align_up(kFixedBytes + dict.size() + 1, 64) - kFixedBytes - 1, ' ');
  dict += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dict.size() & 0xff);
  header += static_cast<char>(dict.size() >> 8);
  return header + dict;
}

// A tensor's name as one file name: everything but [A-Za-z0-9._-] as %XX.
std::string file_name_of(std::string_view tensor) {
  std::string out;
  for (const char c : tensor) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       c == '_' || c == '-' || (c == '.' && !out.empty());
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

}  // namespace

std::optional<Box> slice_box(const TensorSpec& spec, uint64_t position, const SliceOptions& slice) {
  Box box = Box::whole(spec.shape);
  if (slice.dim < spec.shape.rank && spec.shape.dims[slice.dim] >= slice.count) {
    const uint64_t extent = spec.shape.dims[slice.dim];
    const uint64_t each = extent / slice.count;
    const uint64_t more = extent % slice.count;  // the first slices have one row more
    box.offset[slice.dim] = each * slice.index + std::min<uint64_t>(slice.index, more);
    box.extent[slice.dim] = each + (slice.index < more ? 1 : 0);
    if (check_box(spec, box).ok()) return box;  // a cut through a byte is refused
    box = Box::whole(spec.shape);
  }
  return position % slice.count == slice.index ? std::optional(box) : std::nullopt;
}

Result<ExportedFile> export_slice(Store& store, const std::string& given, const std::string& path,
                                  const SliceOptions& slice, const ExportOptions& options) {
  CAISSON_ASSIGN_OR_RETURN(const std::string name, pin(store, given));
  CAISSON_ASSIGN_OR_RETURN(const std::vector<SlicedTensor> selected,
                           select(store, name, options.glob, slice));
  std::vector<TensorSpec> specs;
  std::map<std::string_view, const SlicedTensor*> by_name;
  safetensors::Metadata metadata = {
      {"caisson.checkpoint", name.substr(0, name.rfind('@'))},
      {"caisson.slice", fmt::format("{}/{}", slice.index, slice.count)}};
  for (const SlicedTensor& tensor : selected) {
    by_name.emplace(tensor.spec.name, &tensor);
    specs.push_back({tensor.spec.name, tensor.spec.dtype, shape_of(tensor.box)});
    if (tensor.box == Box::whole(tensor.spec.shape)) continue;
    metadata.emplace_back(
        "caisson.box." + tensor.spec.name,
        fmt::format("{} of {}", to_string(tensor.box), to_string(tensor.spec.shape)));
  }
  CAISSON_RETURN_IF_ERROR(safetensors::sort_as_library(specs));
  std::vector<safetensors::Entry> entries;
  CAISSON_ASSIGN_OR_RETURN(const std::string header,
                           safetensors::encode_header(specs, metadata, &entries));
  FileProgress progress{.report = options.progress, .stop = options.stop};
  std::vector<FilePiece> pieces;
  for (const safetensors::Entry& entry : entries) {
    const SlicedTensor& tensor = *by_name.at(entry.spec.name);
    pieces.push_back(
        {tensor.spec.name, tensor.spec.dtype, tensor.box, header.size() + entry.begin});
    progress.total = entry.end;
  }
  const uint64_t bytes = header.size() + progress.total;
  CAISSON_ASSIGN_OR_RETURN(NewFile file, NewFile::create(path, bytes, options.overwrite));
  CAISSON_RETURN_IF_ERROR(file.write(0, as_bytes(header)));
  CAISSON_RETURN_IF_ERROR(write_pieces(store, name, pieces, file, progress));
  CAISSON_RETURN_IF_ERROR(file.publish());
  return ExportedFile{.path = path, .bytes = bytes, .tensors = entries.size()};
}

Result<std::vector<ExportedFile>> export_npy(Store& store, const std::string& given,
                                             const std::string& directory,
                                             const SliceOptions& slice,
                                             const ExportOptions& options) {
  CAISSON_ASSIGN_OR_RETURN(const std::string name, pin(store, given));
  CAISSON_ASSIGN_OR_RETURN(const std::vector<SlicedTensor> selected,
                           select(store, name, options.glob, slice));
  FileProgress progress{.report = options.progress, .stop = options.stop};
  for (const SlicedTensor& tensor : selected) {
    if (npy_dtype(tensor.spec.dtype).empty()) {
      return unsupported(
          fmt::format("tensor \"{}\": numpy has no dtype {}; use --format safetensors",
                      tensor.spec.name, dtype_name(tensor.spec.dtype)));
    }
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes,
                             packed_bytes(tensor.box.elements(), tensor.spec.dtype));
    progress.total += bytes;
  }
  std::vector<ExportedFile> written;
  for (const SlicedTensor& tensor : selected) {
    const std::string header = npy_header(npy_dtype(tensor.spec.dtype), shape_of(tensor.box));
    CAISSON_ASSIGN_OR_RETURN(const uint64_t data,
                             packed_bytes(tensor.box.elements(), tensor.spec.dtype));
    const std::string path = fmt::format("{}/{}.npy", directory, file_name_of(tensor.spec.name));
    CAISSON_ASSIGN_OR_RETURN(NewFile file,
                             NewFile::create(path, header.size() + data, options.overwrite));
    CAISSON_RETURN_IF_ERROR(file.write(0, as_bytes(header)));
    const FilePiece piece{tensor.spec.name, tensor.spec.dtype, tensor.box, header.size()};
    CAISSON_RETURN_IF_ERROR(write_pieces(store, name, {&piece, 1}, file, progress));
    CAISSON_RETURN_IF_ERROR(file.publish());
    written.push_back({.path = path, .bytes = header.size() + data, .tensors = 1});
  }
  return written;
}

}  // namespace caisson

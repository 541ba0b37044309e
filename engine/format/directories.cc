#include "engine/format/directories.h"

#include "engine/format/record.h"
#include "io/base/check.h"

namespace caisson::format {

namespace {

constexpr std::string_view kListMagic = "CSN_DIRS";
constexpr std::string_view kMarkerMagic = "CSN_DIRM";

}  // namespace

ByteVector encode_directories(const Uuid& store, const std::vector<std::string>& paths) {
  CAISSON_CHECK(!paths.empty() && paths.size() < kDirectoriesMax);
  ByteWriter out;
  out.put_varint(paths.size());
  for (const std::string& path : paths) out.put_string(path);
  return encode_envelope(kListMagic, store, out.bytes());
}

Result<std::vector<std::string>> decode_directories(const Uuid& store, Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope,
                           decode_envelope(kListMagic, bytes, kDirectoriesKey));
  ByteReader in(envelope.payload);
  std::vector<std::string> paths;
  const uint64_t count = in.get_count(2);
  for (uint64_t i = 0; i < count && in.ok(); ++i) {
    paths.emplace_back(in.get_string(kDirectoryPathBytesMax));
    if (!paths.back().starts_with('/')) in.fail();
  }
  if (!in.ok() || in.remaining() != 0 || paths.empty() || paths.size() >= kDirectoriesMax ||
      envelope.salt != store) {
    return corrupt_at(kDirectoriesKey, kEnvelopeBytes, "the list of directories is malformed");
  }
  return paths;
}

ByteVector encode_directory_marker(const DirectoryMarker& marker) {
  ByteWriter out;
  out.put<uint32_t>(marker.number);
  out.put<uint32_t>(marker.count);
  return encode_envelope(kMarkerMagic, marker.store, out.bytes());
}

Result<DirectoryMarker> decode_directory_marker(Bytes bytes, std::string_view what) {
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope, decode_envelope(kMarkerMagic, bytes, what));
  ByteReader in(envelope.payload);
  DirectoryMarker marker{.store = envelope.salt};
  marker.number = in.get<uint32_t>();
  marker.count = in.get<uint32_t>();
  if (!in.ok() || in.remaining() != 0 || marker.count > kDirectoriesMax || marker.number == 0 ||
      marker.number >= marker.count) {
    return corrupt_at(what, kEnvelopeBytes, "the marker of a directory is malformed");
  }
  return marker;
}

uint32_t directory_of(std::string_view key, uint32_t count) {
  const auto object = object_ref_of(key);
  if (!object.ok() || object->kind != ObjectKind::kPack) return 0;
  const uint64_t first = load_le<uint32_t>(object->writer.bytes.data());
  return static_cast<uint32_t>((first + object->number) % count);
}

}  // namespace caisson::format

#include "engine/index_seal.h"

#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "engine/format/record.h"
#include "io/base/bytes.h"

namespace caisson {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kMagic = "CSNINDEX";
constexpr std::string_view kSealName = "SEAL";
constexpr uint64_t kSealBytesMax = 64u << 20;

// Text logs, the lock and RocksDB's identity are not read back.
bool is_read_back(const std::string& name) {
  return name.ends_with(".sst") || name.ends_with(".log") || name == "CURRENT" ||
         name.starts_with("MANIFEST-") || name.starts_with("OPTIONS-");
}

Result<Digest> digest_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return io_error(path + ": cannot be opened");
  std::vector<char> buffer(1 << 20);
  DigestStream digest;
  while (in) {
    in.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
    digest.add(as_bytes({buffer.data(), static_cast<size_t>(in.gcount())}));
  }
  if (in.bad()) return io_error(path + ": read failed");
  return digest.finish();
}

Result<std::map<std::string, uint64_t>> sizes_of(const std::string& directory) {
  std::map<std::string, uint64_t> sizes;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!is_read_back(name)) continue;
    std::error_code gone;
    const uint64_t bytes = it->file_size(gone);
    if (!gone) sizes.emplace(name, bytes);
  }
  if (error) return io_error(directory + ": " + error.message());
  return sizes;
}

Result<ByteVector> read_whole(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) return not_found(path + ": no seal");
  const auto bytes = static_cast<uint64_t>(in.tellg());
  if (bytes > kSealBytesMax) return corruption(path + ": longer than any seal");
  ByteVector content(bytes);
  in.seekg(0);
  in.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(bytes));
  if (!in) return io_error(path + ": read failed");
  return content;
}

Result<IndexSeal> decode(Bytes payload, const std::string& path) {
  ByteReader in(payload);
  IndexSeal seal;
  const uint64_t files = in.get_count(1 + 8 + 16);
  for (uint64_t i = 0; i < files; ++i) {
    std::string name(in.get_string(255));
    SealedFile file;
    file.bytes = in.get<uint64_t>();
    const Bytes digest = in.get_bytes(file.digest.bytes.size());
    if (!in.ok()) break;
    std::copy(digest.begin(), digest.end(), file.digest.bytes.begin());
    seal.emplace(std::move(name), file);
  }
  if (!in.ok() || in.remaining() != 0) return corruption(path + ": malformed seal");
  return seal;
}

std::string path_in(const std::string& directory, const std::string& name) {
  return directory + "/" + name;
}

Status compare(const std::string& directory, const IndexSeal& seal) {
  CAISSON_ASSIGN_OR_RETURN(const auto sizes, sizes_of(directory));
  uint64_t total = 0;
  for (const auto& [name, bytes] : sizes) {
    const auto found = seal.find(name);
    if (found == seal.end()) return corruption(path_in(directory, name) + ": not in the seal");
    if (found->second.bytes != bytes)
      return corruption(path_in(directory, name) + ": wrong length");
    total += bytes;
  }
  for (const auto& [name, file] : seal) {
    if (!sizes.contains(name)) return corruption(path_in(directory, name) + ": missing");
    if (total > kSealDigestBytesMax && name.ends_with(".sst")) continue;
    CAISSON_ASSIGN_OR_RETURN(const Digest digest, digest_file(path_in(directory, name)));
    if (digest != file.digest) return corruption(path_in(directory, name) + ": wrong digest");
  }
  return {};
}

}  // namespace

Result<IndexSeal> take_seal(const std::string& directory, const IndexSeal& previous) {
  CAISSON_ASSIGN_OR_RETURN(const auto sizes, sizes_of(directory));
  IndexSeal seal;
  for (const auto& [name, bytes] : sizes) {
    const auto known = previous.find(name);
    if (name.ends_with(".sst") && known != previous.end() && known->second.bytes == bytes) {
      seal.emplace(name, known->second);
      continue;
    }
    CAISSON_ASSIGN_OR_RETURN(const Digest digest, digest_file(path_in(directory, name)));
    seal.emplace(name, SealedFile{bytes, digest});
  }
  return seal;
}

Status write_seal(const std::string& directory, const Uuid& store, const IndexSeal& seal) {
  ByteWriter out;
  out.put_varint(seal.size());
  for (const auto& [name, file] : seal) {
    out.put_string(name);
    out.put(file.bytes);
    out.put_bytes(file.digest.bytes);
  }
  const ByteVector content = format::encode_envelope(kMagic, store, out.bytes());
  const std::string path = path_in(directory, std::string(kSealName));
  const std::string temporary = path + ".tmp";
  {
    // Not synced: after a power cut the digests decide, and a rebuild is always safe.
    std::ofstream file(temporary, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(content.data()),
               static_cast<std::streamsize>(content.size()));
    file.flush();
    if (!file) return io_error(temporary + ": write failed");
  }
  std::error_code error;
  fs::rename(temporary, path, error);
  if (error) return io_error(path + ": " + error.message());
  return {};
}

Result<IndexSeal> break_seal(const std::string& directory, const Uuid& store) {
  const std::string path = path_in(directory, std::string(kSealName));
  CAISSON_ASSIGN_OR_RETURN(const ByteVector content, read_whole(path));
  std::error_code error;
  fs::remove(path, error);
  if (error) return io_error(path + ": " + error.message());
  CAISSON_ASSIGN_OR_RETURN(const format::Envelope envelope,
                           format::decode_envelope(kMagic, content, path));
  if (envelope.salt != store) return corruption(path + ": the index of another store");
  CAISSON_ASSIGN_OR_RETURN(IndexSeal seal, decode(envelope.payload, path));
  CAISSON_RETURN_IF_ERROR(compare(directory, seal));
  return seal;
}

}  // namespace caisson

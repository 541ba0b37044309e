#include "engine/index_rows.h"

namespace caisson {

uint32_t load_be32(const char* from) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(from[i]);
  return value;
}

std::string chunk_prefix(const Digest& id, uint32_t raw_bytes) {
  std::string key = "c";
  key.append(as_text(Bytes(id.bytes)));
  append_be(key, raw_bytes);
  return key;
}
std::string pack_key(uint32_t ordinal) {
  std::string key = "o";
  append_be(key, ordinal);
  return key;
}
std::string catalog_key(format::CommitSeq seq) {
  std::string key = "k";
  append_be(key, seq);
  return key;
}

std::string encode(const Totals& totals) {
  ByteWriter out;
  out.put(totals.schema);
  out.put(totals.places);
  out.put(totals.caught_up_to);
  return std::string(as_text(out.bytes()));
}

std::string encode(const CatalogEntry& entry) {
  ByteWriter out;
  out.put(entry.seq);
  format::put_ref(out, entry.root);
  out.put(entry.created_unix_ns);
  out.put(entry.tensors);
  out.put(entry.ranks);
  out.put(entry.tiles);
  out.put(entry.raw_bytes);
  out.put(entry.stored_bytes);
  out.put_string(entry.metadata_json);
  return std::string(as_text(out.bytes()));
}

std::optional<CatalogEntry> decode_catalog(Bytes bytes) {
  ByteReader in(bytes);
  CatalogEntry entry;
  entry.seq = in.get<uint64_t>();
  entry.root = format::get_ref(in);
  entry.created_unix_ns = in.get<int64_t>();
  entry.tensors = in.get<uint64_t>();
  entry.ranks = in.get<uint64_t>();
  entry.tiles = in.get<uint64_t>();
  entry.raw_bytes = in.get<uint64_t>();
  entry.stored_bytes = in.get<uint64_t>();
  entry.metadata_json = in.get_string(bytes.size());
  if (!in.ok() || in.remaining() != 0) return std::nullopt;
  return entry;
}

}  // namespace caisson

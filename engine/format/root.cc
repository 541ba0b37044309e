// The root and the store file; the store file and the root's head are envelopes. The head's content
// ("v" is a varint, a string is a varint length and its bytes):
//
//    37      the root itself
//    string  run
//    8       step
//    8       epoch
//    8       created, Unix time in ns
//    string  metadata, a JSON object
//    61      the directory, sealed: digest of the whole object
//    8       offset of its page index
//    8       tensors
//    8       raw bytes
//    8       stored bytes
//    8       packs
//    16      digest of what follows the head: the tables, pack_table.cc
//    v       parts, then of each:
//              61   the part, sealed: digest of the trailer block
//              4    rank
//              8    entries
//              8    offset of the inline data
//              8    bytes of the inline data
//              4    packs
//
// The store file's content:
//
//    0 16  uuid
//   16  1  hash kind
//   17  1  bytes of a content id
//   18  6  zero
//   24  8  created, Unix time in ns
#include "engine/format/root.h"

#include <utility>

#include "io/base/check.h"
#include "io/base/mutant.h"
#include "io/base/zeros.h"

namespace caisson::format {
namespace {

constexpr std::string_view kRootMagic = "CSN_ROOT";
constexpr std::string_view kStoreMagic = "CAISSON1";
constexpr size_t kStoreReserved = 6;
constexpr uint8_t kHashXxh3 = 1;
constexpr size_t kPartBytesMin = kSealedRefBytes + 4 + 3 * 8 + 4;
static_assert(sizeof(RootPart) <= 4 * kPartBytesMin);

// What is wrong with it; empty: nothing. The same for what is written and what is read.
std::string_view fault_of(const RootPart& part) {
  const uint64_t bytes = part.part.bytes;
  if (part.part.object.kind != ObjectKind::kPart) return "a part is of another kind";
  if (part.inline_offset > bytes || part.inline_bytes > bytes - part.inline_offset ||
      part.inline_bytes > kInlineSectionBytesMax || part.entries > bytes / kEntryBytes) {
    return "a part is too short for what it holds";
  }
  return part.packs > kPacksMax ? "a part refers to more packs than it can" : "";
}

std::string_view fault_of(const Root& root) {
  if (root.object.kind != ObjectKind::kRoot) return "the root is of another kind";
  if (!check_run_name(root.run).ok()) return "the run's name is not valid";
  if (!is_utf8(root.metadata_json)) return "the metadata is not UTF-8";
  if (root.directory.object.kind != ObjectKind::kDirectory ||
      root.directory_index_offset > root.directory.bytes) {
    return "the directory is of another kind, or its page index is not inside it";
  }
  for (const RootPart& part : root.parts) {
    const std::string_view fault = fault_of(part);
    if (!fault.empty()) return fault;
  }
  return {};
}

void put_part(ByteWriter& out, const RootPart& part) {
  put_sealed(out, part.part);
  out.put<uint32_t>(part.rank);
  out.put<uint64_t>(part.entries);
  out.put<uint64_t>(part.inline_offset);
  out.put<uint64_t>(part.inline_bytes);
  out.put<uint32_t>(part.packs);
}

RootPart get_part(ByteReader& in) {
  RootPart part;
  part.part = get_sealed(in);
  part.rank = in.get<uint32_t>();
  part.entries = in.get<uint64_t>();
  part.inline_offset = in.get<uint64_t>();
  part.inline_bytes = in.get<uint64_t>();
  part.packs = in.get<uint32_t>();
  return part;
}

// A reader that failed gives zeros and counts of zero, so nothing here needs to look.
Root get_root(ByteReader& in) {
  Root root;
  root.object = get_ref(in);
  root.run = in.get_string(kRunBytesMax);
  root.step = in.get<uint64_t>();
  root.epoch = in.get<uint64_t>();
  root.created_unix_ns = in.get<int64_t>();
  root.metadata_json = in.get_string(kRootBytesMax);
  root.directory = get_sealed(in);
  root.directory_index_offset = in.get<uint64_t>();
  root.tensors = in.get<uint64_t>();
  root.raw_bytes = in.get<uint64_t>();
  root.stored_bytes = in.get<uint64_t>();
  root.packs = in.get<uint64_t>();
  root.tables_digest = get_digest(in);
  const uint64_t parts = in.get_count(kPartBytesMin);
  root.parts.reserve(static_cast<size_t>(parts));
  for (uint64_t i = 0; i < parts && in.ok(); ++i) root.parts.push_back(get_part(in));
  return root;
}

// Whether the head says of the tables what the object's size says.
bool tables_fit(const Root& root, uint64_t root_bytes) {
  const uint64_t rest = root_bytes - root.tables_offset;
  const uint64_t part_packs = root.part_packs();
  return root.packs <= rest / kSealedRefBytes && root.packs <= UINT32_MAX &&
         part_packs <= rest / sizeof(uint32_t) &&
         packs_bytes(root.packs) + part_packs_bytes(part_packs) == rest;
}

}  // namespace

uint64_t Root::part_packs() const {
  uint64_t rows = 0;
  for (const RootPart& part : parts) rows += part.packs;
  return rows;
}

ByteVector encode_root_head(const Root& root) {
  CAISSON_CHECK(fault_of(root).empty());
  ByteWriter out;
  put_ref(out, root.object);
  out.put_string(root.run);
  out.put<uint64_t>(root.step);
  out.put<uint64_t>(root.epoch);
  out.put<int64_t>(root.created_unix_ns);
  out.put_string(root.metadata_json);
  put_sealed(out, root.directory);
  out.put<uint64_t>(root.directory_index_offset);
  out.put<uint64_t>(root.tensors);
  out.put<uint64_t>(root.raw_bytes);
  out.put<uint64_t>(root.stored_bytes);
  out.put<uint64_t>(root.packs);
  out.put_bytes(root.tables_digest.bytes);
  out.put_varint(root.parts.size());
  for (const RootPart& part : root.parts) put_part(out, part);
  return encode_envelope(kRootMagic, root.object.writer, out.bytes());
}

EncodedRoot encode_root(Root root, const PackTables& tables) {
  CAISSON_CHECK(root.part_packs() == tables.of_parts.size());
  root.packs = tables.packs.size();
  // The tables' salts depend on the head's length, which the digest in it does not change.
  root.tables_offset = encode_root_head(root).size();
  const ByteVector behind = encode_pack_tables(root.object.writer, root.tables_offset, tables);
  root.tables_digest = digest_of(behind);
  EncodedRoot encoded{.bytes = encode_root_head(root), .sealed = {}};
  encoded.sealed.object = root.object;
  encoded.sealed.digest = digest_of(encoded.bytes);
  encoded.bytes.insert(encoded.bytes.end(), behind.begin(), behind.end());
  encoded.sealed.bytes = encoded.bytes.size();
  return encoded;
}

Result<uint64_t> root_head_bytes(Bytes start, std::string_view what) {
  return envelope_bytes(kRootMagic, start, what);
}

Result<Root> decode_root(const ObjectRef& object, uint64_t root_bytes, Bytes head,
                         std::string_view what) {
  if (root_bytes > kRootBytesMax) return corrupt_at(what, 0, "larger than a root can be");
  if (head.size() > root_bytes) return corrupt_at(what, 0, "the head is longer than the root");
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope, decode_envelope(kRootMagic, head, what));
  ByteReader in(envelope.payload);
  Root root = get_root(in);
  root.tables_offset = head.size();
  if (!in.ok() || in.remaining() != 0) {
    return corrupt_at(what, kEnvelopeBytes, "the root is malformed");
  }
  if (root.object != object || envelope.salt != object.writer) {
    return corrupt_at(what, kEnvelopeBytes, "the root is of " + root.object.key());
  }
  const std::string_view fault = fault_of(root);
  if (!fault.empty()) return corrupt_at(what, kEnvelopeBytes, fault);
  if (!tables_fit(root, root_bytes)) {
    return corrupt_at(what, head.size(), "the tables of packs do not fill the rest of the root");
  }
  return root;
}

Result<PackTables> decode_pack_tables(const Root& root, Bytes tables, std::string_view what) {
  const Uuid& writer = root.object.writer;
  const uint64_t bytes = packs_bytes(root.packs);
  if (bytes > tables.size())
    return corrupt_at(what, root.tables_offset, "the tables are cut short");
  if (digest_of(tables) != root.tables_digest && !CAISSON_MUTANT(pack_tables_digest)) {
    return corrupt_at(what, root.tables_offset, "the tables of packs are not the head's");
  }
  PackTables decoded;
  CAISSON_ASSIGN_OR_RETURN(decoded.packs, decode_packs(writer, root.tables_offset,
                                                       tables.first(bytes), root.packs, what));
  CAISSON_ASSIGN_OR_RETURN(
      decoded.of_parts, decode_part_packs(writer, root.tables_offset + bytes, tables.subspan(bytes),
                                          root.part_packs(), root.packs, what));
  return decoded;
}

ByteVector encode_store_file(const StoreFile& store) {
  CAISSON_CHECK(store.hash == kHashXxh3 && store.id_bytes == sizeof(Digest));
  ByteWriter out;
  out.put_bytes(store.uuid.bytes);
  out.put<uint8_t>(store.hash);
  out.put<uint8_t>(store.id_bytes);
  out.put_zeros(kStoreReserved);
  out.put<int64_t>(store.created_unix_ns);
  return encode_envelope(kStoreMagic, store.uuid, out.bytes(), store.features);
}

Result<StoreFile> decode_store_file(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(
      const Envelope envelope,
      decode_envelope(kStoreMagic, bytes, kStoreKey, {.incompatible = kFeatureDirectories}));
  ByteReader in(envelope.payload);
  StoreFile store;
  store.features = envelope.features;
  store.uuid = get_uuid(in);
  store.hash = in.get<uint8_t>();
  store.id_bytes = in.get<uint8_t>();
  const Bytes reserved = in.get_bytes(kStoreReserved);
  store.created_unix_ns = in.get<int64_t>();
  if (!in.ok() || in.remaining() != 0 || store.uuid != envelope.salt || !is_zero(reserved)) {
    return corrupt_at(kStoreKey, kEnvelopeBytes, "the store file is malformed");
  }
  if (store.hash != kHashXxh3 || store.id_bytes != sizeof(Digest)) {
    return unsupported(std::string(kStoreKey) + ": the store names chunks by hash kind " +
                       std::to_string(store.hash) + " with " + std::to_string(store.id_bytes) +
                       " bytes; this build knows kind 1 (XXH3-128) with 16; use a newer caisson");
  }
  return store;
}

}  // namespace caisson::format

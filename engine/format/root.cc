// The root and the store file; both are envelopes. The root's content ("v" is a varint, a string is
// a varint length and its bytes):
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
//    v       packs, then 61 each: sealed, digest of the footer
//    v       parts, then of each:
//              61   the part, sealed: digest of the trailer block
//              4    rank
//              8    entries
//              8    offset of the inline data
//              8    bytes of the inline data
//              v    packs, then 4 each: index into the root's packs
//
// The store file's content:
//
//    0 16  uuid
//   16  1  hash kind
//   17  1  bytes of a content id
//   18  6  zero
//   24  8  created, Unix time in ns
#include "engine/format/root.h"

#include <algorithm>
#include <utility>

#include "io/base/check.h"

namespace caisson::format {
namespace {

constexpr std::string_view kRootMagic = "CSN_ROOT";
constexpr std::string_view kStoreMagic = "CAISSON1";
constexpr size_t kStoreReserved = 6;
constexpr uint8_t kHashXxh3 = 1;
constexpr size_t kPartBytesMin = kSealedRefBytes + 4 + 3 * 8 + 1;
static_assert(sizeof(RootPart) <= 4 * kPartBytesMin);

// What is wrong with it; empty: nothing. The same for what is written and what is read.
std::string_view fault_of(const RootPart& part, size_t packs) {
  const uint64_t bytes = part.part.bytes;
  if (part.part.object.kind != ObjectKind::kPart) return "a part is of another kind";
  if (part.inline_offset > bytes || part.inline_bytes > bytes - part.inline_offset ||
      part.inline_bytes > kInlineSectionBytesMax || part.entries > bytes / kEntryBytes) {
    return "a part is too short for what it holds";
  }
  if (part.packs.size() > kPacksMax ||
      std::any_of(part.packs.begin(), part.packs.end(), [&](uint32_t i) { return i >= packs; })) {
    return "a part refers to packs that the root does not list";
  }
  return {};
}

std::string_view fault_of(const Root& root) {
  if (root.object.kind != ObjectKind::kRoot) return "the root is of another kind";
  if (!check_run_name(root.run).ok()) return "the run's name is not valid";
  if (!is_utf8(root.metadata_json)) return "the metadata is not UTF-8";
  if (root.directory.object.kind != ObjectKind::kDirectory ||
      root.directory_index_offset > root.directory.bytes) {
    return "the directory is of another kind, or its page index is not inside it";
  }
  for (size_t i = 0; i < root.packs.size(); ++i) {
    if (root.packs[i].object.kind != ObjectKind::kPack ||
        (i > 0 && !(root.packs[i - 1].object < root.packs[i].object))) {
      return "the packs are not in ascending order";
    }
  }
  for (const RootPart& part : root.parts) {
    const std::string_view fault = fault_of(part, root.packs.size());
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
  out.put_varint(part.packs.size());
  for (const uint32_t pack : part.packs) out.put<uint32_t>(pack);
}

RootPart get_part(ByteReader& in) {
  RootPart part;
  part.part = get_sealed(in);
  part.rank = in.get<uint32_t>();
  part.entries = in.get<uint64_t>();
  part.inline_offset = in.get<uint64_t>();
  part.inline_bytes = in.get<uint64_t>();
  part.packs.resize(static_cast<size_t>(in.get_count(sizeof(uint32_t))));
  for (uint32_t& pack : part.packs) pack = in.get<uint32_t>();
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
  root.packs.resize(static_cast<size_t>(in.get_count(kSealedRefBytes)));
  for (SealedRef& pack : root.packs) pack = get_sealed(in);
  const uint64_t parts = in.get_count(kPartBytesMin);
  root.parts.reserve(static_cast<size_t>(parts));
  for (uint64_t i = 0; i < parts && in.ok(); ++i) root.parts.push_back(get_part(in));
  return root;
}

}  // namespace

ByteVector encode_root(const Root& root) {
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
  out.put_varint(root.packs.size());
  for (const SealedRef& pack : root.packs) put_sealed(out, pack);
  out.put_varint(root.parts.size());
  for (const RootPart& part : root.parts) put_part(out, part);
  return encode_envelope(kRootMagic, root.object.writer, out.bytes());
}

Result<Root> decode_root(const ObjectRef& object, Bytes bytes, std::string_view what) {
  if (bytes.size() > kRootBytesMax) return corrupt_at(what, 0, "larger than a root can be");
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope, decode_envelope(kRootMagic, bytes, what));
  ByteReader in(envelope.payload);
  Root root = get_root(in);
  if (!in.ok() || in.remaining() != 0) {
    return corrupt_at(what, kEnvelopeBytes, "the root is malformed");
  }
  if (root.object != object || envelope.salt != object.writer) {
    return corrupt_at(what, kEnvelopeBytes, "the root is of " + root.object.key());
  }
  const std::string_view fault = fault_of(root);
  if (!fault.empty()) return corrupt_at(what, kEnvelopeBytes, fault);
  return root;
}

ByteVector encode_store_file(const StoreFile& store) {
  CAISSON_CHECK(store.hash == kHashXxh3 && store.id_bytes == sizeof(Digest));
  ByteWriter out;
  out.put_bytes(store.uuid.bytes);
  out.put<uint8_t>(store.hash);
  out.put<uint8_t>(store.id_bytes);
  out.put_zeros(kStoreReserved);
  out.put<int64_t>(store.created_unix_ns);
  return encode_envelope(kStoreMagic, store.uuid, out.bytes());
}

Result<StoreFile> decode_store_file(Bytes bytes) {
  CAISSON_ASSIGN_OR_RETURN(const Envelope envelope, decode_envelope(kStoreMagic, bytes, kStoreKey));
  ByteReader in(envelope.payload);
  StoreFile store;
  store.features = envelope.features;
  store.uuid = get_uuid(in);
  store.hash = in.get<uint8_t>();
  store.id_bytes = in.get<uint8_t>();
  const Bytes reserved = in.get_bytes(kStoreReserved);
  store.created_unix_ns = in.get<int64_t>();
  if (!in.ok() || in.remaining() != 0 || store.uuid != envelope.salt ||
      std::any_of(reserved.begin(), reserved.end(),
                  [](std::byte b) { return b != std::byte{0}; })) {
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

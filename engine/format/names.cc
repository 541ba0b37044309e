// Names and references. A key has one spelling: object_ref_of takes only what key() gives.
#include "engine/format/names.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace caisson::format {
namespace {

constexpr std::string_view kDataPrefix = "data/";
constexpr size_t kUuidDigits = 32;
constexpr size_t kNumberDigitsMin = 6;

struct Extension {
  ObjectKind kind;
  std::string_view text;
};
constexpr std::array kExtensions = {
    Extension{ObjectKind::kPack, ".pack"}, Extension{ObjectKind::kPart, ".part"},
    Extension{ObjectKind::kDirectory, ".dir"}, Extension{ObjectKind::kRoot, ".root"}};

// `value` in lower-case hex, at least `digits_min` digits.
std::string hex(uint64_t value, size_t digits_min) {
  std::array<char, 16> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16).ptr;
  const auto count = static_cast<size_t>(end - digits.data());
  std::string text(count < digits_min ? digits_min - count : 0, '0');
  return text.append(digits.data(), count);
}

template <typename T>  // Uuid or Digest
T get_array(ByteReader& in) {
  T value;
  const Bytes bytes = in.get_bytes(value.bytes.size());
  std::copy(bytes.begin(), bytes.end(), value.bytes.begin());
  return value;
}

// Bytes of the UTF-8 sequence at the front of `text`; 0 when it is none.
size_t utf8_sequence(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = at(0);
  if (first < 0x80) return 1;
  const size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  // Too long a form, surrogates, beyond U+10FFFF.
  if (first == 0xe0 && at(1) < 0xa0) return 0;
  if (first == 0xed && at(1) > 0x9f) return 0;
  if (first == 0xf0 && at(1) < 0x90) return 0;
  if (first == 0xf4 && at(1) > 0x8f) return 0;
  return length;
}

}  // namespace

std::string save_prefix(const Uuid& save) { return std::string(kDataPrefix) + to_hex(save) + "/"; }
std::string log_key(uint64_t seq) { return "log/" + hex(seq, 16); }
std::string snapshot_key(uint64_t seq) { return "snapshots/" + hex(seq, 16); }

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_sequence(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

Status check_tensor_name(std::string_view name) {
  if (!name.empty() && name.size() <= kNameBytesMax && name.find('\0') == std::string_view::npos &&
      is_utf8(name)) {
    return ok_status();
  }
  return invalid_argument("a tensor name of " + std::to_string(name.size()) +
                          " bytes: it must be 1 to " + std::to_string(kNameBytesMax) +
                          " bytes of UTF-8 without NUL");
}

Status check_run_name(std::string_view run) {
  const bool control = std::any_of(run.begin(), run.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (!run.empty() && run.size() <= kRunBytesMax && !control && !run.starts_with('/') &&
      !run.ends_with('/') && run.find("//") == std::string_view::npos && is_utf8(run)) {
    return ok_status();
  }
  return invalid_argument("a run name of " + std::to_string(run.size()) +
                          " bytes: it must be 1 to " + std::to_string(kRunBytesMax) +
                          " bytes of UTF-8, without control characters and without an empty part "
                          "between slashes");
}

std::string ObjectRef::key() const {
  std::string text = save_prefix(save) + to_hex(writer) + "-" + hex(number, kNumberDigitsMin);
  for (const Extension& extension : kExtensions) {
    if (extension.kind == kind) text += extension.text;
  }
  return text;
}

Result<ObjectRef> object_ref_of(std::string_view key) {
  const Status refused = invalid_argument("\"" + std::string(key.substr(0, 200)) +
                                          "\" is not the key of an object of a save");
  constexpr size_t kSaveAt = kDataPrefix.size();
  constexpr size_t kWriterAt = kSaveAt + kUuidDigits + 1;
  constexpr size_t kNumberAt = kWriterAt + kUuidDigits + 1;
  const size_t dot = key.rfind('.');
  if (dot == std::string_view::npos || dot < kNumberAt + kNumberDigitsMin) return refused;
  const Result<Uuid> save = uuid_from_hex(key.substr(kSaveAt, kUuidDigits));
  const Result<Uuid> writer = uuid_from_hex(key.substr(kWriterAt, kUuidDigits));
  if (!save.ok() || !writer.ok()) return refused;
  ObjectRef ref{.kind = ObjectKind::kPack, .save = *save, .writer = *writer, .number = 0};
  const auto number = std::from_chars(key.data() + kNumberAt, key.data() + dot, ref.number, 16);
  if (number.ec != std::errc() || number.ptr != key.data() + dot) return refused;
  for (const Extension& extension : kExtensions) {
    if (key.substr(dot) == extension.text) ref.kind = extension.kind;
  }
  // Prefix, separators, case, leading zeros and extension at once: one object has one key.
  if (ref.key() != key) return refused;
  return ref;
}

void put_ref(ByteWriter& out, const ObjectRef& ref) {
  out.put(static_cast<uint8_t>(ref.kind));
  out.put_bytes(ref.save.bytes);
  out.put_bytes(ref.writer.bytes);
  out.put<uint32_t>(ref.number);
}
static_assert(kObjectRefBytes == 1 + 2 * sizeof(Uuid) + 4);

ObjectRef get_ref(ByteReader& in) {
  ObjectRef ref;
  const auto kind = in.get<uint8_t>();
  if (kind < static_cast<uint8_t>(ObjectKind::kPack) ||
      kind > static_cast<uint8_t>(ObjectKind::kRoot)) {
    in.fail();
    return ref;
  }
  ref.kind = static_cast<ObjectKind>(kind);
  ref.save = get_array<Uuid>(in);
  ref.writer = get_array<Uuid>(in);
  ref.number = in.get<uint32_t>();
  return ref;
}

void put_sealed(ByteWriter& out, const SealedRef& ref) {
  put_ref(out, ref.object);
  out.put<uint64_t>(ref.bytes);
  out.put_bytes(ref.digest.bytes);
}
static_assert(kSealedRefBytes == kObjectRefBytes + 8 + sizeof(Digest));

SealedRef get_sealed(ByteReader& in) {
  SealedRef ref;
  ref.object = get_ref(in);
  ref.bytes = in.get<uint64_t>();
  ref.digest = get_array<Digest>(in);
  return ref;
}

Uuid get_uuid(ByteReader& in) { return get_array<Uuid>(in); }
Digest get_digest(ByteReader& in) { return get_array<Digest>(in); }

}  // namespace caisson::format

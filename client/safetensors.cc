// See safetensors.h. The JSON goes through nlohmann's SAX interface: no tree is built, nesting
// costs one bit a level, and duplicate keys are seen. The handler below accepts the format's
// grammar and skips unknown fields of a tensor, as the library does.
#include "client/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <unordered_set>

namespace caisson::safetensors {
namespace {

using Json = nlohmann::json;

// One tensor's fields while they are read.
struct RawEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  std::vector<uint64_t> offsets;
  bool has_dtype = false, has_shape = false, has_offsets = false;
};

// Receives nlohmann's events; returning false stops the parse with error() set.
class HeaderHandler {
 public:
  explicit HeaderHandler(std::string_view what) : what_(what) {}

  Status error() const { return error_; }
  std::vector<RawEntry>& entries() { return entries_; }
  Metadata& metadata() { return metadata_; }

  bool null() { return scalar("null"); }
  bool boolean(bool /*value*/) { return scalar("a boolean"); }
  bool number_integer(int64_t /*value*/) { return scalar("a negative number"); }
  bool number_float(double /*value*/, const std::string& /*text*/) {
    return scalar("a number that is no integer below 2^64");
  }
  bool binary(Json::binary_t& /*value*/) { return scalar("binary"); }

  bool number_unsigned(uint64_t value) {
    if (state_ == State::kSkip) return after_skipped_scalar();
    if (state_ == State::kShape) return push(entries_.back().shape, value);
    if (state_ == State::kOffsets) return push(entries_.back().offsets, value);
    return scalar("a number");
  }

  bool string(std::string& value) {
    if (state_ == State::kSkip) return after_skipped_scalar();
    if (state_ == State::kMetadata) {
      metadata_.emplace_back(key_, value);
      return true;
    }
    if (state_ == State::kEntry && key_ == "dtype") {
      entries_.back().dtype = value;
      return true;
    }
    return scalar("a string");
  }

  bool start_object(size_t /*elements*/) {
    switch (state_) {
      case State::kStart:
        state_ = State::kTop;
        return true;
      case State::kTop:
        if (key_ == "__metadata__") {
          state_ = State::kMetadata;
        } else {
          state_ = State::kEntry;
          entries_.emplace_back().name = key_;
        }
        return true;
      case State::kSkip:
        ++skip_depth_;
        return true;
      default:
        return scalar("an object");
    }
  }

  bool end_object() {
    if (state_ == State::kSkip) return leave_skipped();
    if (state_ == State::kEntry && !entry_complete()) return false;
    if (state_ == State::kMetadata) metadata_keys_.clear();
    state_ = state_ == State::kTop ? State::kDone : State::kTop;
    return true;
  }

  bool start_array(size_t /*elements*/) {
    if (state_ == State::kSkip) {
      ++skip_depth_;
      return true;
    }
    if (state_ == State::kEntry && key_ == "shape") {
      state_ = State::kShape;
      return true;
    }
    if (state_ == State::kEntry && key_ == "data_offsets") {
      state_ = State::kOffsets;
      return true;
    }
    return scalar("an array");
  }

  bool end_array() {
    if (state_ == State::kSkip) return leave_skipped();
    state_ = State::kEntry;
    return true;
  }

  bool key(std::string& value) {
    switch (state_) {
      case State::kSkip:
        return true;
      case State::kTop:
        if (!names_.insert(value).second) return refuse(fmt::format("\"{}\" appears twice", value));
        break;
      case State::kMetadata:
        if (!metadata_keys_.insert(value).second) {
          return refuse(fmt::format("__metadata__ has \"{}\" twice", value));
        }
        break;
      default:
        return entry_key(value);
    }
    key_ = value;
    return true;
  }

  bool parse_error(size_t position, const std::string& /*token*/, const Json::exception& error) {
    std::string_view text = error.what();
    if (const size_t at = text.find(": "); at != std::string_view::npos) text.remove_prefix(at + 2);
    error_ = corruption(fmt::format("{}: offset {}: the header is not JSON: {}", what_,
                                    kPrefixBytes + (position == 0 ? 0 : position - 1), text));
    return false;
  }

 private:
  enum class State : uint8_t { kStart, kTop, kMetadata, kEntry, kShape, kOffsets, kSkip, kDone };

  bool refuse(const std::string& why) {
    error_ = corruption(fmt::format("{}: safetensors header: {}", what_, why));
    return false;
  }

  // A value where the grammar has none of its kind.
  bool scalar(std::string_view kind) {
    if (state_ == State::kSkip) return after_skipped_scalar();
    if (state_ == State::kStart) return refuse("it is not a JSON object");
    const bool in_entry =
        state_ == State::kEntry || state_ == State::kShape || state_ == State::kOffsets;
    return in_entry ? refuse(fmt::format("tensor \"{}\": {} in \"{}\"", entries_.back().name, kind,
                                         key_))
                    : refuse(fmt::format("{} where \"{}\" is", kind, key_));
  }

  bool push(std::vector<uint64_t>& into, uint64_t value) {
    // Neither list may grow without bound; one more than allowed is enough to be refused later.
    constexpr size_t kListMax = 64;
    if (into.size() >= kListMax) {
      return refuse(fmt::format("tensor \"{}\": \"{}\" has more than {} items",
                                entries_.back().name, key_, kListMax));
    }
    into.push_back(value);
    return true;
  }

  bool entry_key(const std::string& value) {
    RawEntry& entry = entries_.back();
    bool* seen = value == "dtype"          ? &entry.has_dtype
                 : value == "shape"        ? &entry.has_shape
                 : value == "data_offsets" ? &entry.has_offsets
                                           : nullptr;
    key_ = value;
    if (seen == nullptr) {
      state_ = State::kSkip;
      skip_depth_ = 0;
      return true;
    }
    if (*seen) {
      return refuse(fmt::format("tensor \"{}\" has \"{}\" twice", entry.name, value));
    }
    *seen = true;
    return true;
  }

  bool entry_complete() {
    const RawEntry& entry = entries_.back();
    const char* missing = !entry.has_dtype     ? "dtype"
                          : !entry.has_shape   ? "shape"
                          : !entry.has_offsets ? "data_offsets"
                                               : nullptr;
    if (missing == nullptr) return true;
    return refuse(fmt::format("tensor \"{}\" has no \"{}\"", entry.name, missing));
  }

  bool after_skipped_scalar() {
    if (skip_depth_ == 0) state_ = State::kEntry;
    return true;
  }
  bool leave_skipped() {
    if (--skip_depth_ == 0) state_ = State::kEntry;
    return true;
  }

  std::string_view what_;
  State state_ = State::kStart;
  uint64_t skip_depth_ = 0;
  std::string key_;
  std::vector<RawEntry> entries_;
  Metadata metadata_;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> metadata_keys_;
  Status error_;
};

Result<Entry> check_entry(const RawEntry& raw, uint64_t data_bytes, std::string_view what) {
  const std::string where = fmt::format("{}: tensor \"{}\"", what, raw.name);
  if (raw.name.empty() || raw.name.size() > 4096 || raw.name.find('\0') != std::string::npos) {
    return unsupported(fmt::format("{}: a name has 1 to 4096 bytes without NUL", where));
  }
  if (raw.offsets.size() != 2) {
    return corruption(
        fmt::format("{}: data_offsets has {} numbers, not 2", where, raw.offsets.size()));
  }
  if (raw.shape.size() > kRankMax) {
    return unsupported(fmt::format("{}: {} dimensions; at most {} can be stored", where,
                                   raw.shape.size(), kRankMax));
  }
  auto dtype = dtype_from_name(raw.dtype);
  if (!dtype.ok()) return unsupported(fmt::format("{}: dtype \"{}\" is unknown", where, raw.dtype));

  Entry entry{.spec = {.name = raw.name, .dtype = *dtype, .shape = Shape::of(raw.shape)},
              .begin = raw.offsets[0],
              .end = raw.offsets[1]};
  if (entry.begin > entry.end || entry.end > data_bytes) {
    return corruption(fmt::format("{}: data_offsets [{}, {}] leave the {} bytes of data", where,
                                  entry.begin, entry.end, data_bytes));
  }
  auto elements = element_count(entry.spec.shape);
  if (!elements.ok()) return corruption(fmt::format("{}: its shape overflows", where));
  auto bytes = packed_bytes(*elements, *dtype);
  if (!bytes.ok()) {
    return corruption(fmt::format("{}: {} elements of {} bits are no whole number of bytes", where,
                                  *elements, dtype->bits));
  }
  if (*bytes != entry.end - entry.begin) {
    return corruption(fmt::format("{}: {} {} takes {} bytes but data_offsets give {}", where,
                                  raw.dtype, to_string(entry.spec.shape), *bytes,
                                  entry.end - entry.begin));
  }
  return entry;
}

// No holes, no overlap, nothing before the first or after the last.
Status check_cover(const std::vector<Entry>& tensors, uint64_t data_bytes, std::string_view what) {
  uint64_t at = 0;
  for (const Entry& entry : tensors) {
    if (entry.begin != at) {
      return corruption(
          fmt::format("{}: tensor \"{}\" begins at data offset {}, but the one before it "
                      "ends at {}",
                      what, entry.spec.name, entry.begin, at));
    }
    at = entry.end;
  }
  if (at != data_bytes) {
    return corruption(
        fmt::format("{}: its tensors end at data offset {}, but {} bytes of data follow the "
                    "header; the file was "
                    "cut or extended",
                    what, at, data_bytes));
  }
  return ok_status();
}

// The library's own order, lowest first; it writes the highest first.
constexpr std::array<std::string_view, 22> kLibraryOrder = {
    "BOOL",    "F4",          "F6_E2M3",     "F6_E3M2", "U8",  "I8",  "F8_E5M2", "F8_E4M3",
    "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16",     "U16", "F16", "BF16",    "I32",
    "U32",     "F32",         "C64",         "F64",     "I64", "U64"};

Result<size_t> library_rank(const TensorSpec& spec) {
  const std::string name = dtype_name(spec.dtype);
  const auto* found = std::find(kLibraryOrder.begin(), kLibraryOrder.end(), name);
  if (found == kLibraryOrder.end()) {
    return unsupported(fmt::format("tensor \"{}\": safetensors has no dtype {}", spec.name, name));
  }
  return static_cast<size_t>(found - kLibraryOrder.begin());
}

}  // namespace

Result<uint64_t> header_bytes(Bytes prefix, uint64_t file_bytes, std::string_view what) {
  if (prefix.size() < kPrefixBytes || file_bytes < kPrefixBytes) {
    return corruption(
        fmt::format("{}: offset 0: {} bytes are too few for a safetensors file", what, file_bytes));
  }
  const auto bytes = load_le<uint64_t>(prefix.data());
  if (bytes > kHeaderBytesMax) {
    return corruption(
        fmt::format("{}: offset 0: a header of {} bytes is above the limit of {}; this "
                    "is no safetensors file",
                    what, bytes, kHeaderBytesMax));
  }
  if (bytes > file_bytes - kPrefixBytes) {
    return corruption(
        fmt::format("{}: offset 0: the header of {} bytes reaches past the file's end "
                    "at {}; the file was cut",
                    what, bytes, file_bytes));
  }
  return bytes;
}

Result<Header> parse_header(Bytes json, uint64_t file_bytes, std::string_view what) {
  if (json.size() > kHeaderBytesMax || file_bytes < kPrefixBytes ||
      json.size() > file_bytes - kPrefixBytes) {
    return corruption(fmt::format("{}: offset 0: the header does not fit the file", what));
  }
  const bool known = file_bytes != kFileBytesUnknown;
  const uint64_t data_bytes = known ? file_bytes - kPrefixBytes - json.size() : INT64_MAX;
  const std::string_view text = as_text(json);
  // nlohmann would skip a byte order mark; the format does not allow one.
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{') {
    return corruption(
        fmt::format("{}: offset {}: the header does not start with '{{'", what, kPrefixBytes));
  }
  HeaderHandler handler(what);
  const bool parsed = Json::sax_parse(text.begin(), text.end(), &handler);
  if (!handler.error().ok()) return handler.error();
  if (!parsed) return corruption(fmt::format("{}: the header is not JSON", what));

  Header header;
  header.metadata = std::move(handler.metadata());
  header.tensors.reserve(handler.entries().size());
  for (const RawEntry& raw : handler.entries()) {
    CAISSON_ASSIGN_OR_RETURN(Entry entry, check_entry(raw, data_bytes, what));
    header.tensors.push_back(std::move(entry));
  }
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const Entry& a, const Entry& b) {
                     return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
                   });
  const uint64_t end = known || header.tensors.empty() ? data_bytes : header.tensors.back().end;
  if (known || !header.tensors.empty()) {
    CAISSON_RETURN_IF_ERROR(check_cover(header.tensors, end, what));
  }
  return header;
}

Status sort_as_library(std::vector<TensorSpec>& specs) {
  std::vector<std::pair<size_t, TensorSpec>> ranked;
  ranked.reserve(specs.size());
  for (TensorSpec& spec : specs) {
    CAISSON_ASSIGN_OR_RETURN(const size_t rank, library_rank(spec));
    ranked.emplace_back(rank, std::move(spec));
  }
  std::sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) {
    return a.first != b.first ? a.first > b.first : a.second.name < b.second.name;
  });
  for (size_t i = 0; i < specs.size(); ++i) specs[i] = std::move(ranked[i].second);
  return ok_status();
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        } else {
          out += c;
        }
    }
  }
  out += '"';
}

Result<std::string> encode_header(std::span<const TensorSpec> specs, const Metadata& metadata,
                                  std::vector<Entry>* entries) {
  entries->clear();
  std::string json = "{";
  const auto separate = [&json] {
    if (json.size() > 1) json += ',';
  };
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (json.back() != '{') json += ',';
      append_json_string(json, key);
      json += ':';
      append_json_string(json, value);
    }
    json += '}';
  }
  uint64_t at = 0;
  for (const TensorSpec& spec : specs) {
    CAISSON_RETURN_IF_ERROR(library_rank(spec).status());
    CAISSON_ASSIGN_OR_RETURN(const uint64_t elements, element_count(spec.shape));
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes, packed_bytes(elements, spec.dtype));
    separate();
    append_json_string(json, spec.name);
    json +=
        fmt::format(R"(:{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})",
                    dtype_name(spec.dtype), fmt::join(spec.shape.extents(), ","), at, at + bytes);
    entries->push_back({.spec = spec, .begin = at, .end = at + bytes});
    at += bytes;
  }
  json += '}';
  json.resize(align_up(json.size(), 8), ' ');
  if (json.size() > kHeaderBytesMax) {
    return invalid_argument(
        fmt::format("a safetensors header of {} bytes is above the limit of {}; "
                    "export in shards with --max-shard-size",
                    json.size(), kHeaderBytesMax));
  }
  std::string out(kPrefixBytes, '\0');
  store_le(reinterpret_cast<std::byte*>(out.data()), uint64_t{json.size()});
  return out + json;
}

}  // namespace caisson::safetensors

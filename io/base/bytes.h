// Spans of bytes, little-endian loads and stores, and bounds-checked readers and writers. Every
// decoder reads through ByteReader, so no length from disk is used before it is compared with what
// is there. Pure; thread-compatible.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace caisson {

using Bytes = std::span<const std::byte>;
using MutableBytes = std::span<std::byte>;
using ByteVector = std::vector<std::byte>;

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string_view as_text(Bytes bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

static_assert(std::endian::native == std::endian::little,
              "the loads below assume a little-endian host; add a byte swap before porting");

template <typename T>
T load_le(const std::byte* from) {
  static_assert(std::is_integral_v<T>);
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <typename T>
void store_le(std::byte* to, T value) {
  static_assert(std::is_integral_v<T>);
  std::memcpy(to, &value, sizeof value);
}

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

// Appends to a vector. Integers are little-endian; varints are LEB128, least significant group
// first, at most ten bytes.
class ByteWriter {
 public:
  template <typename T>
  void put(T value) {
    std::array<std::byte, sizeof(T)> raw;
    store_le(raw.data(), value);
    bytes_.insert(bytes_.end(), raw.begin(), raw.end());
  }
  void put_varint(uint64_t value) {
    while (value >= 0x80) {
      bytes_.push_back(static_cast<std::byte>((value & 0x7f) | 0x80));
      value >>= 7;
    }
    bytes_.push_back(static_cast<std::byte>(value));
  }
  void put_bytes(Bytes bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void put_string(std::string_view text) {  // varint length, then the bytes
    put_varint(text.size());
    put_bytes(as_bytes(text));
  }
  void put_zeros(size_t count) { bytes_.resize(bytes_.size() + count); }

  size_t size() const { return bytes_.size(); }
  Bytes bytes() const { return bytes_; }
  MutableBytes mutable_bytes() { return bytes_; }
  ByteVector take() { return std::move(bytes_); }

 private:
  ByteVector bytes_;
};

// Reads forward. Once a read runs past the end, or a varint is malformed, the reader is failed: it
// stays so and every later read gives zeros and empty spans. Callers check ok() at the points where
// a value decides an allocation or a loop, and once at the end.
class ByteReader {
 public:
  explicit ByteReader(Bytes bytes) : rest_(bytes) {}

  bool ok() const { return ok_; }
  size_t remaining() const { return ok_ ? rest_.size() : 0; }
  void fail() { ok_ = false; }

  template <typename T>
  T get() {
    if (!need(sizeof(T))) return T{};
    T value = load_le<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  uint64_t get_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (!need(1)) return 0;
      const auto byte = std::to_integer<uint64_t>(rest_.front());
      rest_ = rest_.subspan(1);
      if (shift == 63 && byte > 1) break;  // would overflow 64 bits
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) {
        if (byte == 0 && shift > 0) break;  // one value has one encoding
        return value;
      }
    }
    ok_ = false;
    return 0;
  }
  Bytes get_bytes(uint64_t count) {
    if (!need(count)) return {};
    Bytes bytes = rest_.first(static_cast<size_t>(count));
    rest_ = rest_.subspan(static_cast<size_t>(count));
    return bytes;
  }
  // A varint length not above `bytes_max`, then the text.
  std::string_view get_string(uint64_t bytes_max) {
    const uint64_t size = get_varint();
    if (size > bytes_max) ok_ = false;
    return as_text(get_bytes(size));
  }
  // A varint count of items that take at least `item_bytes_min` bytes each: never more than what is
  // left could hold, so it is safe to reserve for.
  uint64_t get_count(size_t item_bytes_min) {
    const uint64_t count = get_varint();
    if (count > remaining() / item_bytes_min) {
      ok_ = false;
      return 0;
    }
    return count;
  }

 private:
  bool need(uint64_t count) {
    if (ok_ && count <= rest_.size()) return true;
    ok_ = false;
    return false;
  }
  Bytes rest_;
  bool ok_ = true;
};

}  // namespace caisson

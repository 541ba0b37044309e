// Codec 5, "delta": SPEC.md. A chunk as its difference from the chunk of the same tile in another
// checkpoint, the anchor. Weights at a low learning rate hardly change from step to step; most
// bytes of their differences are zero.
#include <algorithm>
#include <array>
#include <string>

#include "compression/codecs.h"
#include "compression/delta_kernels.h"
#include "io/base/zeros.h"

namespace caisson {
namespace {

// DLPack type codes (engine/include/caisson/tensor.h), which this layer does not see.
constexpr uint8_t kCodeInt = 0;
constexpr uint8_t kCodeUInt = 1;
constexpr uint8_t kCodeComplex = 5;
constexpr uint8_t kCodeBool = 6;

constexpr size_t kElementsMin = 1024;  // below it the headers eat the gain
constexpr size_t kHeaderBytes = 16;
constexpr size_t kSizeBytes = 4;
constexpr size_t kSectionElements = 64 * 1024;
// From this share of zeros on, runs of them are worth looking for: Huffman codes alone would spend
// a bit on each.
constexpr double kZerosMany = 0.95;

struct Elements {
  size_t width = 1;
  NumberOrder order = NumberOrder::kInteger;
};

// How the elements of a kind are read. Kinds without a width of whole bytes are bytes.
Elements elements_of(ElementFormat format) {
  const bool integer =
      format.code == kCodeInt || format.code == kCodeUInt || format.code == kCodeBool;
  const size_t bits = format.code == kCodeComplex ? format.bits / 2u : format.bits;
  const bool known = bits == 8 || bits == 16 || bits == 32 || bits == 64;
  if (!known) return {};
  return {.width = bits / 8,
          .order = integer ? NumberOrder::kInteger : NumberOrder::kSignMagnitude};
}

// Room for the planes of n elements.
std::byte* planes_of(CodecContext& context, size_t width, size_t n) {
  std::vector<std::byte>& planes = context.state().delta;
  if (planes.size() < width * n) planes.resize(width * n);
  return planes.data();
}

// Of a few runs, which is enough to tell many from few.
bool mostly_zero(Bytes plane) {
  constexpr size_t kRuns = 64;
  constexpr size_t kRunBytes = 64;
  const size_t runs = std::clamp<size_t>(plane.size() / kRunBytes, 1, kRuns);
  const size_t bytes = std::min(plane.size(), kRunBytes);
  const size_t step = plane.size() / runs;
  size_t zeros = 0;
  for (size_t i = 0; i < runs; ++i) {
    const Bytes run = plane.subspan(i * step, bytes);
    zeros += static_cast<size_t>(std::count(run.begin(), run.end(), std::byte{0}));
  }
  return static_cast<double>(zeros) > kZerosMany * static_cast<double>(runs * bytes);
}

// One plane of bytes to the start of `to`: nothing when all are zero, a frame where that is
// smaller, else the bytes. Gives the stored bytes; more than to.size() when they do not fit.
Result<size_t> encode_plane(CodecContext& context, Bytes plane, MutableBytes to) {
  if (is_zero(plane)) return size_t{0};
  const MutableBytes room = to.first(std::min(plane.size(), to.size()));
  size_t frame = 0;
  if (mostly_zero(plane)) {
    CAISSON_ASSIGN_OR_RETURN(frame, zstd_codec().encode(context, {}, plane, {}, room));
  } else {
    CAISSON_ASSIGN_OR_RETURN(frame, entropy_encode(context, plane, room));
  }
  if (frame != 0) return frame;
  if (plane.size() <= to.size()) std::copy(plane.begin(), plane.end(), to.begin());
  return plane.size();
}

Status decode_plane(CodecContext& context, Bytes stored, MutableBytes plane) {
  if (stored.empty()) {
    std::fill(plane.begin(), plane.end(), std::byte{0});
  } else if (stored.size() == plane.size()) {
    std::copy(stored.begin(), stored.end(), plane.begin());
  } else {
    return entropy_decode(context, stored, plane);
  }
  return ok_status();
}

class DeltaCodec final : public Codec {
 public:
  CodecId id() const override { return CodecId::kDelta; }
  std::string_view name() const override { return "delta"; }
  bool needs_base() const override { return true; }

  Result<size_t> encode(CodecContext& context, ElementFormat format, Bytes raw, Bytes base,
                        MutableBytes stored) const override {
    const Elements elements = elements_of(format);
    if (raw.size() % elements.width != 0 || raw.size() != base.size()) return size_t{0};
    if (raw.size() / elements.width < kElementsMin || stored.size() < kHeaderBytes) {
      return size_t{0};
    }
    std::fill_n(stored.data(), kHeaderBytes, std::byte{0});
    stored[0] = static_cast<std::byte>(elements.width);
    stored[1] = static_cast<std::byte>(elements.order);
    size_t at = kHeaderBytes;
    const size_t section_bytes = kSectionElements * elements.width;
    for (size_t done = 0; done < raw.size(); done += section_bytes) {
      const size_t bytes = std::min(section_bytes, raw.size() - done);
      CAISSON_ASSIGN_OR_RETURN(const size_t used,
                               encode_section(context, elements, raw.subspan(done, bytes),
                                              base.subspan(done, bytes), stored.subspan(at)));
      if (used == 0) return size_t{0};
      at += used;
    }
    return at < stored.size() ? at : 0;
  }

  Status decode(CodecContext& context, ElementFormat, Bytes stored, Bytes base,
                MutableBytes raw) const override {
    if (stored.size() < kHeaderBytes) return cut_off();
    const auto width = static_cast<size_t>(stored[0]);
    const auto order = static_cast<NumberOrder>(stored[1]);
    const Bytes zeros = stored.subspan(2, kHeaderBytes - 2);
    if ((width != 1 && width != 2 && width != 4 && width != 8) ||
        order > NumberOrder::kSignMagnitude ||
        std::any_of(zeros.begin(), zeros.end(), [](std::byte b) { return b != std::byte{0}; })) {
      return corruption("delta: a header says what cannot be");
    }
    if (raw.size() % width != 0) return corruption("delta: the raw bytes are not whole elements");
    if (base.size() != raw.size()) return corruption("delta: the base has another size");
    size_t at = kHeaderBytes;
    const size_t section_bytes = kSectionElements * width;
    for (size_t done = 0; done < raw.size(); done += section_bytes) {
      const size_t bytes = std::min(section_bytes, raw.size() - done);
      CAISSON_ASSIGN_OR_RETURN(
          const size_t used,
          decode_section(context, {.width = width, .order = order}, stored.subspan(at),
                         base.subspan(done, bytes), raw.subspan(done, bytes)));
      at += used;
    }
    if (at == stored.size()) return ok_status();
    return corruption("delta: the stored form does not end with its last section");
  }

 private:
  static Status cut_off() { return corruption("delta: a section is cut off"); }

  // Gives the bytes used, 0 when they do not fit.
  static Result<size_t> encode_section(CodecContext& context, Elements elements, Bytes raw,
                                       Bytes base, MutableBytes to) {
    const size_t n = raw.size() / elements.width;
    size_t at = kSizeBytes * elements.width;
    if (at > to.size()) return size_t{0};
    std::byte* const planes = planes_of(context, elements.width, n);
    difference_to_planes(elements.width, elements.order, raw.data(), base.data(), n, planes, n);
    for (size_t j = 0; j < elements.width; ++j) {
      CAISSON_ASSIGN_OR_RETURN(const size_t bytes,
                               encode_plane(context, Bytes(planes + j * n, n), to.subspan(at)));
      if (bytes > to.size() - at) return size_t{0};
      store_le(to.data() + kSizeBytes * j, static_cast<uint32_t>(bytes));
      at += bytes;
    }
    return at;
  }

  // Gives the bytes used.
  static Result<size_t> decode_section(CodecContext& context, Elements elements, Bytes from,
                                       Bytes base, MutableBytes raw) {
    const size_t n = raw.size() / elements.width;
    size_t at = kSizeBytes * elements.width;
    if (at > from.size()) return cut_off();
    std::byte* const planes = planes_of(context, elements.width, n);
    for (size_t j = 0; j < elements.width; ++j) {
      const size_t bytes = load_le<uint32_t>(from.data() + kSizeBytes * j);
      if (bytes > n) return corruption("delta: a plane is larger than its bytes");
      if (bytes > from.size() - at) return cut_off();
      CAISSON_RETURN_IF_ERROR(
          decode_plane(context, from.subspan(at, bytes), MutableBytes(planes + j * n, n)));
      at += bytes;
    }
    planes_to_sum(elements.width, elements.order, planes, n, base.data(), n, raw.data());
    return at;
  }
};

}  // namespace

const Codec& delta_codec() {
  static const DeltaCodec codec;
  return codec;
}

}  // namespace caisson

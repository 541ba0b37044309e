#include "bench/codecs/measurement.h"

#include <cstring>
#include <ctime>
#include <string>
#include <utility>

#include "compression/choose.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson::bench {
namespace {

// Of the processor, so that neighbours do not count.
double thread_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

}  // namespace

Result<Measurement> Measurement::make(const Sample& sample,
                                      const std::vector<const Codec*>& codecs) {
  Measurement made;
  made.sample_ = &sample;
  CAISSON_ASSIGN_OR_RETURN(
      made.stored_, AlignedBuffer::allocate(sample.raw_bytes + 64 * sample.chunks.size(), true));
  CAISSON_ASSIGN_OR_RETURN(made.out_, AlignedBuffer::allocate(sample.raw_bytes, true));
  made.places_.resize(sample.chunks.size());
  for (const Codec* codec : codecs) made.tracks_.push_back({.codec = codec});
  return made;
}

const Track* Measurement::find(std::string_view name) const {
  for (const Track& track : tracks_) {
    if (track.name() == name) return &track;
  }
  return nullptr;
}

template <typename Work>
Status Measurement::time(std::vector<double>& into, unsigned round, Work&& work) {
  const double start = thread_seconds();
  CAISSON_RETURN_IF_ERROR(work());
  const double seconds = thread_seconds() - start;
  if (round != 0) into.push_back(static_cast<double>(sample_->raw_bytes) / seconds);
  return ok_status();
}

Status Measurement::run(unsigned rounds) {
  const Bytes raw = Bytes(sample_->raw.bytes()).first(sample_->raw_bytes);
  for (unsigned i = 0; i <= rounds; ++i) {
    CAISSON_RETURN_IF_ERROR(time(copy_, i, [&] {
      std::memcpy(out_.data(), raw.data(), raw.size());
      return ok_status();
    }));
    CAISSON_RETURN_IF_ERROR(time(hash_, i, [&] { return hash_chunks(); }));
    for (Track& track : tracks_) {
      CAISSON_RETURN_IF_ERROR(time(track.encode, i, [&] { return encode(track); }));
      CAISSON_RETURN_IF_ERROR(time(track.decode, i, [&] { return decode(); }));
      if (i == 0 && std::memcmp(out_.data(), raw.data(), raw.size()) != 0) {
        return corruption(std::string(track.name()) + ": not what was encoded");
      }
    }
  }
  return ok_status();
}

Status Measurement::hash_chunks() {
  for (const SampleChunk& chunk : sample_->chunks) {
    last_byte_ ^= content_id(sample_->raw_of(chunk), sample_->dtype.bits).bytes[0];
  }
  return ok_status();
}

Status Measurement::encode(Track& track) {
  uint64_t at = 0;
  for (size_t i = 0; i < sample_->chunks.size(); ++i) {
    const SampleChunk& chunk = sample_->chunks[i];
    const Bytes raw = sample_->raw_of(chunk);
    const Codec* codec = track.codec;
    if (codec == nullptr) {
      const CodecId chosen = choose_codec(context_, sample_->format(), raw);
      CAISSON_ASSIGN_OR_RETURN(codec, find_codec(static_cast<uint8_t>(chosen)));
    }
    const Bytes base = codec->needs_base() ? sample_->base_of(chunk) : Bytes();
    const MutableBytes room = stored_.bytes().subspan(at, raw.size());
    CAISSON_ASSIGN_OR_RETURN(const size_t bytes,
                             codec->encode(context_, sample_->format(), raw, base, room));
    if (bytes == 0) std::memcpy(room.data(), raw.data(), raw.size());
    places_[i] = {.at = at, .bytes = bytes, .codec = codec};
    at = align_up(at + (bytes == 0 ? raw.size() : bytes), 64);
  }
  track.stored_bytes = at;
  return ok_status();
}

Status Measurement::decode() {
  for (size_t i = 0; i < sample_->chunks.size(); ++i) {
    const SampleChunk& chunk = sample_->chunks[i];
    const MutableBytes raw = out_.bytes().subspan(chunk.begin, chunk.bytes);
    const Bytes stored = Bytes(stored_.bytes()).subspan(places_[i].at, places_[i].bytes);
    if (stored.empty()) {
      std::memcpy(raw.data(), stored_.data() + places_[i].at, raw.size());
      continue;
    }
    const Codec& codec = *places_[i].codec;
    const Bytes base = codec.needs_base() ? sample_->base_of(chunk) : Bytes();
    CAISSON_RETURN_IF_ERROR(codec.decode(context_, sample_->format(), stored, base, raw));
  }
  return ok_status();
}

}  // namespace caisson::bench

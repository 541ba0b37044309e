// caisson_codecs: ratio and speed of every codec on the tensors of safetensors files, on one core,
// from memory to memory. Every round copies the same bytes first, with one memcpy from end to end:
// what a codec is given is its speed as a share of that, in the same round; medians of rounds.
//
//   caisson_codecs [--rounds N] [--mib N] [--anchor FILE] [--codec NAME] [--kind NAME] FILE...
//
// bench/train_state.py makes files worth measuring.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>
#include <vector>

#include "bench/codecs/samples.h"
#include "bench/spread.h"
#include "io/base/bytes.h"
#include "io/base/hash.h"

namespace caisson::bench {
namespace {

struct Options {
  unsigned rounds = 7;
  uint64_t bytes_min = uint64_t{256} << 20;
  std::string anchor;
  std::string codec, kind;  // only this one; empty: all
  std::vector<std::string> files;
};

// Of the processor, so that neighbours do not count.
double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

struct Encoded {
  uint64_t at = 0;
  uint64_t bytes = 0;  // 0: stored raw, which costs a copy
};

// One codec on one sample.
struct Track {
  const Codec* codec = nullptr;
  uint64_t stored_bytes = 0;
  std::vector<double> encode, decode;  // bytes a second, one for each round
};

class Measurement {
 public:
  Measurement(Sample& sample, AlignedBuffer& stored, AlignedBuffer& out, const std::string& only)
      : sample_(sample), stored_(stored), out_(out), places_(sample.chunks.size()) {
    for (uint8_t id = 1; id <= static_cast<uint8_t>(CodecId::kDelta); ++id) {
      const Result<const Codec*> codec = find_codec(id);
      if (!codec.ok()) continue;
      if (!only.empty() && (*codec)->name() != only) continue;
      if ((*codec)->needs_base() && sample.base.size() == 0) continue;
      tracks_.push_back({.codec = *codec});
    }
  }

  Status run(unsigned rounds) {
    for (unsigned i = 0; i <= rounds; ++i) {  // the first one warms up
      CAISSON_RETURN_IF_ERROR(time(copy_, i, [&] {
        std::memcpy(out_.data(), sample_.raw.data(), sample_.raw_bytes);
        return ok_status();
      }));
      CAISSON_RETURN_IF_ERROR(time(hash_, i, [&] { return hash(); }));
      for (Track& track : tracks_) {
        CAISSON_RETURN_IF_ERROR(time(track.encode, i, [&] { return encode(track); }));
        CAISSON_RETURN_IF_ERROR(time(track.decode, i, [&] { return decode(track); }));
        if (i == 0 && std::memcmp(out_.data(), sample_.raw.data(), sample_.raw_bytes) != 0) {
          return corruption(std::string(track.codec->name()) + ": not what was encoded");
        }
      }
    }
    return ok_status();
  }

  const std::vector<Track>& tracks() const { return tracks_; }
  const std::vector<double>& copy() const { return copy_; }
  const std::vector<double>& hash_speed() const { return hash_; }

 private:
  template <typename Work>
  Status time(std::vector<double>& into, unsigned round, Work&& work) {
    const double start = cpu_seconds();
    CAISSON_RETURN_IF_ERROR(work());
    if (round != 0)
      into.push_back(static_cast<double>(sample_.raw_bytes) / (cpu_seconds() - start));
    return ok_status();
  }

  Status hash() {
    Digest last;
    for (const SampleChunk& chunk : sample_.chunks) {
      last = content_id(sample_.raw_of(chunk), sample_.dtype.bits);
      last_byte_ = last_byte_ ^ last.bytes[0];
    }
    return ok_status();
  }

  Status encode(Track& track) {
    uint64_t at = 0;
    for (size_t i = 0; i < sample_.chunks.size(); ++i) {
      const SampleChunk& chunk = sample_.chunks[i];
      const Bytes raw = sample_.raw_of(chunk);
      const Bytes base = track.codec->needs_base() ? sample_.base_of(chunk) : Bytes();
      const MutableBytes room = stored_.bytes().subspan(at, raw.size());
      CAISSON_ASSIGN_OR_RETURN(const size_t bytes,
                               track.codec->encode(context_, sample_.format(), raw, base, room));
      if (bytes == 0) std::memcpy(room.data(), raw.data(), raw.size());
      places_[i] = {.at = at, .bytes = bytes};
      at = align_up(at + (bytes == 0 ? raw.size() : bytes), 64);
    }
    track.stored_bytes = at;
    return ok_status();
  }

  Status decode(const Track& track) {
    for (size_t i = 0; i < sample_.chunks.size(); ++i) {
      const SampleChunk& chunk = sample_.chunks[i];
      const MutableBytes raw = out_.bytes().subspan(chunk.begin, chunk.bytes);
      const Bytes stored = Bytes(stored_.bytes()).subspan(places_[i].at, places_[i].bytes);
      if (stored.empty()) {
        std::memcpy(raw.data(), stored_.data() + places_[i].at, raw.size());
        continue;
      }
      const Bytes base = track.codec->needs_base() ? sample_.base_of(chunk) : Bytes();
      CAISSON_RETURN_IF_ERROR(track.codec->decode(context_, sample_.format(), stored, base, raw));
    }
    return ok_status();
  }

  Sample& sample_;
  AlignedBuffer& stored_;
  AlignedBuffer& out_;
  CodecContext context_;
  std::vector<Encoded> places_;
  std::vector<Track> tracks_;
  std::vector<double> copy_, hash_;
  volatile std::byte last_byte_{};
};

// What we want of codecs on training states: ratio, and encoding and decoding as shares of memcpy.
struct Target {
  const char* kind;
  uint8_t bits;
  CodecId codec;
  double ratio, encode, decode;
};
constexpr Target kTargets[] = {
    {"model", 16, CodecId::kBitPlanes, 1.40, 0.75, 0.80},
    {"model", 16, CodecId::kEntropyPlanes, 1.49, 0, 0},
    {"model", 32, CodecId::kBitPlanes, 1.17, 0.6, 0.6},
    {"model", 32, CodecId::kEntropyPlanes, 1.195, 0, 0},
    {"exp_avg", 32, CodecId::kBitPlanes, 1.13, 0.6, 0.6},
    {"exp_avg_sq", 32, CodecId::kBitPlanes, 1.17, 0.6, 0.6},
    {"master", 32, CodecId::kTwin, 1.98, 0.6, 0.6},
};

const char* verdict(const Sample& sample, CodecId codec, double ratio, double encode,
                    double decode) {
  for (const Target& target : kTargets) {
    if (target.kind != sample.kind || target.bits != sample.dtype.bits || target.codec != codec) {
      continue;
    }
    if (ratio < target.ratio) return "misses its ratio";
    if (encode < target.encode) return "misses encoding";
    return decode < target.decode ? "misses decoding" : "pass";
  }
  return "";
}

double median(const std::vector<double>& values) { return spread_of(values).median; }
double share(const std::vector<double>& speed, const std::vector<double>& copy) {
  return median(paired_ratios(speed, copy));
}

// The codecs of a whole state, each kind by its own: what saving it with hashing comes to.
struct WholeState {
  double raw = 0, stored = 0, seconds = 0;
  void add(const Sample& sample, const Track& track, double hash_speed) {
    const auto bytes = static_cast<double>(sample.state_bytes);
    raw += bytes;
    stored +=
        bytes * static_cast<double>(track.stored_bytes) / static_cast<double>(sample.raw_bytes);
    seconds += bytes / median(track.encode) + bytes / hash_speed;
  }
  void print(const char* name) const {
    std::printf("%-12s %-5s %-8s %6.3f %8.2f GB/s with hashing\n", "whole state", "", name,
                raw / stored, raw / seconds * 1e-9);
  }
};

const Track* track_of(const std::vector<Track>& tracks, CodecId id) {
  for (const Track& track : tracks) {
    if (track.codec->id() == id) return &track;
  }
  return nullptr;
}

Status measure_file(const Options& options, const std::string& path) {
  CAISSON_ASSIGN_OR_RETURN(std::vector<Sample> samples,
                           load_samples(path, options.anchor, options.bytes_min));
  std::printf("%s%s%s\n%-12s %-5s %-8s %6s %8s %8s %8s %8s %8s\n", path.c_str(),
              options.anchor.empty() ? "" : " against ", options.anchor.c_str(), "kind", "dtype",
              "codec", "ratio", "enc GB/s", "dec GB/s", "memcpy", "enc/copy", "dec/copy");
  WholeState fast, small;
  for (Sample& sample : samples) {
    if (!options.kind.empty() && sample.kind != options.kind) continue;
    CAISSON_ASSIGN_OR_RETURN(
        AlignedBuffer stored,
        AlignedBuffer::allocate(sample.raw_bytes + 64 * sample.chunks.size(), true));
    CAISSON_ASSIGN_OR_RETURN(AlignedBuffer out, AlignedBuffer::allocate(sample.raw_bytes, true));
    Measurement measurement(sample, stored, out, options.codec);
    CAISSON_RETURN_IF_ERROR(measurement.run(options.rounds));
    for (const Track& track : measurement.tracks()) {
      const double ratio =
          static_cast<double>(sample.raw_bytes) / static_cast<double>(track.stored_bytes);
      const double encode = share(track.encode, measurement.copy());
      const double decode = share(track.decode, measurement.copy());
      std::printf("%-12s %-5s %-8s %6.3f %8.2f %8.2f %8.2f %8.2f %8.2f  %s\n", sample.kind.c_str(),
                  dtype_name(sample.dtype).c_str(), std::string(track.codec->name()).c_str(), ratio,
                  median(track.encode) * 1e-9, median(track.decode) * 1e-9,
                  median(measurement.copy()) * 1e-9, encode, decode,
                  verdict(sample, track.codec->id(), ratio, encode, decode));
    }
    std::fflush(stdout);
    if (!options.codec.empty()) continue;
    const double hash_speed = median(measurement.hash_speed());
    const Track* const twin = track_of(measurement.tracks(), CodecId::kTwin);
    fast.add(sample, twin ? *twin : *track_of(measurement.tracks(), CodecId::kBitPlanes),
             hash_speed);
    small.add(sample, twin ? *twin : *track_of(measurement.tracks(), CodecId::kEntropyPlanes),
              hash_speed);
  }
  if (!options.codec.empty() || !options.kind.empty()) return ok_status();
  fast.print("fast");
  small.print("small");
  return ok_status();
}

int run(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool has_value = i + 1 < argc;
    if (argument == "--rounds" && has_value) {
      options.rounds = std::max(1u, static_cast<unsigned>(std::strtoul(argv[++i], nullptr, 10)));
    } else if (argument == "--mib" && has_value) {
      options.bytes_min = std::max<uint64_t>(1, std::strtoull(argv[++i], nullptr, 10)) << 20;
    } else if (argument == "--anchor" && has_value) {
      options.anchor = argv[++i];
    } else if (argument == "--codec" && has_value) {
      options.codec = argv[++i];
    } else if (argument == "--kind" && has_value) {
      options.kind = argv[++i];
    } else {
      options.files.push_back(argument);
    }
  }
  if (options.files.empty()) {
    std::fprintf(
        stderr,
        "usage: caisson_codecs [--rounds N] [--mib N] [--anchor FILE] [--codec NAME] [--kind NAME] "
        "FILE...\n"
        "FILE is a safetensors file; bench/train_state.py makes some\n");
    return 2;
  }
  for (const std::string& file : options.files) {
    const Status status = measure_file(options, file);
    if (status.ok()) continue;
    std::fprintf(stderr, "%s\n", status.to_string().c_str());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace caisson::bench

int main(int argc, char** argv) { return caisson::bench::run(argc, argv); }

#include "bench/codecs/samples.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>
#include <utility>

#include "client/mapped_file.h"
#include "client/safetensors.h"

namespace caisson::bench {
namespace {

constexpr uint64_t kChunkElements = 512 * 1024;
constexpr std::string_view kModel = "model.";
constexpr std::string_view kMaster = "master.";

struct Tensor {
  TensorSpec spec;
  Bytes bytes;
};

struct StateFile {
  MappedFile file;
  std::map<std::string, Tensor> tensors;
};

Result<StateFile> open_state(const std::string& path) {
  CAISSON_ASSIGN_OR_RETURN(MappedFile file, MappedFile::open(path));
  const Bytes all = file.bytes();
  const Bytes prefix = all.first(std::min<size_t>(all.size(), safetensors::kPrefixBytes));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t json,
                           safetensors::header_bytes(prefix, all.size(), path));
  CAISSON_ASSIGN_OR_RETURN(
      safetensors::Header header,
      safetensors::parse_header(all.subspan(safetensors::kPrefixBytes, json), all.size(), path));
  const Bytes data = all.subspan(safetensors::kPrefixBytes + json);
  StateFile state{.file = std::move(file), .tensors = {}};
  for (safetensors::Entry& entry : header.tensors) {
    const Bytes bytes = data.subspan(entry.begin, entry.end - entry.begin);
    std::string name = entry.spec.name;
    state.tensors.emplace(std::move(name), Tensor{std::move(entry.spec), bytes});
  }
  return state;
}

std::string kind_of(const std::string& name) {
  for (const std::string_view kind : {kModel, kMaster, {"exp_avg."}, {"exp_avg_sq."}}) {
    if (name.starts_with(kind)) return std::string(kind.substr(0, kind.size() - 1));
  }
  return "tensors";
}

// The bf16 tensor whose name differs from a master's in the kind alone.
Bytes model_of_master(const StateFile& state, const Tensor& tensor) {
  if (!tensor.spec.name.starts_with(kMaster) || tensor.spec.dtype.bits != 32) return {};
  const auto found =
      state.tensors.find(std::string(kModel) + tensor.spec.name.substr(kMaster.size()));
  if (found == state.tensors.end()) return {};
  const Bytes model = found->second.bytes;
  return model.size() * 2 == tensor.bytes.size() ? model : Bytes();
}

struct Part {
  Bytes raw, base;
};

Status fill(Sample& sample, const std::vector<Part>& parts, uint64_t bytes_min) {
  uint64_t base_bytes = 0;
  for (const Part& part : parts) {
    sample.state_bytes += part.raw.size();
    base_bytes += part.base.size();
  }
  const uint64_t times = (bytes_min + sample.state_bytes - 1) / sample.state_bytes;
  sample.raw_bytes = times * sample.state_bytes;
  CAISSON_ASSIGN_OR_RETURN(sample.raw, AlignedBuffer::allocate(sample.raw_bytes, true));
  if (base_bytes != 0) {
    CAISSON_ASSIGN_OR_RETURN(sample.base, AlignedBuffer::allocate(times * base_bytes, true));
  }
  const uint64_t chunk_bytes = kChunkElements * sample.dtype.bits / 8;
  uint64_t at = 0, base_at = 0;
  for (uint64_t i = 0; i < times; ++i) {
    for (const Part& part : parts) {
      std::memcpy(sample.raw.data() + at, part.raw.data(), part.raw.size());
      if (!part.base.empty()) {
        std::memcpy(sample.base.data() + base_at, part.base.data(), part.base.size());
      }
      for (uint64_t done = 0; done < part.raw.size(); done += chunk_bytes) {
        const uint64_t bytes = std::min<uint64_t>(chunk_bytes, part.raw.size() - done);
        const uint64_t of_base = part.base.size() * bytes / part.raw.size();
        sample.chunks.push_back({at, bytes, base_at, of_base});
        at += bytes;
        base_at += of_base;
      }
    }
  }
  return ok_status();
}

}  // namespace

Result<std::vector<Sample>> load_samples(const std::string& path, const std::string& anchor,
                                         uint64_t bytes_min) {
  CAISSON_ASSIGN_OR_RETURN(const StateFile state, open_state(path));
  std::optional<StateFile> before;
  if (!anchor.empty()) {
    CAISSON_ASSIGN_OR_RETURN(before, open_state(anchor));
  }
  std::map<std::pair<std::string, int>, std::vector<Part>> kinds;
  std::map<std::pair<std::string, int>, DType> dtypes;
  for (const auto& [name, tensor] : state.tensors) {
    if (tensor.bytes.empty()) continue;
    Bytes base = model_of_master(state, tensor);
    if (before) {
      const auto found = before->tensors.find(name);
      if (found == before->tensors.end() || found->second.spec != tensor.spec) continue;
      base = found->second.bytes;
    }
    const auto key = std::pair(
        kind_of(name), static_cast<int>(tensor.spec.dtype.code) * 1000 + tensor.spec.dtype.bits);
    kinds[key].push_back({tensor.bytes, base});
    dtypes[key] = tensor.spec.dtype;
  }
  std::vector<Sample> samples;
  for (const auto& [key, parts] : kinds) {
    Sample sample{.kind = key.first, .dtype = dtypes[key]};
    CAISSON_RETURN_IF_ERROR(fill(sample, parts, bytes_min));
    samples.push_back(std::move(sample));
  }
  return samples;
}

}  // namespace caisson::bench

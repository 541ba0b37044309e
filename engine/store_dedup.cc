#include "engine/store_dedup.h"

#include <utility>

namespace caisson {

namespace {
constexpr uint64_t kFooterBytesMax = 64u << 20;
}  // namespace

std::optional<PlacedChunk> StoreDedup::find(const Digest& id, uint32_t raw_bytes) {
  const MutexLock lock(mutex_);
  for (const ChunkHint& hint : hints_.hints(id, raw_bytes)) {
    const KnownPack* pack = look_into(hint.pack);
    if (pack == nullptr) continue;
    const auto found = pack->by_offset.find(hint.offset_units);
    if (found == pack->by_offset.end()) continue;
    if (found->second.id != id || found->second.raw_bytes != raw_bytes) continue;
    return PlacedChunk{.entry = found->second,
                       .parent_pack = &pack->sealed,
                       .own_pack = {},
                       .source = ChunkSource::kStore};
  }
  return std::nullopt;
}

const StoreDedup::KnownPack* StoreDedup::look_into(const format::ObjectRef& pack) {
  if (const auto known = packs_.find(pack); known != packs_.end()) return known->second.get();
  if (packs_.size() >= kPacksMax) return nullptr;
  auto footer = read_footer(pack);
  std::unique_ptr<KnownPack> kept;
  if (footer.ok()) kept = std::make_unique<KnownPack>(std::move(footer).value());
  return packs_.emplace(pack, std::move(kept)).first->second.get();
}

Result<StoreDedup::KnownPack> StoreDedup::read_footer(const format::ObjectRef& pack) {
  CAISSON_ASSIGN_OR_RETURN(const auto reader, objects_.open(pack.key()));
  const uint64_t bytes = reader->bytes();
  if (bytes < 3 * format::kBlockBytes) return corruption(pack.key() + ": too short for a pack");
  ByteVector trailer(format::kBlockBytes);
  CAISSON_RETURN_IF_ERROR(reader->read(bytes - trailer.size(), trailer));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t at, format::footer_offset_of(pack, bytes, trailer));
  if (at >= bytes || bytes - at > kFooterBytesMax) {
    return corruption(pack.key() + ": impossible footer");
  }
  ByteVector footer(bytes - at);
  CAISSON_RETURN_IF_ERROR(reader->read(at, footer));
  CAISSON_ASSIGN_OR_RETURN(const format::PackFooter decoded,
                           format::decode_pack_footer(pack, bytes, footer));
  KnownPack known{.sealed = {.object = pack, .bytes = bytes, .digest = decoded.digest}};
  for (const format::Segment& segment : decoded.segments) {
    for (const format::ChunkEntry& entry : segment.entries) {
      // The pack of a delta's base does not show in the entry, so our root could not list it.
      if (is_whole_in_its_pack(entry)) known.by_offset.emplace(entry.offset_units, entry);
    }
  }
  return known;
}

}  // namespace caisson

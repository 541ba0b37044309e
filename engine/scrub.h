// Verify: reads what a checkpoint needs and reports everything that is not as it was written.
// Called by the command-line tool. Thread-compatible; bounded memory; reads packs at the device's
// speed, each once however many checkpoints share it.
//
// Depths, each with all of the ones before:
//   structure  root, part trailers, directory, coverage, pack footers and lengths; every entry is
//              one that its pack's footer knows
//   checksums  every block of every object: part and directory digests, segment directories, the
//              stored form of every chunk
//   full       every chunk decoded and compared with its content id
#pragma once

#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "caisson/options.h"
#include "engine/manifest.h"
#include "engine/pack_scan.h"
#include "io/base/buffer.h"

namespace caisson {

enum class ScrubDepth : uint8_t { kStructure, kChecksums, kFull };
// "structure", "checksums", "full".
Result<ScrubDepth> scrub_depth_from_name(std::string_view name);

struct ScrubFinding {
  std::string checkpoint{};  // "run/step"; empty for objects that belong to none
  std::string object{};      // key
  uint64_t offset = 0;
  std::string id{};      // content id in hex; empty where no chunk is concerned
  std::string tensor{};  // where known
  std::string what{};
  bool damage = true;  // false: harmless, such as an object that nothing refers to
};

struct ScrubReport {
  std::vector<ScrubFinding> findings;  // the first findings_max
  uint64_t damaged = 0;                // findings in all, by kind
  uint64_t harmless = 0;
  uint64_t checkpoints = 0;
  uint64_t objects = 0;  // that were opened
  uint64_t tensors = 0;
  uint64_t chunks = 0;  // entries at structure, stored chunks read at the other depths
  uint64_t bytes_read = 0;
};

struct ScrubOptions {
  ScrubDepth depth = ScrubDepth::kChecksums;
  size_t findings_max = 1000;
  ProgressFn progress;  // in stored bytes of the checkpoint that is being checked
  std::stop_token stop;
};

class Scrubber {
 public:
  Scrubber(ObjectStore& objects, MemoryBudget& budget, ScrubOptions options);

  // Damage is a finding, not an error: an error says that the check could not be made (cancelled,
  // out of memory, an unsupported format).
  Status check_checkpoint(const std::string& name, const format::SealedRef& root);
  // Takes back the damage that the last check_checkpoint reported: the checkpoint was given up
  // while it was checked, or has another root now. A pack that others share is read again for them.
  void retract_damage();
  // Reports, as harmless, what lies under data/ and tmp/ but belongs neither to a checkpoint
  // checked so far nor to one of `saves` (those in progress). Call after all checkpoints.
  Status find_orphans(std::span<const Uuid> saves);

  const ScrubReport& report() const { return report_; }

 private:
  // Where a chunk finding lies in the manifest, so that its tensor can be named afterwards.
  struct Place {
    size_t finding = 0;
    uint32_t part = UINT32_MAX;  // unknown: found by the pack's place
    uint64_t entry = 0;
  };

  // Turns damage into a finding; gives back what is not damage.
  Status note(const Status& status, const std::string& object, uint64_t offset);
  Status note_unopened(const format::SealedRef& root, const Status& why);
  Status read_tables(Manifest& manifest);
  void add(ScrubFinding finding);
  void add_chunk(ScrubFinding finding, uint32_t part, uint64_t entry);
  Status check_stop() const;

  Status check_parts(const Manifest& manifest);
  Status check_directory(Manifest& manifest);
  Status check_entries(Manifest& manifest);
  Status check_part_entries(Manifest& manifest, uint32_t part);
  Status check_entry(Manifest& manifest, uint32_t part, uint64_t index,
                     const format::ChunkEntry& entry);
  Status check_bodies(Manifest& manifest);
  Status check_digest(const format::SealedRef& object, uint64_t bytes, const Digest& expected);
  Status check_packs();
  Status name_tensors(Manifest& manifest);
  Status find_places(Manifest& manifest);

  ObjectStore& objects_;
  MemoryBudget& budget_;
  const ScrubOptions options_;
  ScrubReport report_;
  ObjectReads reads_;
  PackFooters footers_;
  std::string checkpoint_;     // being checked
  format::PackTables tables_;  // of its root
  // Of the report when that began.
  size_t findings_before_ = 0;
  uint64_t damaged_before_ = 0;
  std::vector<Place> places_;
  std::set<std::string> needed_;                        // keys that checked checkpoints need
  std::map<format::ObjectRef, std::string> bad_packs_;  // -> the checkpoint that reported it
  std::set<format::ObjectRef> read_packs_;
};

}  // namespace caisson

#include "client/maintenance.h"

#include <utility>

#include "client/store_context.h"
#include "engine/live_read.h"

namespace caisson {

namespace {

using Json = nlohmann::ordered_json;

Result<std::vector<Checkpoint>> select(const LogState& state, std::span<const std::string> names) {
  std::vector<Checkpoint> selected;
  if (names.empty()) {
    for (const auto& [seq, checkpoint] : state.checkpoints()) selected.push_back(checkpoint);
    return selected;
  }
  for (const std::string& name : names) {
    CAISSON_ASSIGN_OR_RETURN(Checkpoint checkpoint, find_checkpoint(state, name));
    selected.push_back(std::move(checkpoint));
  }
  return selected;
}

// kFenced: it was given up meanwhile, and what the check found missing is no damage.
Status verify_one(Log& log, Scrubber& scrubber, Checkpoint checkpoint) {
  for (;;) {
    const uint64_t before = scrubber.report().damaged;
    CAISSON_RETURN_IF_ERROR(scrubber.check_checkpoint(checkpoint.name(), checkpoint.root));
    if (scrubber.report().damaged == before) return ok_status();
    const Status damage = corruption("objects of it are missing or damaged");
    auto now = after_failed_read(log, checkpoint, damage);
    if (now.ok()) {
      scrubber.retract_damage();
      checkpoint = std::move(now).value();
      continue;
    }
    if (now.status().code() != StatusCode::kFenced) return ok_status();  // damage it is
    scrubber.retract_damage();
    return now.status();
  }
}

Json json_of(const GcCount& count) { return {{"objects", count.objects}, {"bytes", count.bytes}}; }

const char* name_of(ScrubDepth depth) {
  switch (depth) {
    case ScrubDepth::kStructure:
      return "structure";
    case ScrubDepth::kChecksums:
      return "checksums";
    case ScrubDepth::kFull:
      break;
  }
  return "full";
}

}  // namespace

Result<ScrubReport> verify_store(ObjectStore& objects, Log& log, MemoryBudget& budget,
                                 std::span<const std::string> names, const ScrubOptions& options,
                                 const std::function<void(const std::string&)>& left_out) {
  CAISSON_ASSIGN_OR_RETURN(const auto state, log.refresh());
  CAISSON_ASSIGN_OR_RETURN(const std::vector<Checkpoint> checkpoints, select(*state, names));
  Scrubber scrubber(objects, budget, options);
  for (const Checkpoint& checkpoint : checkpoints) {
    const Status checked = verify_one(log, scrubber, checkpoint);
    if (checked.code() != StatusCode::kFenced || !names.empty()) {
      CAISSON_RETURN_IF_ERROR(checked);
    } else if (left_out) {
      left_out(checkpoint.name());
    }
  }
  if (names.empty()) {
    std::vector<Uuid> in_progress;
    for (const auto& [save, open] : log.state()->open_saves()) in_progress.push_back(save);
    CAISSON_RETURN_IF_ERROR(scrubber.find_orphans(in_progress));
  }
  return scrubber.report();
}

Json document_of(const ScrubReport& report, ScrubDepth depth) {
  Json findings = Json::array();
  for (const ScrubFinding& finding : report.findings) {
    findings.push_back({{"checkpoint", finding.checkpoint},
                        {"object", finding.object},
                        {"offset", finding.offset},
                        {"id", finding.id},
                        {"tensor", finding.tensor},
                        {"what", finding.what},
                        {"damage", finding.damage}});
  }
  return {{"schema", "caisson.verify/1"},      {"depth", name_of(depth)},
          {"checkpoints", report.checkpoints}, {"objects", report.objects},
          {"tensors", report.tensors},         {"chunks", report.chunks},
          {"bytes_read", report.bytes_read},   {"damaged", report.damaged},
          {"harmless", report.harmless},       {"findings", std::move(findings)}};
}

Json document_of(const GcReport& report, bool dry_run) {
  Json open = Json::array();
  for (const GcOpenSave& save : report.open_saves) {
    open.push_back({{"checkpoint", save.run + "/" + std::to_string(save.step)},
                    {"save", to_hex(save.save)},
                    {"host", save.writer.host},
                    {"pid", save.writer.pid},
                    {"opened_unix_ns", save.writer.unix_ns},
                    {"provably_dead", save.provably_dead},
                    {"written", json_of(save.written)}});
  }
  return {{"schema", "caisson.gc/1"},
          {"dry_run", dry_run},
          {"reclaimed", json_of(report.reclaimed)},
          {"kept", json_of(report.kept)},
          {"unknown", json_of(report.unknown)},
          {"saves_closed", report.saves_closed},
          {"saves_condemned", report.saves_condemned},
          {"objects_condemned", report.objects_condemned},
          {"temporary_removed", report.temporary_removed},
          {"open_saves", std::move(open)}};
}

}  // namespace caisson

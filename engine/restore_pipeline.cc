#include "engine/restore_pipeline.h"

#include <algorithm>
#include <string>
#include <thread>
#include <utility>

#include "engine/metrics.h"
#include "engine/pack_scan.h"
#include "engine/restore_memory.h"
#include "engine/restore_plan.h"
#include "engine/restore_request.h"
#include "engine/restore_worker.h"
#include "engine/verify_hint.h"

namespace caisson {

namespace {

// What is smaller, with its neighbours, faults as it is filled.
constexpr uint64_t kPrefaultBytesMin = 1u << 20;

// Whether the gaps between its runs are small. Those of others are not ours to make resident.
bool is_dense(const WantedBox& target, DType dtype) {
  return memory_range(target.memory, dtype).size() / 2 <=
         target.memory.box.elements() * dtype.bits / 8;
}

// Which targets a device may write to without a detour; see PlannedRead::in_place.
void find_hugepages(RestoreRequest& request) {
  HugePages hugepages;
  std::vector<MutableBytes> others;
  for (WantedBox& target : request.targets) {
    const DType dtype = request.tensors[target.tensor].spec.dtype;
    const MutableBytes range = memory_range(target.memory, dtype);
    target.hugepages = hugepages.hold(range);
    if (!target.hugepages && is_dense(target, dtype)) others.push_back(range);
  }
  std::ranges::sort(others, {}, [](MutableBytes range) { return range.data(); });
  for (const MutableBytes range : join_neighbours(others)) (void)hugepages.offer(range);
}

// Twins without their weights, as when only an optimizer is restored: the footers of the packs say
// which chunk precedes each. Where one cannot be read, or it is another chunk, nothing is lost: the
// decoder reads the base that the twin names.
void find_bases(ObjectStore& objects, Manifest& manifest,
                std::span<const PlanBuilder::LoneTwin> twins, PlanBuilder& builder) {
  ObjectReads reads(objects);
  PackFooters footers(reads);
  for (const PlanBuilder::LoneTwin& twin : twins) {
    if (twin.object >= manifest.packs().size()) continue;
    const auto footer = footers.get(manifest.packs().at(twin.object));
    if (!footer.ok()) continue;
    const format::ChunkEntry* const before = chunk_before(**footer, twin.offset);
    if (before == nullptr || uint64_t{before->raw_bytes} * 2 != twin.raw_bytes) continue;
    if ((before->flags & format::kFlagHasBase) == 0) builder.add_base(twin.object, *before);
  }
}

// So that reads of several devices are in flight together: each device's reads keep their order,
// and come as often as there are many.
void alternate_devices(const ObjectStore& objects, Manifest& manifest,
                       std::vector<PlannedRead>& reads) {
  struct Place {
    uint32_t device = 0;
    double share = 0;  // of its device's reads, that come before
  };
  std::vector<Place> places(reads.size());
  std::vector<uint64_t> counts(objects.devices(), 0);
  for (size_t i = 0; i < reads.size(); ++i) {
    const format::SealedRef& object = object_of(manifest.root(), manifest.packs(), reads[i].object);
    places[i].device = objects.device_of(object.object.key());
    places[i].share = static_cast<double>(counts[places[i].device]++);
  }
  std::vector<size_t> order(reads.size());
  for (size_t i = 0; i < reads.size(); ++i) {
    places[i].share /= static_cast<double>(counts[places[i].device]);
    order[i] = i;
  }
  std::ranges::stable_sort(order, {}, [&](size_t i) { return places[i].share; });
  std::vector<PlannedRead> alternating;
  alternating.reserve(reads.size());
  for (const size_t i : order) alternating.push_back(reads[i]);
  reads = std::move(alternating);
}

Result<RestorePlan> plan_reads(ObjectStore& objects, Manifest& manifest,
                               const RestoreRequest& request) {
  const format::Root& root = manifest.root();
  const std::string name = root.run + "/" + std::to_string(root.step);
  PlanBuilder builder(root, manifest.packs());
  for (const EntryRange& range : entry_ranges(request.uses)) {
    CAISSON_ASSIGN_OR_RETURN(const std::vector<format::ChunkEntry> entries,
                             manifest.entries(range.part, range.first, range.count));
    for (size_t i = range.first_use; i < range.end_use; ++i) {
      const PieceUse& use = request.uses[i];
      const WantedBox& target = request.targets[use.target];
      const Status fits = builder.add(use, request.tensors[target.tensor], target,
                                      entries[static_cast<size_t>(use.entry - range.first)]);
      if (fits.ok()) continue;
      return corruption(name + ": " + std::string(fits.message()) + verify_hint(name, "structure"));
    }
  }
  if (const auto lone = builder.lone_twins(); !lone.empty()) {
    find_bases(objects, manifest, lone, builder);
  }
  RestorePlan plan = std::move(builder).finish();
  if (objects.devices() > 1) alternate_devices(objects, manifest, plan.reads);
  return plan;
}

// The memory of the targets, as it will be filled.
std::vector<MutableBytes> memory_in_order(const RestorePlan& plan, const RestoreRequest& request) {
  std::vector<MutableBytes> ranges;
  std::vector<bool> seen(request.targets.size(), false);
  for (const Placement& placement : plan.placements) {
    if (seen[placement.target]) continue;
    seen[placement.target] = true;
    const WantedBox& target = request.targets[placement.target];
    const DType dtype = request.tensors[target.tensor].spec.dtype;
    if (is_dense(target, dtype)) ranges.push_back(memory_range(target.memory, dtype));
  }
  ranges = join_neighbours(ranges);
  std::erase_if(ranges, [](MutableBytes range) { return range.size() < kPrefaultBytesMin; });
  return ranges;
}

void count(const RestoreReport& report, Metrics::State& metrics) {
  metrics.restore_raw_bytes.add(report.raw_bytes);
  metrics.restore_stored_bytes.add(report.stored_bytes);
  metrics.restore_read_bytes.add(report.read_bytes);
  metrics.retried_chunks.add(report.retried_chunks);
}

}  // namespace

Result<RestoreReport> restore_boxes(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                                    std::span<const TensorTarget> targets,
                                    const RestoreOptions& options, Trace* trace, Metrics* metrics) {
  // 1 manifest: every name and box is checked before anything is read.
  CAISSON_ASSIGN_OR_RETURN(RestoreRequest request, resolve_targets(manifest, targets));
  find_hugepages(request);

  // 2 plan: which chunks, in the order of the device, each once.
  CAISSON_ASSIGN_OR_RETURN(const RestorePlan plan, plan_reads(objects, manifest, request));

  // 3 read, 4 decode, 5 verify, 6 place: restore_reads.
  RestoreRun run(objects, manifest, request, plan, options, trace, metrics);
  CAISSON_RETURN_IF_ERROR(run.check_stop());
  const auto workers =
      static_cast<uint32_t>(std::min<uint64_t>(std::max(options.workers, 1u), plan.reads.size()));
  const auto work = [&] {
    const Status status = restore_reads(run, budget, workers);
    if (!status.ok()) run.fail(status);
  };
  {
    const Prefault prefault(memory_in_order(plan, request));
    std::vector<std::jthread> helpers;
    for (uint32_t i = 1; i < workers; ++i) helpers.emplace_back(work);
    if (workers > 0) work();
  }
  CAISSON_RETURN_IF_ERROR(run.status());
  const RestoreReport report{.raw_bytes = request.raw_bytes,
                             .stored_bytes = plan.stored_bytes,
                             .read_bytes = plan.read_bytes,
                             .chunks = plan.chunks.size(),
                             .reads = plan.reads.size(),
                             .retried_chunks = run.retried_chunks.load()};
  if (metrics != nullptr) count(report, metrics->state());
  return report;
}

}  // namespace caisson

#include "client/restorer.h"

#include <memory>

#include "engine/restore_pipeline.h"
#include "engine/verify_hint.h"

namespace caisson {

Status restore_targets(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                       std::span<const TensorTarget> targets, const RestoreOptions& options,
                       Trace* trace, Metrics* metrics) {
  return restore_boxes(objects, manifest, budget, targets, options, trace, metrics).status();
}

Result<ByteVector> read_blob(ObjectStore& objects, Manifest& manifest, MemoryBudget& budget,
                             const std::string& blob) {
  const format::Root& root = manifest.root();
  const std::string name = root.run + "/" + std::to_string(root.step);
  CAISSON_ASSIGN_OR_RETURN(const std::shared_ptr<const TensorRecord> record, manifest.find(blob));
  if (record == nullptr) {
    return not_found(name + " has no blob \"" + blob + "\"; next: caisson show STORE " + name);
  }
  if (record->kind != TensorKind::kBlob) {
    return invalid_argument(name + ": \"" + blob + "\" is a tensor, not a blob; restore it as one");
  }
  const Shape& shape = record->spec.shape;
  const uint64_t bytes = shape.rank == 1 ? shape.dims[0] : UINT64_MAX;
  if (bytes > root.raw_bytes) {  // before so many are allocated
    return corruption(name + ": blob \"" + blob + "\" is larger than the whole checkpoint" +
                      verify_hint(name, "structure"));
  }
  ByteVector content(static_cast<size_t>(bytes));
  const TensorTarget target{
      .name = blob, .box = Box::whole(shape), .data = content.data(), .strides_bytes = {}};
  CAISSON_RETURN_IF_ERROR(restore_targets(objects, manifest, budget, {&target, 1}, {}));
  return content;
}

}  // namespace caisson

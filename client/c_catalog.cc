// caisson/c.h: what a store holds, and restores. The lists are arrays of structs that point into
// what the engine gave.
#include <algorithm>
#include <utility>

#include "client/c_future.h"
#include "client/c_handles.h"

struct caisson_checkpoint_list {
  std::vector<caisson::CheckpointInfo> infos;
  std::vector<caisson_checkpoint> items;
};

struct caisson_tensor_list {
  std::vector<caisson::TensorInfo> infos;
  std::vector<caisson_box> boxes;  // of all shards, tensor by tensor
  std::vector<caisson_tensor> items;
};

namespace caisson::c {

namespace {

caisson_checkpoint checkpoint_of(const CheckpointInfo& info) {
  return {.struct_size = sizeof(caisson_checkpoint),
          .latest = static_cast<uint8_t>(info.latest),
          .rolled_back = static_cast<uint8_t>(info.rolled_back),
          .reserved = {},
          .name = info.name.c_str(),
          .run = info.run.c_str(),
          .metadata_json = info.metadata_json.c_str(),
          .problem = info.problem.c_str(),
          .step = info.step,
          .epoch = info.epoch,
          .commit_seq = info.commit_seq,
          .created_unix_ns = info.created_unix_ns,
          .tensors = info.tensors,
          .ranks = info.ranks,
          .raw_bytes = info.raw_bytes,
          .stored_bytes = info.stored_bytes};
}

caisson_tensor tensor_of(const TensorInfo& info) {
  caisson_tensor tensor{.struct_size = sizeof(caisson_tensor),
                        .dtype_code = static_cast<uint8_t>(info.spec.dtype.code),
                        .dtype_bits = info.spec.dtype.bits,
                        .rank = static_cast<uint8_t>(info.spec.shape.rank),
                        .blob = static_cast<uint8_t>(info.blob),
                        .name = info.spec.name.c_str(),
                        .alias_of = info.alias_of.c_str(),
                        .raw_bytes = info.raw_bytes,
                        .shape = {},
                        .tile = {},
                        .shards_count = info.shards.size(),
                        .shards = nullptr,
                        .shard_ranks = info.ranks.data()};
  std::ranges::copy(info.spec.shape.extents(), tensor.shape);
  std::ranges::copy(info.tile.extents(), tensor.tile);
  return tensor;
}

caisson_box box_of(const Box& box) {
  caisson_box copy{};
  std::copy_n(box.offset.begin(), box.rank, copy.offset);
  std::copy_n(box.extent.begin(), box.rank, copy.extent);
  return copy;
}

caisson_tensor_list* make_list(std::vector<TensorInfo> infos) {
  auto list = std::make_unique<caisson_tensor_list>();
  list->infos = std::move(infos);
  size_t boxes = 0;
  for (const TensorInfo& info : list->infos) boxes += info.shards.size();
  list->boxes.reserve(boxes);  // so that pointers into it stay
  list->items.reserve(list->infos.size());
  for (const TensorInfo& info : list->infos) {
    list->items.push_back(tensor_of(info));
    list->items.back().shards = list->boxes.data() + list->boxes.size();
    for (const Box& box : info.shards) list->boxes.push_back(box_of(box));
  }
  return list.release();
}

}  // namespace
}  // namespace caisson::c

using caisson::c::Answer;
using caisson::c::call;
using caisson::c::check_out;
using caisson::c::check_store;
using caisson::c::TaskResult;
using caisson::c::text_argument;

extern "C" {

int32_t caisson_restore_start(caisson_store* store, const char* name, const caisson_target* targets,
                              uint64_t targets_count, const caisson_restore_options* options,
                              caisson_future** future, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(future, "future"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(name, "name"));
    CAISSON_ASSIGN_OR_RETURN(auto read, caisson::c::read_targets(targets, targets_count));
    CAISSON_ASSIGN_OR_RETURN(caisson::RestoreOptions wanted, caisson::c::read_options(options));
    caisson::c::TaskOptions task{.store = store->store,
                                 .progress = std::make_shared<caisson::c::ProgressCell>(),
                                 .stop = {},
                                 .gate = nullptr};
    wanted.progress = caisson::c::callback_into(task.progress);
    wanted.stop = task.stop.get_token();
    const auto restore = [opened = store->store.get(), text, wanted,
                          read = std::move(read)]() -> caisson::Result<TaskResult> {
      CAISSON_RETURN_IF_ERROR(opened->restore(text, read, wanted));
      return TaskResult{};
    };
    *future = caisson::c::run_task(std::move(task), restore).release();
    return {};
  });
}

int32_t caisson_read_blob(caisson_store* store, const char* name, const char* blob,
                          caisson_bytes** bytes, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(bytes, "bytes"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(name, "name"));
    CAISSON_ASSIGN_OR_RETURN(const std::string which, text_argument(blob, "blob"));
    CAISSON_ASSIGN_OR_RETURN(const auto content, store->store->read_blob(text, which));
    *bytes =
        caisson::c::make_bytes({reinterpret_cast<const char*>(content.data()), content.size()});
    return {};
  });
}

int32_t caisson_checkpoints(caisson_store* store, const char* name, caisson_checkpoint_list** list,
                            caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(list, "list"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    auto made = std::make_unique<caisson_checkpoint_list>();
    if (name != nullptr) {
      CAISSON_ASSIGN_OR_RETURN(caisson::CheckpointInfo info, store->store->info(name));
      made->infos.push_back(std::move(info));
    } else {
      CAISSON_ASSIGN_OR_RETURN(made->infos, store->store->checkpoints());
    }
    std::ranges::transform(made->infos, std::back_inserter(made->items), caisson::c::checkpoint_of);
    *list = made.release();
    return {};
  });
}

const caisson_checkpoint* caisson_checkpoint_list_items(const caisson_checkpoint_list* list,
                                                        uint64_t* count) {
  if (count != nullptr) *count = list != nullptr ? list->items.size() : 0;
  return list != nullptr ? list->items.data() : nullptr;
}

void caisson_checkpoint_list_free(caisson_checkpoint_list* list) { delete list; }

int32_t caisson_tensors(caisson_store* store, const char* name, const char* glob,
                        caisson_tensor_list** list, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(list, "list"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(name, "name"));
    CAISSON_ASSIGN_OR_RETURN(auto infos, store->store->tensors(text, glob != nullptr ? glob : "*"));
    *list = caisson::c::make_list(std::move(infos));
    return {};
  });
}

const caisson_tensor* caisson_tensor_list_items(const caisson_tensor_list* list, uint64_t* count) {
  if (count != nullptr) *count = list != nullptr ? list->items.size() : 0;
  return list != nullptr ? list->items.data() : nullptr;
}

void caisson_tensor_list_free(caisson_tensor_list* list) { delete list; }

int32_t caisson_dtype_from_name(const char* name, uint8_t* code, uint8_t* bits,
                                caisson_error** error) {
  return call(error, [&]() -> Answer {
    if (code == nullptr || bits == nullptr) {
      return caisson::invalid_argument("code or bits is null: where to put them?");
    }
    CAISSON_ASSIGN_OR_RETURN(const std::string text, text_argument(name, "name"));
    CAISSON_ASSIGN_OR_RETURN(const caisson::DType dtype, caisson::dtype_from_name(text));
    *code = static_cast<uint8_t>(dtype.code);
    *bits = dtype.bits;
    return {};
  });
}

}  // extern "C"

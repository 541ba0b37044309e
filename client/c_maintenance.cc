// caisson/c.h: verify, gc and metrics.
#include "caisson/metrics.h"
#include "client/c_future.h"
#include "client/c_handles.h"
#include "client/maintenance.h"
#include "client/open_store.h"
#include "client/store_context.h"

using caisson::c::Answer;
using caisson::c::call;
using caisson::c::check_out;
using caisson::c::check_store;
using caisson::c::TaskResult;

extern "C" {

int32_t caisson_verify_start(caisson_store* store, const char* const* names, uint64_t names_count,
                             const char* depth, caisson_future** future, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(future, "future"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(const std::vector<std::string> wanted,
                             caisson::c::read_texts(names, names_count, "name"));
    caisson::ScrubOptions options;
    CAISSON_ASSIGN_OR_RETURN(
        options.depth, caisson::scrub_depth_from_name(depth != nullptr ? depth : "checksums"));
    caisson::c::TaskOptions task{.store = store->store,
                                 .progress = std::make_shared<caisson::c::ProgressCell>(),
                                 .stop = {},
                                 .gate = nullptr};
    options.progress = caisson::c::callback_into(task.progress);
    options.stop = task.stop.get_token();
    CAISSON_ASSIGN_OR_RETURN(caisson::StoreContext* const context,
                             caisson::context_of(*store->store));
    const auto verify = [context, wanted, options]() -> caisson::Result<TaskResult> {
      CAISSON_ASSIGN_OR_RETURN(const caisson::ScrubReport report,
                               caisson::verify_store(context->objects(), context->log(),
                                                     context->budget(), wanted, options));
      return TaskResult{.report = {}, .text = caisson::document_of(report, options.depth).dump()};
    };
    *future = caisson::c::run_task(std::move(task), verify).release();
    return {};
  });
}

int32_t caisson_gc_start(caisson_store* store, int32_t dry_run, caisson_future** future,
                         caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(future, "future"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    CAISSON_ASSIGN_OR_RETURN(caisson::StoreContext* const context,
                             caisson::context_of(*store->store));
    const caisson::GcOptions options{.dry_run = dry_run != 0};
    const auto collect = [context, options]() -> caisson::Result<TaskResult> {
      if (!options.dry_run) CAISSON_RETURN_IF_ERROR(context->check_writable());
      CAISSON_RETURN_IF_ERROR(context->log().refresh().status());
      CAISSON_ASSIGN_OR_RETURN(const caisson::GcReport report,
                               caisson::run_gc(context->objects(), context->log(), options));
      return TaskResult{.report = {}, .text = caisson::document_of(report, options.dry_run).dump()};
    };
    caisson::c::TaskOptions task{.store = store->store,
                                 .progress = std::make_shared<caisson::c::ProgressCell>(),
                                 .stop = {},
                                 .gate = nullptr};
    *future = caisson::c::run_task(std::move(task), collect).release();
    return {};
  });
}

int32_t caisson_store_metrics(caisson_store* store, caisson_bytes** text, caisson_error** error) {
  return call(error, [&]() -> Answer {
    CAISSON_RETURN_IF_ERROR(check_out(text, "text"));
    CAISSON_RETURN_IF_BAD(check_store(store));
    *text = caisson::c::make_bytes(store->metrics->to_prometheus());
    return {};
  });
}

}  // extern "C"

#include "client/saver.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "client/checkpoint_name.h"
#include "client/glob.h"
#include "engine/commit.h"
#include "engine/copy_box.h"
#include "engine/save_codec.h"
#include "engine/tiling.h"

namespace caisson {

namespace {

using SteadyTime = std::chrono::steady_clock::time_point;
constexpr size_t kMetadataBytesMax = 16u << 20;
constexpr uint64_t kStageAlignment = 64;
constexpr uint64_t kStageBytesMax = 1ull << 47;  // an address space

double seconds_since(SteadyTime start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Status check_metadata(const std::string& text) {
  if (text.size() > kMetadataBytesMax) {
    return invalid_argument("metadata_json has " + std::to_string(text.size()) + " bytes, " +
                            std::to_string(kMetadataBytesMax) + " are allowed; save it as a blob");
  }
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return ok_status();
  return invalid_argument("metadata_json must be a JSON object, such as {\"loss\": 2.5}");
}

struct NewName {
  std::string run;
  uint64_t step = 0;
};
Result<NewName> parse_new_name(const std::string& name) {
  CAISSON_ASSIGN_OR_RETURN(const CheckpointName parsed, parse_checkpoint_name(name));
  if (parsed.commit) {
    return invalid_argument("\"" + name + "\": a new checkpoint has no log record yet");
  }
  if (parsed.step) return NewName{.run = parsed.run, .step = *parsed.step};
  return invalid_argument("\"" + name + "\": a save needs a step; latest is what it becomes");
}

Status refuse_taken(const NewName& name) {
  return already_exists("checkpoint " + name.run + "/" + std::to_string(name.step) +
                        " exists; choose another step, or overwrite it (--overwrite)");
}

// The checkpoint that the save is compared with, if any.
Result<std::optional<Checkpoint>> find_parent(const LogState& state, const std::string& run,
                                              const SaveOptions& options) {
  std::optional<Checkpoint> parent;
  if (!options.dedup) return parent;
  if (!options.base.empty()) {
    CAISSON_ASSIGN_OR_RETURN(parent, find_checkpoint(state, options.base));
  } else if (const Checkpoint* latest = state.latest(run); latest != nullptr) {
    parent = *latest;
  }
  return parent;
}

class RankSave final : public SaveTransaction {
 public:
  RankSave(StoreContext& context, const Ticket& ticket, uint32_t rank, std::string warning,
           std::unique_ptr<SavePipeline> pipeline)
      : context_(context), ticket_(ticket), rank_(rank), pipeline_(std::move(pipeline)) {
    report_.warning = std::move(warning);
    report_.name = ticket.run + "/" + std::to_string(ticket.step);
  }

  // Every byte has been read when it returns, so SaveOptions::stage needs no copy here.
  Status put(const SaveInput& input) override {
    Status status = put_items(own_input(input).items);
    context_.count_end(Operation::kSave, status);
    return status;
  }

  Status put_items(std::span<const SaveItem> items) {
    CAISSON_RETURN_IF_ERROR(context_.check_process());
    const Status status = pipeline_->put(items);
    update_report();
    return status;
  }

  Result<SealedPart> seal() override {
    auto sealed = seal_part();
    context_.count_end(Operation::kSave, sealed.status());
    return sealed;
  }

  Result<SealedPart> seal_part() {
    CAISSON_RETURN_IF_ERROR(context_.check_process());
    CAISSON_ASSIGN_OR_RETURN(const format::SealedRef part, pipeline_->seal());
    update_report();
    if (context_.metrics() != nullptr) {
      context_.metrics()->state().part_seconds.observe(std::chrono::steady_clock::now() - started_);
    }
    return SealedPart{.token = encode_part_token({.save = ticket_.save,
                                                  .rank = rank_,
                                                  .part = part,
                                                  .tiles = report_.tiles,
                                                  .raw_bytes = report_.raw_bytes,
                                                  .deduplicated_bytes = report_.deduplicated_bytes,
                                                  .stored_bytes = report_.stored_bytes})};
  }

  const SaveReport& report() const override { return report_; }

 private:
  void update_report() {
    const SaveTotals& totals = pipeline_->totals();
    report_.tensors = totals.tensors;
    report_.tiles = totals.tiles;
    report_.raw_bytes = totals.raw_bytes;
    report_.deduplicated_bytes = totals.deduplicated_bytes;
    report_.stored_bytes = totals.stored_bytes;
    report_.codecs = totals.codecs;
    report_.seconds = seconds_since(started_);
    if (const Status error = pipeline_->parent_error(); !error.ok()) {
      report_.warning = "saved without comparing with the parent: " + error.to_string();
    }
  }

  StoreContext& context_;
  const Ticket ticket_;
  const uint32_t rank_;
  const std::unique_ptr<SavePipeline> pipeline_;
  const SteadyTime started_ = std::chrono::steady_clock::now();
  SaveReport report_;
};

Result<std::unique_ptr<RankSave>> make_rank_save(StoreContext& context, const Ticket& ticket,
                                                 uint32_t rank, const SaveOptions& options) {
  SavePipeline::Config config{.save = ticket.save,
                              .rank = rank,
                              .parent = nullptr,
                              .hints = options.dedup ? context.hints() : nullptr,
                              .codec = options.codec,
                              .codec_cpu = options.codec_cpu,
                              .codec_deterministic = options.codec_deterministic,
                              .delta = {},
                              .workers = options.workers,
                              .memory_check = options.memory_check,
                              .progress = options.progress,
                              .stop = options.stop,
                              .trace = context.trace(),
                              .metrics = context.metrics()};
  if (!options.delta.empty() && options.codec == "auto") {
    config.delta = [glob = options.delta](std::string_view name) {
      return matches_glob(glob, name);
    };
  }
  std::string warning;
  if (ticket.parent) {
    // A parent that cannot be read costs space, not the new checkpoint: the save goes on.
    auto parent = context.manifest(*ticket.parent);
    if (parent.ok()) {
      config.parent = *parent;
    } else {
      warning = "saved without comparing with the parent: " + parent.status().to_string();
    }
  }
  CAISSON_ASSIGN_OR_RETURN(auto pipeline, SavePipeline::create(context.objects(), context.budget(),
                                                               context.uuids(), std::move(config)));
  return std::make_unique<RankSave>(context, ticket, rank, std::move(warning), std::move(pipeline));
}

}  // namespace

OwnedInput own_input(const SaveInput& input) {
  OwnedInput owned;
  owned.items.reserve(input.tensors.size() + input.blobs.size() + input.aliases.size());
  for (const TensorShard& shard : input.tensors) {
    owned.items.push_back({.kind = TensorKind::kTensor, .shard = shard, .alias_of = {}});
  }
  for (const BlobView& blob : input.blobs) owned.items.push_back(blob_item(blob.name, blob.bytes));
  for (const Alias& alias : input.aliases) {
    owned.items.push_back(alias_item(alias.name, alias.target));
  }
  return owned;
}

Result<bool> stage_input(StoreContext& context, OwnedInput& input) {
  // Checked here as far as the copy relies on it; the pipeline checks everything.
  const auto check = [](const TensorShard& shard) -> Result<uint64_t> {
    CAISSON_RETURN_IF_ERROR(check_dtype(shard.tensor.dtype));
    CAISSON_RETURN_IF_ERROR(element_count(shard.tensor.shape).status());
    CAISSON_RETURN_IF_ERROR(check_box(shard.tensor, shard.box));
    const auto rank = static_cast<size_t>(shard.box.rank);
    if (!shard.strides_bytes.empty() && shard.strides_bytes.size() != rank) {
      return invalid_argument("needs a stride for each dimension, or none");
    }
    // gather() takes such memory as contiguous, and the copy below would hide that it was not.
    if (shard.tensor.dtype.bits % 8 != 0 && !shard.strides_bytes.empty() &&
        shard.strides_bytes != contiguous_strides(shard.box, shard.tensor.dtype)) {
      return invalid_argument("elements of less than a byte must lie contiguous");
    }
    CAISSON_ASSIGN_OR_RETURN(const uint64_t bytes,
                             packed_bytes(shard.box.elements(), shard.tensor.dtype));
    if (bytes > 0 && shard.data == nullptr) return invalid_argument("no data");
    return bytes;
  };
  std::vector<uint64_t> sizes;
  uint64_t total = 0;
  for (const SaveItem& item : input.items) {
    uint64_t bytes = 0;
    if (item.kind != TensorKind::kAlias) {
      const auto checked = check(item.shard);
      if (!checked.ok()) {
        return checked.status().with_context("tensor \"" + item.shard.tensor.name + "\"");
      }
      bytes = *checked;
    }
    sizes.push_back(bytes);
    // Strides of zero describe more than any memory holds.
    if (bytes > kStageBytesMax - total) {
      return out_of_memory(
          "staging copies every byte, and these are more than any memory holds; save without");
    }
    total += align_up(bytes, kStageAlignment);
  }
  if (total == 0) return true;
  auto arena = context.take_staging(total);
  if (arena.status().code() == StatusCode::kOutOfMemory) return false;
  CAISSON_ASSIGN_OR_RETURN(input.arena, std::move(arena));
  uint64_t at = 0;
  for (size_t i = 0; i < input.items.size(); ++i) {
    if (sizes[i] == 0) continue;
    TensorShard& shard = input.items[i].shard;
    const BoxMemory from{.box = shard.box,
                         .data = const_cast<std::byte*>(shard.data),  // only read: gather
                         .strides_bytes = shard.strides_bytes.empty()
                                              ? contiguous_strides(shard.box, shard.tensor.dtype)
                                              : shard.strides_bytes};
    const MutableBytes to = input.arena.bytes().subspan(at, sizes[i]);
    gather(from, shard.box, shard.tensor.dtype, to);
    shard.data = to.data();
    shard.strides_bytes.clear();
    at += align_up(sizes[i], kStageAlignment);
  }
  return true;
}

Status check_save(StoreContext& context, const std::string& name, const SaveOptions& options) {
  CAISSON_ASSIGN_OR_RETURN(const NewName parsed, parse_new_name(name));
  CAISSON_RETURN_IF_ERROR(check_metadata(options.metadata_json));
  CAISSON_RETURN_IF_ERROR(check_codec_policy(options.codec));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t epoch, context.epoch_of(parsed.run));
  CAISSON_ASSIGN_OR_RETURN(const auto state, context.log().refresh());
  const Checkpoint* taken = state->find(parsed.run, parsed.step);
  if (!options.overwrite && taken != nullptr && !taken->rolled_back) {
    return refuse_taken(parsed);
  }
  const auto run = state->runs().find(parsed.run);
  if (run == state->runs().end() || run->second.epoch == epoch) return ok_status();
  return fenced("run \"" + parsed.run + "\" was claimed by process " +
                std::to_string(run->second.claimed_by.pid) + " on " + run->second.claimed_by.host +
                " since this one did; claim it again only if that one is gone");
}

Result<Ticket> begin_save(StoreContext& context, const std::string& name,
                          const SaveOptions& options) {
  CAISSON_RETURN_IF_ERROR(check_save(context, name, options));
  CAISSON_ASSIGN_OR_RETURN(const NewName parsed, parse_new_name(name));
  CAISSON_ASSIGN_OR_RETURN(const uint64_t epoch, context.epoch_of(parsed.run));
  Ticket ticket{.store = context.uuid(),
                .save = context.uuids().next(),
                .run = parsed.run,
                .step = parsed.step,
                .epoch = epoch,
                .parent = std::nullopt};
  const auto opened = context.log().append([&](const LogState& state) -> Result<format::LogBody> {
    const Checkpoint* taken = state.find(parsed.run, parsed.step);
    if (!options.overwrite && taken != nullptr && !taken->rolled_back) {
      return refuse_taken(parsed);
    }
    CAISSON_ASSIGN_OR_RETURN(const auto parent, find_parent(state, parsed.run, options));
    format::OpenRecord open{
        .save = ticket.save, .run = parsed.run, .step = parsed.step, .epoch = epoch, .bases = {}};
    ticket.parent.reset();
    if (parent) {
      open.bases.push_back(parent->seq);
      ticket.parent = parent->root;
    }
    CAISSON_RETURN_IF_ERROR(state.check(open));
    return format::LogBody(open);
  });
  if (!opened.ok()) return opened.status().with_context("save of " + name);
  return ticket;
}

Result<std::unique_ptr<SaveTransaction>> join_save(StoreContext& context, const Ticket& ticket,
                                                   uint32_t rank, const SaveOptions& options) {
  if (ticket.store != context.uuid()) {
    return invalid_argument("the ticket was given out by another store");
  }
  CAISSON_RETURN_IF_ERROR(check_codec_policy(options.codec));
  CAISSON_ASSIGN_OR_RETURN(const auto state, context.log().refresh());
  const auto open = state->open_saves().find(ticket.save);
  if (open == state->open_saves().end()) {
    return fenced("save " + to_hex(ticket.save) + " of " + ticket.run + "/" +
                  std::to_string(ticket.step) +
                  " is not open any more: it was committed, ended, or its run was claimed");
  }
  CAISSON_ASSIGN_OR_RETURN(auto made, make_rank_save(context, ticket, rank, options));
  return std::unique_ptr<SaveTransaction>(std::move(made));
}

Result<SaveReport> commit_save(StoreContext& context, const Ticket& ticket, uint32_t ranks,
                               std::span<const SealedPart> parts, const SaveOptions& options) {
  const auto started = std::chrono::steady_clock::now();
  if (ticket.store != context.uuid()) {
    return invalid_argument("the ticket was given out by another store");
  }
  CAISSON_RETURN_IF_ERROR(check_metadata(options.metadata_json));
  SaveReport report;
  report.name = ticket.run + "/" + std::to_string(ticket.step);
  std::vector<format::SealedRef> sealed;
  for (const SealedPart& part : parts) {
    CAISSON_ASSIGN_OR_RETURN(const PartToken token, decode_part_token(part.token));
    sealed.push_back(token.part);
    report.tiles += token.tiles;
    report.deduplicated_bytes += token.deduplicated_bytes;
  }
  const CommitPlan plan{.save = ticket.save,
                        .run = ticket.run,
                        .step = ticket.step,
                        .epoch = ticket.epoch,
                        .ranks = ranks,
                        .overwrite = options.overwrite,
                        .metadata_json = options.metadata_json,
                        .trace = context.trace().get()};
  CAISSON_ASSIGN_OR_RETURN(const CommitOutcome outcome,
                           commit_checkpoint(context.objects(), context.log(), context.uuids(),
                                             context.clock(), plan, sealed));
  report.tensors = outcome.tensors;
  report.raw_bytes = outcome.raw_bytes;
  report.stored_bytes = outcome.stored_bytes;
  report.seconds = seconds_since(started);
  if (context.metrics() != nullptr) {
    context.metrics()->state().commit_seconds.observe(std::chrono::steady_clock::now() - started);
  }
  // The checkpoint is committed whether or not this works; the next opening reads a longer log.
  (void)context.log().snapshot_if_due();
  return report;
}

Status abort_save(StoreContext& context, const Ticket& ticket) {
  return close_save(context.log(), ticket.save);
}

Result<SaveReport> save_whole(StoreContext& context, const std::string& name,
                              std::span<const SaveItem> items, const SaveOptions& options) {
  CAISSON_ASSIGN_OR_RETURN(const Ticket ticket, begin_save(context, name, options));
  const auto write_part = [&]() -> Result<std::pair<SealedPart, SaveReport>> {
    SaveOptions rank_options = options;
    if (options.stage) rank_options.memory_check = MemoryCheck::kOff;  // what is read is our copy
    CAISSON_ASSIGN_OR_RETURN(const auto rank, make_rank_save(context, ticket, 0, rank_options));
    CAISSON_RETURN_IF_ERROR(rank->put_items(items));
    CAISSON_ASSIGN_OR_RETURN(SealedPart part, rank->seal_part());
    if (options.stop.stop_requested()) return cancelled("the save was cancelled");
    return std::pair(std::move(part), rank->report());
  };
  const auto part = write_part();
  if (!part.ok()) {
    (void)abort_save(context, ticket);  // spares gc the wait; the error that counts is the first
    return part.status().with_context("save of " + name);
  }
  CAISSON_ASSIGN_OR_RETURN(SaveReport report,
                           commit_save(context, ticket, 1, {&part->first, 1}, options));
  report.codecs = part->second.codecs;
  report.warning = part->second.warning;
  return report;
}

}  // namespace caisson

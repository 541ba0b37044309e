#include "tests/model/log_tree.h"

#include <set>

#include "tests/support/log_records.h"

namespace caisson::model {

namespace {

format::CommitSeq latest_of(const LogState& state, const std::string& run) {
  const auto known = state.runs().find(run);
  return known == state.runs().end() ? 0 : known->second.latest;
}

}  // namespace

LogTree::LogTree() {
  nodes_.push_back(std::make_unique<Node>());
  nodes_[0]->state = std::make_shared<const LogState>();
}

LogId LogTree::prefix(LogId log, uint32_t length) const {
  return length == 0 ? 0 : node(log).path[length - 1];
}

LogId LogTree::append(LogId log, const format::LogBody& body, uint8_t writer) {
  auto made = std::make_unique<Node>();
  made->record = {.seq = length(log) + 1,
                  .nonce = numbered_uuid(writer),
                  .writer = {.host = "model", .pid = writer},
                  .body = body};
  const auto [child, is_new] = children_.try_emplace({log, format::encode_log_record(made->record)},
                                                     static_cast<LogId>(nodes_.size()));
  if (!is_new) return child->second;
  const LogState& before = state(log);
  made->had_effect = before.check(body).ok();
  auto after = std::make_shared<LogState>(before);
  after->apply(made->record);
  made->state = std::move(after);
  made->path = node(log).path;
  made->path.push_back(child->second);
  made->fault = fault_of(before, *made);
  nodes_.push_back(std::move(made));
  return child->second;
}

std::string LogTree::fault_of(const LogState& before, const Node& node) {
  const LogState& after = *node.state;
  std::set<std::string> names;
  for (const auto& [seq, checkpoint] : after.checkpoints()) {
    if (!names.insert(checkpoint.name()).second) {
      return "two live checkpoints are called " + checkpoint.name();
    }
  }
  const auto* replace = std::get_if<format::ReplaceRecord>(&node.record.body);
  if (replace != nullptr && node.had_effect) {
    const Checkpoint& was = before.checkpoints().at(replace->checkpoint);
    if (!(was.root == replace->old_root)) {
      return "the root of " + was.name() + " was replaced by one that was made from an older root";
    }
  }
  for (const auto& [save, open] : after.open_saves()) {
    if (open.epoch != after.runs().at(open.run).epoch) {
      return "save " + to_hex(save) + " is open in epoch " + std::to_string(open.epoch) +
             " of a run that is past it";
    }
  }
  for (const auto& [name, run] : after.runs()) {
    const auto known = before.runs().find(name);
    const uint64_t epoch = known == before.runs().end() ? 0 : known->second.epoch;
    const auto* claim = std::get_if<format::ClaimRecord>(&node.record.body);
    if (run.epoch != epoch + (claim != nullptr && node.had_effect ? 1 : 0)) {
      return "the epoch went from " + std::to_string(epoch) + " to " + std::to_string(run.epoch);
    }
    const format::CommitSeq was = latest_of(before, name);
    format::CommitSeq expected = was;
    if (node.had_effect) {
      if (claim != nullptr) expected = claim->base;
      if (std::holds_alternative<format::CommitRecord>(node.record.body)) expected = after.seq();
      const auto* prune = std::get_if<format::PruneRecord>(&node.record.body);
      if (prune != nullptr && prune->checkpoint == was) {
        expected = before.checkpoints().at(was).parent;
      }
    }
    if (run.latest != expected) {
      return "latest went from " + std::to_string(was) + " to " + std::to_string(run.latest) +
             " instead of " + std::to_string(expected);
    }
  }
  return {};
}

}  // namespace caisson::model

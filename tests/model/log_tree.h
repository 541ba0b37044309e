// Every log that a search has met, as a tree of records with the real LogState at each node. What
// can be said of a log alone is checked when its node is made. Thread-compatible.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/log_state.h"

namespace caisson::model {

using LogId = uint32_t;  // a node: the log that ends there. 0: the empty log

class LogTree {
 public:
  LogTree();

  uint32_t length(LogId log) const { return static_cast<uint32_t>(node(log).path.size()); }
  // The log that is the first `length` records of `log`.
  LogId prefix(LogId log, uint32_t length) const;
  const LogState& state(LogId log) const { return *node(log).state; }
  // REQUIRES: log is not empty.
  const format::LogRecord& last(LogId log) const { return node(log).record; }
  // True when the record changed the state, that is, was valid.
  bool last_had_effect(LogId log) const { return node(log).had_effect; }
  // The log with one record more.
  LogId append(LogId log, const format::LogBody& body, uint8_t writer);
  // What is wrong with the log by itself; empty: nothing.
  const std::string& fault(LogId log) const { return node(log).fault; }
  size_t size() const { return nodes_.size(); }

 private:
  struct Node {
    format::LogRecord record;
    std::vector<LogId> path;  // of the nodes from the first record to this one
    std::shared_ptr<const LogState> state;
    bool had_effect = false;
    std::string fault;
  };
  const Node& node(LogId log) const { return *nodes_[log]; }
  static std::string fault_of(const LogState& before, const Node& node);

  std::vector<std::unique_ptr<Node>> nodes_;
  std::map<std::pair<LogId, ByteVector>, LogId> children_;
};

}  // namespace caisson::model

// Every rule of the log, in two halves: check_record says whether a record may follow, apply_record
// what it does. docs/commit.md, "What each record needs and does", is the same list in words.
#include "engine/log_state.h"

#include <algorithm>
#include <utility>

#include "io/base/check.h"
#include "io/base/mutant.h"

namespace caisson {

using format::CommitSeq;
using format::ObjectRef;
using format::SealedRef;

namespace {

std::string name_of(std::string_view run, uint64_t step) {
  return std::string(run) + "/" + std::to_string(step);
}

std::string describe(const format::WriterInfo& writer) {
  return "process " + std::to_string(writer.pid) + " on " +
         (writer.host.empty() ? std::string("an unnamed host") : writer.host);
}

bool refers_to(const OpenSave& open, const Uuid& save) {
  return std::any_of(open.base_roots.begin(), open.base_roots.end(),
                     [&](const SealedRef& root) { return root.object.save == save; });
}

}  // namespace

// ---- questions

const Checkpoint* LogState::find(std::string_view run, uint64_t step) const {
  const auto named = names_.find(Name(run, step));
  return named == names_.end() ? nullptr : &live_.at(named->second);
}

const Checkpoint* LogState::latest(std::string_view run) const {
  const auto known = runs_.find(run);
  if (known == runs_.end() || known->second.latest == 0) return nullptr;
  return &live_.at(known->second.latest);
}

bool LogState::is_condemned(const ObjectRef& object) const {
  return condemned_saves_.contains(object.save) || condemned_.contains(object);
}

std::vector<SealedRef> LogState::roots_to_keep() const {
  std::vector<SealedRef> roots;
  roots.reserve(live_.size());
  for (const auto& [seq, checkpoint] : live_) roots.push_back(checkpoint.root);
  for (const auto& [save, open] : open_) {
    if (CAISSON_MUTANT(gc_keeps_bases)) continue;
    roots.insert(roots.end(), open.base_roots.begin(), open.base_roots.end());
  }
  const auto by_object = [](const SealedRef& a, const SealedRef& b) { return a.object < b.object; };
  std::sort(roots.begin(), roots.end(), by_object);
  const auto same = [](const SealedRef& a, const SealedRef& b) { return a.object == b.object; };
  roots.erase(std::unique(roots.begin(), roots.end(), same), roots.end());
  return roots;
}

bool LogState::is_known(const Uuid& save) const {
  return open_.contains(save) || committed_.contains(save) || ended_.contains(save) ||
         condemned_saves_.contains(save);
}

bool LogState::holds_root_to_keep(const Uuid& save) const {
  if (committed_.contains(save)) return true;
  if (CAISSON_MUTANT(gc_keeps_bases)) return false;
  return std::any_of(open_.begin(), open_.end(),
                     [&](const auto& open) { return refers_to(open.second, save); });
}

// ---- may it follow?

Status LogState::check(const format::LogBody& body) const {
  return std::visit([this](const auto& record) { return check_record(record); }, body);
}

Status LogState::check_open(const Uuid& save, std::string_view run) const {
  if (open_.contains(save)) return ok_status();
  const std::string which = "save " + to_hex(save);
  if (const auto done = committed_.find(save); done != committed_.end()) {
    return already_exists(which + " is committed already, as checkpoint " +
                          live_.at(done->second).name() + " by log record " +
                          std::to_string(done->second));
  }
  if (!is_known(save)) return not_found(which + " was never opened in this store");
  const auto known = runs_.find(run);
  if (known == runs_.end()) return fenced(which + " is over");
  return fenced(which + " is over: it was closed, or run \"" + std::string(run) +
                "\" was claimed (its owner is now " + describe(known->second.claimed_by) +
                ", epoch " + std::to_string(known->second.epoch) +
                "); save again if this process is to go on with the run");
}

Status LogState::check_new_root(const SealedRef& root, const Uuid& save) const {
  if (root.object.kind != format::ObjectKind::kRoot || root.object.save != save) {
    return invalid_argument(root.object.key() + " is not a root of save " + to_hex(save));
  }
  if (is_condemned(root.object)) return fenced(root.object.key() + " was condemned by gc");
  return ok_status();
}

Status LogState::check_record(const format::OpenRecord& open) const {
  if (open.save.is_zero()) return invalid_argument("a save needs a uuid");
  if (is_known(open.save)) return already_exists("save " + to_hex(open.save) + " exists");
  const auto known = runs_.find(open.run);
  if (known == runs_.end()) {
    return invalid_argument("run \"" + open.run + "\" was never claimed; claim it first");
  }
  if (known->second.epoch != open.epoch && !CAISSON_MUTANT(open_needs_epoch)) {
    return fenced("run \"" + open.run + "\" is at epoch " + std::to_string(known->second.epoch) +
                  ", this writer holds " + std::to_string(open.epoch) + "; its owner is now " +
                  describe(known->second.claimed_by));
  }
  for (const CommitSeq base : open.bases) {
    if (live_.contains(base) || CAISSON_MUTANT(open_needs_live_bases)) continue;
    return not_found("the base of save " + name_of(open.run, open.step) + ", log record " +
                     std::to_string(base) + ", is not a live checkpoint; it may just have been " +
                     "pruned: choose another base");
  }
  return ok_status();
}

Status LogState::check_record(const format::ClaimRecord& claim) const {
  if (claim.run.empty()) return invalid_argument("a run needs a name");
  const auto known = runs_.find(claim.run);
  const uint64_t epoch = known == runs_.end() ? 0 : known->second.epoch;
  if (claim.epoch != epoch + 1 && !CAISSON_MUTANT(claim_needs_next_epoch)) {
    return fenced("run \"" + claim.run + "\" is at epoch " + std::to_string(epoch) +
                  "; the next claim is " + std::to_string(epoch + 1) + ", not " +
                  std::to_string(claim.epoch));
  }
  if (claim.base == 0) return ok_status();
  const auto base = live_.find(claim.base);
  if (base == live_.end() || base->second.run != claim.run) {
    return not_found("log record " + std::to_string(claim.base) +
                     " is not a live checkpoint of run \"" + claim.run +
                     "\"; choose another one to continue from");
  }
  return ok_status();
}

Status LogState::check_record(const format::CommitRecord& commit) const {
  if (CAISSON_MUTANT(commit_needs_open_save)) return check_new_root(commit.root, commit.save);
  CAISSON_RETURN_IF_ERROR(check_open(commit.save, commit.run));
  const OpenSave& open = open_.at(commit.save);
  if (open.run != commit.run || open.step != commit.step || open.epoch != commit.epoch) {
    return invalid_argument(
        "save " + to_hex(commit.save) + " was opened as " + name_of(open.run, open.step) +
        " in epoch " + std::to_string(open.epoch) + ", not as " + name_of(commit.run, commit.step) +
        " in epoch " + std::to_string(commit.epoch));
  }
  CAISSON_RETURN_IF_ERROR(check_new_root(commit.root, commit.save));
  const Checkpoint* taken = find(commit.run, commit.step);
  if (taken != nullptr && !taken->rolled_back && !commit.replaces_same_step &&
      !CAISSON_MUTANT(commit_needs_free_name)) {
    return already_exists("checkpoint " + taken->name() + " exists, committed by log record " +
                          std::to_string(taken->seq) + "; choose another step, or overwrite it");
  }
  return ok_status();
}

Status LogState::check_record(const format::PruneRecord& prune) const {
  if (live_.contains(prune.checkpoint)) return ok_status();
  return not_found("log record " + std::to_string(prune.checkpoint) +
                   " is not a live checkpoint; it may have been pruned already");
}

Status LogState::check_record(const format::CondemnRecord& condemn) const {
  if (condemn.objects.empty() && condemn.saves.empty()) {
    return invalid_argument("a condemn record must condemn something");
  }
  for (const Uuid& save : condemn.saves) {
    if (!ended_.contains(save)) {
      return invalid_argument("save " + to_hex(save) + " has not ended, or is condemned already");
    }
    if (holds_root_to_keep(save)) {
      return invalid_argument("save " + to_hex(save) + " holds the base of an open save");
    }
  }
  for (const ObjectRef& object : condemn.objects) {
    if (!is_known(object.save) || open_.contains(object.save)) {
      return invalid_argument(object.key() + " belongs to a save that has not ended");
    }
    if (object.kind != format::ObjectKind::kRoot) continue;
    const auto live = committed_.find(object.save);
    const bool is_live = live != committed_.end() && live_.at(live->second).root.object == object;
    const bool is_base = std::any_of(open_.begin(), open_.end(), [&](const auto& open) {
      return std::any_of(open.second.base_roots.begin(), open.second.base_roots.end(),
                         [&](const SealedRef& root) { return root.object == object; });
    });
    if (is_live || is_base) return invalid_argument(object.key() + " is a root in use");
  }
  return ok_status();
}

Status LogState::check_record(const format::CloseRecord& close) const {
  return check_open(close.save, {});
}

Status LogState::check_record(const format::ReplaceRecord& replace) const {
  const auto live = live_.find(replace.checkpoint);
  if (live == live_.end()) {
    return not_found("log record " + std::to_string(replace.checkpoint) +
                     " is not a live checkpoint; it may have been pruned");
  }
  const Checkpoint& checkpoint = live->second;
  if (!(checkpoint.root == replace.old_root) && !CAISSON_MUTANT(replace_needs_current_root)) {
    return fenced("the root of " + checkpoint.name() + " is now " + checkpoint.root.object.key() +
                  ", another replacement came first");
  }
  const Uuid& save = replace.new_root.object.save;
  if (CAISSON_MUTANT(replace_needs_open_save)) return check_new_root(replace.new_root, save);
  CAISSON_RETURN_IF_ERROR(check_open(save, checkpoint.run));
  const OpenSave& open = open_.at(save);
  if (open.run != checkpoint.run || open.step != checkpoint.step) {
    return invalid_argument("save " + to_hex(save) + " was opened as " +
                            name_of(open.run, open.step) + ", not as " + checkpoint.name());
  }
  return check_new_root(replace.new_root, save);
}

// ---- what it does

void LogState::apply(const format::LogRecord& record) {
  CAISSON_CHECK(record.seq == seq_ + 1);
  const bool valid = check(record.body).ok();
  seq_ = record.seq;
  if (!valid) return;
  std::visit([&](const auto& body) { apply_record(record, body); }, record.body);
}

void LogState::apply_record(const format::LogRecord& record, const format::OpenRecord& open) {
  OpenSave& save = open_[open.save];
  save = {.save = open.save,
          .run = open.run,
          .step = open.step,
          .epoch = open.epoch,
          .bases = open.bases,
          .base_roots = {},
          .opened_seq = record.seq,
          .writer = record.writer};
  for (const CommitSeq base : open.bases) {
    const auto live = live_.find(base);
    if (live != live_.end()) save.base_roots.push_back(live->second.root);
  }
}

void LogState::apply_record(const format::LogRecord& record, const format::ClaimRecord& claim) {
  RunState& run = runs_[claim.run];
  if (CAISSON_MUTANT(claim_sets_latest) && run.latest != 0) {
    run.epoch = claim.epoch;
    return;
  }
  if (run.latest != claim.base) mark_line_of(claim.run, claim.base);
  run = {.epoch = claim.epoch, .latest = claim.base, .claimed_by = record.writer};
  std::erase_if(open_, [&](const auto& open) {
    if (open.second.run != claim.run || CAISSON_MUTANT(claim_fences)) return false;
    ended_.insert(open.first);
    return true;
  });
}

// The checkpoints of `run` that `base` descends from are its line; all others are rolled back.
void LogState::mark_line_of(const std::string& run, CommitSeq base) {
  for (auto it = live_.rbegin(); it != live_.rend(); ++it) {
    Checkpoint& checkpoint = it->second;
    if (checkpoint.run != run) continue;
    checkpoint.rolled_back = checkpoint.seq != base;
    if (checkpoint.seq == base) base = checkpoint.parent;  // a parent is always older
  }
}

void LogState::apply_record(const format::LogRecord& record, const format::CommitRecord& commit) {
  const Checkpoint* taken = find(commit.run, commit.step);
  if (taken != nullptr && !CAISSON_MUTANT(commit_needs_free_name)) retire(taken->seq);
  RunState& run = runs_.at(commit.run);
  live_[record.seq] = {.seq = record.seq,
                       .save = commit.save,
                       .run = commit.run,
                       .step = commit.step,
                       .epoch = commit.epoch,
                       .root = commit.root,
                       .writer = record.writer,
                       .parent = run.latest,
                       .rolled_back = false};
  if (run.latest != 0) children_.emplace(run.latest, record.seq);
  run.latest = record.seq;
  names_[Name(commit.run, commit.step)] = record.seq;
  committed_[commit.save] = record.seq;
  open_.erase(commit.save);
}

void LogState::apply_record(const format::LogRecord&, const format::PruneRecord& prune) {
  retire(prune.checkpoint);
}

// A checkpoint stops being live; its line closes over the gap.
void LogState::retire(CommitSeq seq) {
  const auto found = live_.find(seq);
  const Checkpoint gone = std::move(found->second);
  live_.erase(found);
  names_.erase(Name(gone.run, gone.step));
  committed_.erase(gone.save);
  ended_.insert(gone.save);
  children_.erase({gone.parent, seq});
  for (auto it = children_.lower_bound({seq, 0}); it != children_.end() && it->first == seq;) {
    live_.at(it->second).parent = gone.parent;
    if (gone.parent != 0) children_.emplace(gone.parent, it->second);
    it = children_.erase(it);
  }
  RunState& run = runs_.find(gone.run)->second;
  if (run.latest != seq) return;
  run.latest = gone.parent;
  if (CAISSON_MUTANT(prune_follows_the_line))
    run.latest = live_.empty() ? 0 : live_.rbegin()->first;
}

void LogState::apply_record(const format::LogRecord&, const format::CondemnRecord& condemn) {
  condemned_.insert(condemn.objects.begin(), condemn.objects.end());
  for (const Uuid& save : condemn.saves) {
    ended_.erase(save);
    condemned_saves_.insert(save);
  }
  // What a save's own entry says need not be said object by object.
  std::erase_if(condemned_,
                [&](const ObjectRef& object) { return condemned_saves_.contains(object.save); });
}

void LogState::apply_record(const format::LogRecord&, const format::CloseRecord& close) {
  open_.erase(close.save);
  ended_.insert(close.save);
}

void LogState::apply_record(const format::LogRecord&, const format::ReplaceRecord& replace) {
  Checkpoint& checkpoint = live_.at(replace.checkpoint);
  const Uuid& save = replace.new_root.object.save;
  committed_.erase(checkpoint.save);
  ended_.insert(checkpoint.save);
  checkpoint.root = replace.new_root;
  checkpoint.save = save;
  committed_[save] = checkpoint.seq;
  open_.erase(save);
  if (!CAISSON_MUTANT(bases_as_opened)) return;
  for (auto& [other, open] : open_) {
    std::replace(open.base_roots.begin(), open.base_roots.end(), replace.old_root,
                 replace.new_root);
  }
}

}  // namespace caisson

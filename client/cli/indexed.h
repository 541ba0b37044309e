// The store's index, opened and caught up, for the verbs that can use one. A verb answers the same
// without: the index only saves reading. Single-threaded.
#pragma once

#include <memory>
#include <string>

#include "client/cli/store_access.h"
#include "engine/index.h"
#include "io/base/bytes.h"

namespace caisson::cli {

// Fails when the index cannot be used now: another process has it open, or its directory cannot be
// written. That it was built from nothing is said on standard error, with the reason.
Result<std::unique_ptr<Index>> open_index(StoreAccess& access, const Session& session);
// Null then, and why is said on standard error.
std::unique_ptr<Index> index_if_any(StoreAccess& access, const Session& session);

// Answers from the index where it has them, else from the objects, and keeps what it found out for
// the next time. Closes the index at its end; an index that fails is said, given up, and rebuilt by
// the next verb.
class IndexedAnswers {
 public:
  IndexedAnswers(StoreAccess& access, const Session& session)
      : access_(access), session_(session), index_(index_if_any(access, session)) {}
  ~IndexedAnswers();
  IndexedAnswers(const IndexedAnswers&) = delete;
  IndexedAnswers& operator=(const IndexedAnswers&) = delete;

  // kFenced when the checkpoint was given up meanwhile.
  Result<CatalogEntry> catalog(const Checkpoint& checkpoint);

  // What `find_out` gives, now or earlier. `question` names objects that never change, by what they
  // were sealed with. An Answer has put_answer(ByteWriter&, const Answer&) and
  // get_answer(ByteReader&, Answer&) beside it; a change of those needs a new schema of the index.
  template <typename Answer, typename FindOut>
  Result<Answer> answer(const std::string& question, const FindOut& find_out) {
    if (const std::optional<std::string> known = recall(question); known.has_value()) {
      ByteReader in(as_bytes(*known));
      Answer answer;
      get_answer(in, answer);
      if (in.ok() && in.remaining() == 0) return answer;
    }
    CAISSON_ASSIGN_OR_RETURN(Answer answer, find_out());
    ByteWriter out;
    put_answer(out, answer);
    remember(question, out.bytes());
    return answer;
  }

 private:
  std::optional<std::string> recall(const std::string& question);
  void remember(const std::string& question, Bytes answer);
  void give_up(const Status& why);

  StoreAccess& access_;
  const Session& session_;
  std::unique_ptr<Index> index_;
};

}  // namespace caisson::cli

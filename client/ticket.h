// The two texts that travel between the processes of a save by many ranks: the ticket that
// begin_save gives, and the token of a sealed part. Hex of the format's envelope, so that a text
// that was cut or edited on its way is refused. They are exchanged between processes of one build;
// they are not part of the on-disk format. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "engine/format/names.h"

namespace caisson {

struct Ticket {
  Uuid store;
  Uuid save;
  std::string run;
  uint64_t step = 0;
  uint64_t epoch = 0;
  std::optional<format::SealedRef> parent;  // root of the checkpoint that is compared with
};
std::string encode_ticket(const Ticket& ticket);
Result<Ticket> decode_ticket(std::string_view text);

struct PartToken {
  Uuid save;
  uint32_t rank = 0;
  format::SealedRef part;
  uint64_t tiles = 0, raw_bytes = 0, deduplicated_bytes = 0, stored_bytes = 0;
};
std::string encode_part_token(const PartToken& token);
Result<PartToken> decode_part_token(std::string_view text);

}  // namespace caisson

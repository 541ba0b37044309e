#include "client/ticket.h"

#include "engine/format/record.h"

namespace caisson {

namespace {

constexpr std::string_view kTicketMagic = "CAISTKT1";
constexpr std::string_view kTokenMagic = "CAISTOK1";
constexpr size_t kTextBytesMax = 16 << 10;

std::optional<unsigned> digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a') + 10;
  return std::nullopt;
}

Result<ByteVector> from_hex(std::string_view text, std::string_view what) {
  const auto bad = [&] {
    return invalid_argument(std::string(what) +
                            " is not what was given out: it was cut or changed "
                            "on its way");
  };
  if (text.empty() || text.size() % 2 != 0 || text.size() > kTextBytesMax) return bad();
  ByteVector bytes;
  bytes.reserve(text.size() / 2);
  for (size_t i = 0; i < text.size(); i += 2) {
    const auto high = digit(text[i]);
    const auto low = digit(text[i + 1]);
    if (!high || !low) return bad();
    bytes.push_back(static_cast<std::byte>(*high << 4 | *low));
  }
  return bytes;
}

Status check_end(const ByteReader& in, std::string_view what) {
  if (in.ok() && in.remaining() == 0) return ok_status();
  return invalid_argument(std::string(what) + " is of another version of Caisson");
}

}  // namespace

std::string encode_ticket(const Ticket& ticket) {
  ByteWriter out;
  out.put_bytes(ticket.store.bytes);
  out.put_bytes(ticket.save.bytes);
  out.put_string(ticket.run);
  out.put(ticket.step);
  out.put(ticket.epoch);
  out.put(static_cast<uint8_t>(ticket.parent.has_value()));
  if (ticket.parent) format::put_sealed(out, *ticket.parent);
  return to_hex(format::encode_envelope(kTicketMagic, ticket.save, out.bytes()));
}

Result<Ticket> decode_ticket(std::string_view text) {
  CAISSON_ASSIGN_OR_RETURN(const ByteVector bytes, from_hex(text, "the ticket"));
  const auto envelope = format::decode_envelope(kTicketMagic, bytes, "the ticket");
  if (!envelope.ok()) return invalid_argument(envelope.status().to_string());
  ByteReader in(envelope->payload);
  Ticket ticket;
  ticket.store = format::get_uuid(in);
  ticket.save = format::get_uuid(in);
  ticket.run = in.get_string(kTextBytesMax);
  ticket.step = in.get<uint64_t>();
  ticket.epoch = in.get<uint64_t>();
  if (in.get<uint8_t>() != 0) ticket.parent = format::get_sealed(in);
  CAISSON_RETURN_IF_ERROR(check_end(in, "the ticket"));
  return ticket;
}

std::string encode_part_token(const PartToken& token) {
  ByteWriter out;
  out.put_bytes(token.save.bytes);
  out.put(token.rank);
  format::put_sealed(out, token.part);
  out.put(token.tiles);
  out.put(token.raw_bytes);
  out.put(token.deduplicated_bytes);
  out.put(token.stored_bytes);
  return to_hex(format::encode_envelope(kTokenMagic, token.part.object.writer, out.bytes()));
}

Result<PartToken> decode_part_token(std::string_view text) {
  CAISSON_ASSIGN_OR_RETURN(const ByteVector bytes, from_hex(text, "a sealed part's token"));
  const auto envelope = format::decode_envelope(kTokenMagic, bytes, "a sealed part's token");
  if (!envelope.ok()) return invalid_argument(envelope.status().to_string());
  ByteReader in(envelope->payload);
  PartToken token;
  token.save = format::get_uuid(in);
  token.rank = in.get<uint32_t>();
  token.part = format::get_sealed(in);
  token.tiles = in.get<uint64_t>();
  token.raw_bytes = in.get<uint64_t>();
  token.deduplicated_bytes = in.get<uint64_t>();
  token.stored_bytes = in.get<uint64_t>();
  CAISSON_RETURN_IF_ERROR(check_end(in, "a sealed part's token"));
  return token;
}

}  // namespace caisson

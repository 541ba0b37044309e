// Every decoder of the format behind one shape: valid samples, a way to make a mutated sample's
// checksums right again, and decode-then-encode. The table of hostile inputs and the fuzzers both
// run on it, so a decoder that is added here is in both. Thread-compatible.
#pragma once

#include <string_view>
#include <vector>

#include "caisson/result.h"
#include "io/base/bytes.h"

namespace caisson::testing {

struct DecoderCase {
  std::string_view name;
  std::vector<ByteVector> (*samples)();
  // Sets lengths and checksums to what the bytes now need, so that a mutation gets past them and
  // reaches the checks behind. Any bytes at all may be given.
  void (*reseal)(MutableBytes bytes);
  // The encoding of what `bytes` decode to. An encoder aborts on what its decoder should have
  // refused, which is how a missing check shows.
  Result<ByteVector> (*round_trip)(Bytes bytes);
};

const std::vector<DecoderCase>& decoder_cases();
// REQUIRES: there is a case of that name.
const DecoderCase& decoder_case(std::string_view name);

// What any input must obey: an error, or a value whose encoding decodes to itself. Aborts with a
// message otherwise. Returns whether the input was accepted.
bool check_decoder(const DecoderCase& decoder, Bytes input);

}  // namespace caisson::testing

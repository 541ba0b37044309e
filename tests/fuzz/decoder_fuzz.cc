// The fuzz target of one decoder, whose name is CAISSON_FUZZ_DECODER: the input as it is, and with
// its checksums made right.
#include "tests/fuzz/fuzz.h"
#include "tests/support/decoder_cases.h"

namespace caisson::testing {

std::vector<ByteVector> fuzz_seeds() { return decoder_case(CAISSON_FUZZ_DECODER).samples(); }

}  // namespace caisson::testing

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace caisson::testing;
  static const DecoderCase& decoder = decoder_case(CAISSON_FUZZ_DECODER);
  const caisson::Bytes input = std::as_bytes(std::span(data, size));
  check_decoder(decoder, input);
  caisson::ByteVector resealed(input.begin(), input.end());
  decoder.reseal(resealed);
  check_decoder(decoder, resealed);
  return 0;
}

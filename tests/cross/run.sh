#!/usr/bin/env bash
# run.sh SOURCE_DIRECTORY COMPILER EMULATOR: builds the kernels for another machine and checks them.
set -euo pipefail
cd "$1"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
"$2" -std=c++20 -O2 -Wall -Wextra -Wconversion -Wno-sign-conversion -Werror -fno-strict-aliasing -static \
  -I. -Iio/include -o "$scratch/check" tests/cross/kernels_check.cc \
  compression/plane_kernels.cc compression/plane_kernels_scalar.cc compression/plane_passes.cc compression/plane_kernels_neon.cc \
  compression/twin_kernels.cc compression/twin_kernels_neon.cc
"$3" "$scratch/check"

#!/usr/bin/env bash
# Runs the C11 program of the C ABI on a fresh store, and compares what the library exports with
# what the header declares. Usage: c_api.sh PROGRAM LIBRARY HEADER
set -euo pipefail
program=$1 library=$2 header=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$program" "$work/store"
# Every function of the header, under its version, and nothing else: no C++ name may leak out.
grep -oE '\bcaisson_[a-z_]+\(' "$header" | tr -d '(' | sort -u >"$work/declared"
nm -D --defined-only "$library" | awk '$2 != "A" {print $3}' | sort >"$work/exported"
if ! diff <(sed 's/$/@@CAISSON_1/' "$work/declared") "$work/exported"; then
  echo "what caisson/c.h declares (<) is not what $library exports (>)"
  exit 1
fi

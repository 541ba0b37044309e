#!/usr/bin/env bash
# smoke.sh SOURCE_DIRECTORY PYTHON LIBRARY: the training part of the demo as small as it gets: two ranks, one of them
# killed in a save, resumed in other and in the same world size, and its report. Exit code 77, "skipped", without PyTorch.
set -euo pipefail
source="$1" python="$2"
export CAISSON_LIBRARY="$3" PYTHONPATH="$source/client/python"
"$python" -c 'import torch' 2> /dev/null || { echo "no PyTorch in $python; ./dev setup installs it"; exit 77; }
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
fail() { printf 'smoke: %s\n' "$*" >&2; exit 1; }

"$python" "$source/tests/demo/training/story.py" --size tiny --report "$scratch/report.html" | tee "$scratch/said"
for claim in 'the torn save is not there' 'losses in world size 1 within' 'equal the uninterrupted run.s bit for bit'; do
  grep -q "^shown: .*$claim" "$scratch/said" || fail "it did not say: $claim"
done
for part in 'polyline class="reference"' 'class="kill"' 'class="stall"' 'class="stored"' '</html>'; do
  grep -q "$part" "$scratch/report.html" || fail "the report has no $part"
done

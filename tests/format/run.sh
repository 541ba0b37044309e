#!/usr/bin/env bash
# run.sh SOURCE_DIRECTORY: the golden store through the Python reader, then a damaged copy of it, which
# the reader must refuse. Exit code 77, "skipped", without the packages, which ./dev test installs.
set -euo pipefail
source="$1"
python="$source/.venv/bin/python"
[[ -x "$python" ]] || python=python3
"$python" -c 'import xxhash, zstandard' 2>/dev/null || { echo "no xxhash or zstandard"; exit 77; }
golden="$source/tests/golden/v1"
reader=("$python" "$source/tests/format/reader.py")

"$python" "$source/tests/format/bases.py"  # the specification's own examples
"$python" "$source/tests/format/sparse.py"
"${reader[@]}" "$golden/store" check "$golden/expected.json"
for coded in coded sparse; do
  "${reader[@]}" "$source/tests/golden/$coded/store" check "$source/tests/golden/$coded/expected.json"
done
spread="$source/tests/golden/v1-directories"
"${reader[@]}" "$spread/store?dirs=$spread/second" check "$golden/expected.json"
if "${reader[@]}" "$spread/store" check "$golden/expected.json" 2>/dev/null; then
  echo "a store was read whose second directory is not where its list says"
  exit 1
fi

scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
cp -r "$golden/store" "$scratch/store"
chmod -R u+w "$scratch/store"
# One bit of every object in turn that a live checkpoint needs, in the middle of it.
caught=0 objects=0
for object in "$scratch"/store/caisson.store "$scratch"/store/log/* "$scratch"/store/data/*/*.root \
    "$scratch"/store/data/*/*.dir; do
  objects=$((objects + 1))
  cp "$object" "$scratch/saved"
  "$python" - "$object" <<'PY'
import sys
data = bytearray(open(sys.argv[1], "rb").read())
data[len(data) // 2] ^= 4
open(sys.argv[1], "wb").write(data)
PY
  if ! "${reader[@]}" "$scratch/store" check "$golden/expected.json" >/dev/null 2>&1; then
    caught=$((caught + 1))
  fi
  cp "$scratch/saved" "$object"
done
# The objects of the pruned checkpoint, a root and a directory, are nobody's.
echo "$caught of $objects damaged objects refused, 2 of them are not in use"
(( caught == objects - 2 ))

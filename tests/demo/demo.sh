#!/usr/bin/env bash
# The main job on a real model's weights, with its figures. Every claim is checked; the first that
# does not hold ends the demo with a message and exit code 1. Called by `./dev demo`.
#
#   demo.sh CAISSON PYTHON MODEL.safetensors
#
# CAISSON_DEMO_DIR names the working directory (emptied first); CAISSON_DEMO_KEEP=1 keeps it.
set -euo pipefail
caisson="$(realpath "$1")"
python="$(realpath -s "$2")"
model="$(realpath "$3")"
here="$(dirname "$(realpath "${BASH_SOURCE[0]}")")"
work="${CAISSON_DEMO_DIR:-${TMPDIR:-/tmp}/caisson-demo-$UID}"
store="$work/store"
shown=()

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }
run() { printf '$ caisson %s\n' "${*//$work\//}"; "$caisson" "$@"; }
shows() { shown+=("$1"); printf 'shown: %s\n' "$1"; }
fail() { printf 'demo: NOT AS CLAIMED: %s\n' "$*" >&2; exit 1; }
# json FILE EXPRESSION: a value of a document, with `d` for the whole.
json() { "$python" -c 'import json,sys; d=json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$1" "$2"; }
sha() { sha256sum "$1" | cut -d' ' -f1; }
mb() { awk -v b="$1" 'BEGIN { printf "%.2f MB", b / 1e6 }'; }

[[ "$work" == */caisson-demo* ]] || fail "refusing to empty $work: call it caisson-demo..."
rm -rf "$work"
mkdir -p "$work/changed" "$work/other"
cleanup() { [[ -n "${CAISSON_DEMO_KEEP:-}" ]] || rm -rf "$work"; }
trap cleanup EXIT
began=$SECONDS

step "1. A pretrained model, imported by 4 rank processes that write one checkpoint"
printf 'model: %s, %s, sha256 %s\n' "$(basename "$model")" "$(mb "$(stat -c %s "$model")")" "$(sha "$model")"
run import "$store" minilm/0 "$model" --ranks 4
"$caisson" show "$store" minilm/0 --json > "$work/show.json"
[[ "$(json "$work/show.json" 'd["ranks"]')" == 4 ]] || fail "the checkpoint has not 4 rank parts"
[[ "$(json "$work/show.json" 'len({r for t in d["tensors"] for r in t["ranks"]})')" == 4 ]] ||
  fail "not every rank holds data"
shows "4 processes wrote one checkpoint of $(json "$work/show.json" 'sum(t["kind"] == "tensor" for t in d["tensors"])') tensors, $(mb "$(json "$work/show.json" 'd["raw_bytes"]')")"

step "2. What is in it, and that it is whole"
run ls "$store"
run show "$store" minilm/latest --depth 3
run verify "$store" --depth full
shows "every stored byte was read, decoded and compared with its content id"

step "3. A second checkpoint with one layer changed stores only that layer"
changed="$("$python" "$here/change_layer.py" "$model" "$work/changed/model.safetensors" encoder.layer.3.)"
printf 'changed in a copy of the file: encoder.layer.3.*, %s\n' "$(mb "$changed")"
"$caisson" import "$store" minilm/1 "$work/changed/model.safetensors" --ranks 4 --json > "$work/second.json"
stored="$(json "$work/second.json" 'd["stored_bytes"]')"
shared="$(json "$work/second.json" 'd["deduplicated_bytes"]')"
fresh="$(json "$work/second.json" 'd["raw_bytes"] - d["deduplicated_bytes"]')"
run ls "$store"
run diff "$store" minilm/0 minilm/1
"$caisson" diff "$store" minilm/0 minilm/1 --json > "$work/diff.json"
[[ "$(json "$work/diff.json" 'sum(c["changed_bytes"] for c in d["changes"])')" == "$changed" ]] ||
  fail "diff counts other changed bytes than were changed"
# A little more than the layer: checkpoints keep tiny tensors in their own tables.
(( fresh >= changed * 9 / 10 && fresh <= changed * 11 / 10 + 65536 )) ||
  fail "$fresh bytes were taken for new where $changed bytes changed"
(( stored > 0 && stored <= fresh + 65536 )) || fail "$stored bytes were stored for $fresh new ones"
shows "one layer of $(mb "$changed") changed: $(mb "$stored") stored, $(mb "$shared") shared"

step "4. A third save, killed with SIGKILL in the middle"
"$python" "$here/change_layer.py" "$model" "$work/other/model.safetensors" "" > /dev/null
before="$(find "$store/data" -type f -name '*.root' | wc -l)"
killed=no
for (( attempt = 0; attempt < 20 && ${#killed} == 2; ++attempt )); do
  ls "$store/data" | sort > "$work/saves.before"
  # Slowed by the scheduler alone: the save itself knows nothing of this demo.
  "$caisson" import "$store" "minilm/2" "$work/other/model.safetensors" --ranks 4 --quiet 2> "$work/killed.err" &
  writer=$!
  while kill -0 "$writer" 2> /dev/null; do
    fresh="$(ls "$store/data" | sort | comm -13 "$work/saves.before" - | head -n 1)"
    [[ -n "$fresh" ]] || continue
    bytes="$(du -s --block-size=1 "$store/data/$fresh" 2> /dev/null | cut -f1 || true)"
    if (( ${bytes:-0} > 1000000 )); then kill -9 "$writer" 2> /dev/null && break; fi
  done
  wait "$writer" 2> /dev/null && code=0 || code=$?
  if [[ $code == 137 ]]; then killed=yes; else
    # It was faster than the knife: take the checkpoint away and try again.
    "$caisson" rm "$store" minilm/2 && "$caisson" gc "$store" --quiet
  fi
done
[[ $killed == yes ]] || fail "the save always finished before it could be killed"
printf 'killed when its files took %s of the disk\n' "$(mb "${bytes:-0}")"
run ls "$store"
[[ "$("$caisson" ls "$store" --json | "$python" -c 'import json,sys; print(sum(c["step"] == 2 for c in json.load(sys.stdin)["checkpoints"]))')" == 0 ]] ||
  fail "the killed save is listed"
[[ "$(find "$store/data" -type f -name '*.root' | wc -l)" -ge "$before" ]] || fail "a root vanished"
run verify "$store" --depth full
shows "a save killed with SIGKILL left the store whole, and no torn checkpoint"
run gc "$store" --dry-run
"$caisson" gc "$store" --json > "$work/gc.json"
freed="$(json "$work/gc.json" 'd["reclaimed"]["bytes"]')"
printf 'gc freed %s\n' "$(mb "$freed")"
(( freed > 0 )) || fail "gc found nothing of the killed save"
run verify "$store" --depth full
shows "the half-written save was reclaimed: $(mb "$freed")"

step "5. Restored by 3 processes in another sharding: columns instead of rows"
run restore "$store" minilm/0 --out "$work/slices" --ranks 3 --shard-dim 1
"$python" "$here/check_slices.py" "$model" "$work/slices"
shows "saved by 4 ranks in rows, restored by 3 ranks in columns, equal element by element"

step "6. Exported again"
run export "$store" minilm/0 "$work/out.safetensors"
[[ "$(sha "$model")" == "$(sha "$work/out.safetensors")" ]] || fail "the export differs from the original"
shows "the exported file has the SHA-256 of the original, $(sha "$work/out.safetensors")"

step "What was shown, in $(( SECONDS - began )) s"
printf '  %s\n' "${shown[@]}"
run stat "$store"

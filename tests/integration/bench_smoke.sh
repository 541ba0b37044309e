#!/usr/bin/env bash
# Every case of `caisson bench` once, as small as it gets: that it runs, reports, compares with an
# earlier run, refuses what it should, and leaves nothing behind. Figures mean nothing here.
set -euo pipefail
caisson="$1"
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/device"
fail() { printf 'bench_smoke: %s\n' "$*" >&2; exit 1; }
nothing_left() { [[ -z "$(ls -A "$scratch/device")" ]] || fail "it left $(ls "$scratch/device")"; }

"$caisson" bench --list | grep -q '^save-unaligned' || fail "no list of cases"
"$caisson" bench "$scratch/device" --case all --size 64MiB --large-size 64MiB --store-size 128MiB \
  --rounds 1 --settle 0 --html "$scratch/report.html" --json > "$scratch/first.json"
nothing_left
for case in $("$caisson" bench --list | awk '/^[a-z]/ { print $1 }'); do
  grep -q "\"name\": \"$case\"" "$scratch/first.json" || fail "no case $case in the report"
done
grep -q '</html>' "$scratch/report.html" || fail "no page"

mkdir "$scratch/second"
"$caisson" bench "$scratch/device?dirs=$scratch/second" --case save --case restore --case mmap --case save-ranks \
  --size 64MiB --rounds 1 --settle 0 --quiet > "$scratch/spread.txt" || fail "no bench of two directories"
grep -q 'left out: mmap' "$scratch/spread.txt" || fail "mmap of two directories"
nothing_left
[[ -z "$(ls -A "$scratch/second")" ]] || fail "it left $(ls "$scratch/second")"

"$caisson" bench "$scratch/device" --limit --size 64MiB --json | grep -q '"write_bytes_per_second"' ||
  fail "no device limit alone"
nothing_left
code=0
"$caisson" bench "$scratch/device" --limit --size 5MiB 2> /dev/null || code=$?
(( code == 2 )) || fail "exit code $code for a limit over no multiple of 4 MiB"

# Against itself nothing differs; whether a second run does is chance, but 0 and 1 are all it says.
code=0
"$caisson" bench "$scratch/device" --case save --size 64MiB --rounds 2 --settle 0 --quiet \
  --against "$scratch/first.json" > "$scratch/second.txt" || code=$?
(( code <= 1 )) || fail "exit code $code with --against"
grep -q 'against the baseline' "$scratch/second.txt" || fail "no comparison"

code=0
"$caisson" bench "$scratch/device" --case save --against "$scratch/report.html" 2> /dev/null || code=$?
(( code == 2 )) || fail "exit code $code for a baseline that is none"
code=0
"$caisson" bench "$scratch/device" --case no-such-case 2> /dev/null || code=$?
(( code == 2 )) || fail "exit code $code for a case that is none"
code=0
"$caisson" bench "$scratch/device" --case save --size 1000000GiB 2> /dev/null || code=$?
(( code == 7 )) || fail "exit code $code without space"

# Ctrl-C, in the middle of it.
"$caisson" bench "$scratch/device" --case save --size 64MiB --rounds 1000 --quiet > /dev/null 2>&1 &
bench=$!
for _ in $(seq 100); do
  [[ -n "$(ls -A "$scratch/device")" ]] && break
  sleep 0.1
done
sleep 0.5
kill -TERM "$bench"
code=0
wait "$bench" || code=$?
(( code == 130 )) || fail "exit code $code when interrupted"
nothing_left

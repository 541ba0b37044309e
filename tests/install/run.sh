#!/usr/bin/env bash
# Installs the build into an empty prefix, builds the README's example against it as an outside
# project would, and runs both forms. Usage: run.sh SOURCE_DIR BUILD_DIR
set -euo pipefail
source_dir=$1
build_dir=$2
work=$(mktemp -d)
trap 'rm -rf "$work" /tmp/caisson-readme' EXIT

cmake --install "$build_dir" --prefix "$work/prefix" >"$work/install.log"
awk '/^```cpp$/ {on = 1; next} /^```$/ {on = 0} on' "$source_dir/README.md" >"$work/example.cc"
[ -s "$work/example.cc" ] || { echo "README.md has no C++ example"; exit 1; }

cmake -S "$source_dir/tests/install" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DREADME_EXAMPLE="$work/example.cc" >"$work/configure.log"
cmake --build "$work/build"
for form in static shared; do
  rm -rf /tmp/caisson-readme
  "$work/build/readme_$form"
done
if nm -D --undefined-only "$work/build/readme_shared" "$work"/prefix/lib*/libcaisson*.so* 2>/dev/null |
  grep -qi rocksdb; then
  echo "libcaisson must not need RocksDB"
  exit 1
fi
echo "installed, found, linked and run: static and shared"

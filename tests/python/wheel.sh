#!/usr/bin/env bash
# Installs a wheel into an empty environment, away from the checkout, and runs what README.md and
# docs/python.md say there. Usage: wheel.sh WHEEL
set -euo pipefail
wheel=$(readlink -f "$1")
tests=$(readlink -f "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH CAISSON_LIBRARY CAISSON_COMMAND

python3 -m venv "$work/env"
"$work/env/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel"
cd "$work"
"$work/env/bin/caisson" --version
"$work/env/bin/python" "$tests/docs_test.py"

# A training process never loads RocksDB: it is beside the executable only.
package=$("$work/env/bin/python" -c 'import caisson, pathlib; print(pathlib.Path(caisson.__file__).parent)')
if ldd "$package/lib/libcaisson_c.so" | grep -iE 'rocksdb|not found'; then
  echo "libcaisson_c.so must not need that"
  exit 1
fi
ldd "$package/bin/caisson" | grep -q "$work/.*rocksdb" ||
  { echo "the executable takes RocksDB from the machine"; exit 1; }
echo "installed, imported and run: $(basename "$wheel"), $(du -h "$wheel" | cut -f1)"
